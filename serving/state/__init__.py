"""State in Redis: live histories and the live catalogue."""

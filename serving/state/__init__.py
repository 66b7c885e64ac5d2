"""What outlives a request: live histories and the live catalogue, in Redis."""

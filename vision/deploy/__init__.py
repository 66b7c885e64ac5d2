"""Trained towers made smaller, faster, or run elsewhere."""

"""Answers to requests: the models on their own thread, and the tiers of embeddings."""

"""What answers a request: models on a thread of their own, and the tiers of embeddings."""

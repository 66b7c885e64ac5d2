"""A catalogue: its items and filters, their embeddings, and search over both."""

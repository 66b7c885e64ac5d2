"""Text tower: titles in, embeddings out."""

"""Vision tower: pictures in, embeddings out."""

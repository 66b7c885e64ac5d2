"""What an encoder is built from: transformers, pooling, projection, weights from elsewhere."""

"""Parts of an encoder: pooling, projection, pretrained weights and how they are trained."""

"""Use of trained towers: bulk embedding, compression, export to ONNX and comparison."""

"""gRPC service over a bundle."""

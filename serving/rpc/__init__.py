"""The gRPC face of the service: server, servicer, requests, errors at the border, health."""

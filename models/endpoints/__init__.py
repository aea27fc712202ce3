"""A model behind a server: clients for gRPC and REST, credentials, wire forms."""

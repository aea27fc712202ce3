"""The reference server: SavedModels behind TF Serving's gRPC and REST API, for development and tests.

It is not TF Serving. It follows TF Serving's API (its protos, URLs, JSON, status codes and texts) closely enough that a
client which works against one works against the other; sources are named at each rule. What it leaves out: Classify,
Regress and MultiInference, batching of requests, warm-up, reload by request, TLS, metrics.

    from sluice.models.server.reference import ReferenceServer

    with ReferenceServer({"criteo": "work/model"}) as server:
        channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
"""

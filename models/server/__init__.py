"""The reference server: SavedModels behind TF Serving's gRPC and REST API, for development and tests.

It is not TF Serving, but follows its API: protos, URLs, JSON, status codes and texts. A client that works with one also
works with the other; each rule names its source. Not covered: Classify, Regress and MultiInference, batching of
requests, warm-up, reload by request, TLS, metrics. tests/models/server/test_tf_serving_cases.py has TF Serving's cases.

    from sluice.models.server.reference import ReferenceServer

    with ReferenceServer({"criteo": "work/model"}) as server:
        channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
"""

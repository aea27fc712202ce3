"""A local Vertex AI: endpoints, models and batch prediction jobs over the models of the reference server.

It is not Vertex AI, but follows its REST API: URLs, messages (parsed and written by Google's published protos), limits,
error bodies, result files. Where the service's own behaviour is not published, it is as strict as any reading allows.
Not covered: what changes resources (upload, deploy), explanations, gRPC, quotas.

    from sluice.models.server.vertex.server import VertexServer

    with ReferenceServer({"criteo": "work/model"}) as models, VertexServer(models.predictor, {"criteo": "work/model"}):
        ...
"""

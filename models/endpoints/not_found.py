"""Why an endpoint has no model, and what to do about it: the same words for every protocol."""

from sluice.models.errors import ModelNotFound
from sluice.models.uri import Endpoint, ModelSpec

_ADDRESS = {
    "grpc": "give --model grpc://HOST:PORT/NAME with the address of TF Serving's gRPC API (port 8500 by default; 8501 "
    "is the REST port, for which --model starts with http://)",
    "rest": "give --model http://HOST:PORT/v1/models/NAME with the address of TF Serving's REST API (port 8501 by "
    "default; 8500 is the gRPC port, for which --model starts with grpc://)",
}
_SCHEME = {"grpc": "grpc", "rest": "http"}


def wrong_address(endpoint: Endpoint, said: str) -> ModelNotFound:
    """The server does not answer, or does not speak this API.

    Args:
      said: what was found, with HOST:PORT.
    """
    return ModelNotFound(f"{said}; {_ADDRESS[endpoint.protocol]}")


def unreachable(endpoint: Endpoint, said: str) -> ModelNotFound:
    """There is no connection.

    Args:
      said: why, with HOST:PORT.
    """
    scheme = _SCHEME[endpoint.protocol]
    tls = (
        f"a server without TLS needs {scheme}://, a certificate of a private authority --rpc_ca_file"
        if endpoint.tls
        else f"a server with TLS needs {scheme}s://"
    )
    return ModelNotFound(f"{said}; check that TF Serving runs there, and {_ADDRESS[endpoint.protocol]}; {tls}")


def not_served(spec: ModelSpec, endpoint: Endpoint, said: str) -> ModelNotFound:
    """The server has no such model, version or label."""
    return ModelNotFound(
        f"{endpoint.address} does not serve what --model {spec.uri} names: {said}; check the name, and the version or "
        "label"
    )


def no_tf_serving(endpoint: Endpoint, said: str) -> ModelNotFound:
    """The server that answers is not TF Serving."""
    return wrong_address(endpoint, f"{endpoint.address} answers, but is not TF Serving: {said}")


def refused(endpoint: Endpoint, said: str) -> ModelNotFound:
    """The server wants credentials, or other ones."""
    return ModelNotFound(
        f"{endpoint.address} refuses the credentials: {said}; give others by --rpc_token_file, "
        "--rpc_google_auth or --rpc_headers"
    )


def not_told(endpoint: Endpoint, said: str) -> ModelNotFound:
    """The server fails to describe the model, for a reason of its own."""
    return ModelNotFound(f"{endpoint.address} does not say what model '{endpoint.name}' is: {said}")

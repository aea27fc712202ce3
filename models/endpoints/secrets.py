"""Where secrets may be sent: tokens and keys over TLS only, and Google's access tokens to Google only."""

import ipaddress
import re
from collections.abc import Collection, Iterator

from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.uri import Endpoint

# Names of headers whose values are secrets, in lower case.
_SECRET_HEADER = re.compile(r"(.*-)?(authorization|cookie|token|secret|password|api-?key)")
# A Google access token of the scope cloud-platform opens everything that its owner may open. Names that begin with a
# dot are of all hosts under it. https://cloud.google.com/vertex-ai/docs/predictions/use-dedicated-endpoints
_GOOGLE_HOSTS = ("googleapis.com", ".googleapis.com", ".prediction.vertexai.goog")

# How to encrypt calls, by protocol.
_ENCRYPTED = {
    "grpc": "--model grpcs://...",
    "rest": "--model https://...",
    "vertex": "--model vertex://... with an https:// --vertex_endpoint or none",
}


def check_secrets(options: EndpointOptions, endpoint: Endpoint, headers: Collection[str]) -> None:
    """Checks that a call carries one token at most, and that its secrets may go to the endpoint.

    Args:
      headers: names of the user's own headers, in lower case.

    Raises:
      UsageError: a secret would be sent unencrypted, or an access token to a host that is not Google's.
    """
    tokens = list(_tokens(options, headers))
    if len(tokens) > 1:
        raise UsageError(f"{' and '.join(tokens)} are given, and a call carries one token; give one of them")
    if is_loopback(endpoint.host):
        return
    secrets = _secrets(options, headers)
    if secrets and not endpoint.tls:
        remedy = _ENCRYPTED[endpoint.protocol]
        raise UsageError(f"{secrets[0]} would be sent unencrypted to {endpoint.address}; give {remedy}, or no token")
    is_access_token = options.google_auth and not options.google_audience
    if is_access_token and not _is_among(endpoint.host, (*_GOOGLE_HOSTS, *options.google_auth_hosts)):
        raise UsageError(
            f"--rpc_google_auth would send an access token, which opens all that its owner may open, to "
            f"{endpoint.host}, which is none of Google's hosts; name it with --rpc_google_auth_hosts {endpoint.host} "
            "if you trust it, or send it a token of its own with --rpc_google_audience URL"
        )


def refuse_secrets(options: EndpointOptions, endpoint: Endpoint) -> None:
    """Checks that no secret goes to an endpoint, wherever it is.

    Raises:
      UsageError: one would.
    """
    if secrets := _secrets(options, [name.lower() for name, _ in options.headers]):
        raise UsageError(
            f"{secrets[0]}: a peering endpoint, such as {endpoint.address}, is called without encryption, so no secret "
            "may go there; leave it out"
        )


def _secrets(options: EndpointOptions, headers: Collection[str]) -> list[str]:
    tokens = list(_tokens(options, headers))
    return tokens + [f"--rpc_headers {name}=..." for name in headers if _SECRET_HEADER.fullmatch(name)]


def _tokens(options: EndpointOptions, headers: Collection[str]) -> Iterator[str]:
    if options.token_file:
        yield "--rpc_token_file"
    if options.google_audience:
        yield "--rpc_google_audience"
    elif options.google_auth:
        yield "--rpc_google_auth"
    if "authorization" in headers:
        yield "--rpc_headers authorization=..."


def _is_among(host: str, names: Collection[str]) -> bool:
    host = host.lower().rstrip(".")
    return any(host.endswith(name) if name.startswith(".") else host == name for name in map(str.lower, names))


def is_google(host: str) -> bool:
    """Whether a host is Google's."""
    return _is_among(host, _GOOGLE_HOSTS)


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

"""Where calls about jobs go, and the credentials that they carry."""

from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError

from sluice.models.endpoints.google_accounts import default_credentials
from sluice.models.errors import UsageError
from sluice.models.uri import vertex_host

_PLAIN = "http://"


def service_url(location: str, url: str = "") -> str:
    """Returns the base URL of the service for a location.

    Args:
      url: --vertex_endpoint; "": Google's own.
    """
    return url.rstrip("/") or f"https://{vertex_host(location)}"


def is_plain(url: str) -> bool:
    """Whether a service has no TLS, as a local one has: it is sent no credentials."""
    return url.startswith(_PLAIN)


def find_credentials(url: str, impersonate: str = "") -> Credentials:
    """Returns the credentials for calls to a URL.

    Args:
      impersonate: Beam's --impersonate_service_account.

    Raises:
      UsageError: there are none.
    """
    if is_plain(url):
        return AnonymousCredentials()
    try:
        return default_credentials(impersonate)
    except (GoogleAuthError, OSError) as error:
        raise UsageError(
            f"Vertex AI needs credentials: {error}; run `gcloud auth application-default login`, or name a key file in "
            "GOOGLE_APPLICATION_CREDENTIALS"
        ) from error

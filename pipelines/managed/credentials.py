"""Where calls about jobs go, and the credentials that they carry."""

import google.auth
from google.auth import impersonated_credentials
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError

from sluice.models.errors import UsageError
from sluice.models.uri import vertex_host

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
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
      impersonate: Beam's --impersonate_service_account: an account, or a chain of delegates that ends with it, by
        commas.

    Raises:
      UsageError: there are none.
    """
    if is_plain(url):
        return AnonymousCredentials()
    try:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    except (GoogleAuthError, OSError) as error:
        raise UsageError(
            f"Vertex AI needs credentials: {error}; run `gcloud auth application-default login`, or name a key file in "
            "GOOGLE_APPLICATION_CREDENTIALS"
        ) from error
    if not impersonate:
        return credentials
    *delegates, account = [part.strip() for part in impersonate.split(",")]
    return impersonated_credentials.Credentials(credentials, account, target_scopes=_SCOPES, delegates=delegates)

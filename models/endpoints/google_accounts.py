"""Google's credentials: those that google.auth finds, or those of a service account that they may act as."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions

# google.auth is imported by the functions that use it: without a Google token no client needs it.
if TYPE_CHECKING:
    import google.auth.credentials
    import google.auth.transport

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# The header that requests to a metadata server have: https://cloud.google.com/compute/docs/metadata/querying-metadata
_METADATA = "metadata-flavor"

_NO_DEFAULT = (
    "--rpc_google_auth: there are no application default credentials: {}; run `gcloud auth application-default login`, "
    "or name a key file in GOOGLE_APPLICATION_CREDENTIALS"
)
_NO_SERVICE_ACCOUNT = (
    "--rpc_google_audience: there is no service account to get an ID token for: {}; name its key file in "
    "GOOGLE_APPLICATION_CREDENTIALS, or run on Google Cloud (a user's own login gives no such token)"
)


class GoogleCredentials(Protocol):
    """The part of google.auth.credentials.Credentials that a GoogleToken uses.

    Attributes:
      expiry: when the token expires, in UTC and without a time zone; None: never.
    """

    token: str | None
    expiry: datetime.datetime | None

    def refresh(self, request: "google.auth.transport.Request") -> None:
        """Fetches a new token.

        Args:
          request: sends the HTTP requests.
        """


def find_credentials(
    options: EndpointOptions, request: "google.auth.transport.Request | None" = None
) -> GoogleCredentials:
    """Returns the credentials for ID tokens if the options name an audience, else those for access tokens.

    Args:
      request: sends the HTTP requests of the look-up; None: LookUpRequest.

    Raises:
      UsageError: there are none on this machine.
    """
    import google.oauth2.id_token
    from google.auth.exceptions import GoogleAuthError

    credentials: GoogleCredentials
    try:
        if options.google_audience:
            credentials = google.oauth2.id_token.fetch_id_token_credentials(
                options.google_audience, request or LookUpRequest()
            )
        else:
            credentials = default_credentials(options.google_account, request)
    except (GoogleAuthError, OSError) as error:
        raise UsageError((_NO_SERVICE_ACCOUNT if options.google_audience else _NO_DEFAULT).format(error)) from error
    return credentials


def default_credentials(
    account: str = "", request: "google.auth.transport.Request | None" = None
) -> "google.auth.credentials.Credentials":
    """Returns the application default credentials, or those of an account that they may act as.

    Args:
      account: see --impersonate_service_account of Beam and gcloud: an account, or a chain of delegates that ends with
        it, by commas; "": none.
      request: sends the HTTP requests of the look-up; None: LookUpRequest.

    Raises:
      GoogleAuthError, OSError: there are none on this machine.
    """
    import google.auth

    found: google.auth.credentials.Credentials = google.auth.default(
        scopes=[_GOOGLE_SCOPE], request=request or LookUpRequest()
    )[0]
    if not account:
        return found
    from google.auth import impersonated_credentials

    *delegates, principal = [name.strip() for name in account.split(",")]
    credentials: google.auth.credentials.Credentials = impersonated_credentials.Credentials(
        found, target_principal=principal, target_scopes=[_GOOGLE_SCOPE], delegates=delegates
    )
    return credentials


class LookUpRequest:
    """Sends google.auth's HTTP requests while it looks for credentials.

    Without a file of credentials, google.auth asks the metadata server that machines of Google's have: three times, for
    3 s each, with pauses. On another machine, the first request without an answer ends the look-up.

    Args:
      send: sends a request; None: google.auth's own.
      product: a file with the name of the machine's product.

    Attributes:
      session: the `requests.Session`; google.auth adds an adapter for the TLS of metadata servers.
    """

    def __init__(
        self, send: "google.auth.transport.Request | None" = None, product: str = "/sys/class/dmi/id/product_name"
    ) -> None:
        if send is None:
            from google.auth.transport.requests import Request

            send = Request()
        self._send = send
        self._product = Path(product)
        self.session = getattr(send, "session", None)

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **more: object,  # of requests.Session.request
    ) -> "google.auth.transport.Response":
        from google.auth.exceptions import DefaultCredentialsError, TransportError

        try:
            return self._send(url, method, body, headers, timeout, **more)
        except TransportError as error:
            if _METADATA not in (headers or {}) or self._is_googles():
                raise
            raise DefaultCredentialsError(
                "no file of credentials is found, and this is none of Google's machines, which have a metadata server"
            ) from error

    def _is_googles(self) -> bool:
        try:
            return self._product.read_text().startswith("Google")
        except (OSError, UnicodeDecodeError):
            return False

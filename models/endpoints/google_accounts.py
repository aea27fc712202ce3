"""Google's credentials: those that google.auth finds, or those of a service account that they may act as."""

import datetime
from typing import TYPE_CHECKING, Protocol

from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions

# google.auth is imported by the functions that use it: without a Google token no client needs it.
if TYPE_CHECKING:
    import google.auth.credentials
    import google.auth.transport

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"

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


def find_credentials(options: EndpointOptions) -> GoogleCredentials:
    """Returns the credentials for ID tokens if the options name an audience, else those for access tokens.

    Raises:
      UsageError: there are none on this machine.
    """
    import google.oauth2.id_token
    from google.auth.exceptions import GoogleAuthError

    credentials: GoogleCredentials
    try:
        if options.google_audience:
            credentials = google.oauth2.id_token.fetch_id_token_credentials(options.google_audience)
        else:
            credentials = default_credentials(options.google_account)
    except (GoogleAuthError, OSError) as error:
        raise UsageError((_NO_SERVICE_ACCOUNT if options.google_audience else _NO_DEFAULT).format(error)) from error
    return credentials


def default_credentials(account: str = "") -> "google.auth.credentials.Credentials":
    """Returns the application default credentials, or those of an account that they may act as.

    Args:
      account: see --impersonate_service_account of Beam and gcloud: an account, or a chain of delegates that ends with
        it, by commas; "": none.

    Raises:
      GoogleAuthError, OSError: there are none on this machine.
    """
    import google.auth

    found: google.auth.credentials.Credentials = google.auth.default(scopes=[_GOOGLE_SCOPE])[0]
    if not account:
        return found
    from google.auth import impersonated_credentials

    *delegates, principal = [name.strip() for name in account.split(",")]
    credentials: google.auth.credentials.Credentials = impersonated_credentials.Credentials(
        found, target_principal=principal, target_scopes=[_GOOGLE_SCOPE], delegates=delegates
    )
    return credentials

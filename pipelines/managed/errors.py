"""What errors of Vertex AI's job and model services mean, and what helps: which permission, which flag, or patience."""

import re
from typing import NamedTuple

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, InvalidOperation, TransportError

from sluice.models.error_table import http_status
from sluice.models.errors import Overloaded, ServerFault, SluiceError, TimedOut, Unavailable, UsageError


class Call(NamedTuple):
    """A method of the service.

    Attributes:
      what: what the method does, as errors say it.
      permission: that its caller needs. https://cloud.google.com/vertex-ai/docs/general/iam-permissions
    """

    what: str
    permission: str


GET_MODEL = Call("read the model", "aiplatform.models.get")
CREATE = Call("create a batch prediction job", "aiplatform.batchPredictionJobs.create")
GET = Call("read the batch prediction job", "aiplatform.batchPredictionJobs.get")
LIST = Call("list batch prediction jobs", "aiplatform.batchPredictionJobs.list")
CANCEL = Call("cancel the batch prediction job", "aiplatform.batchPredictionJobs.cancel")


class NoSuchResource(UsageError):
    """The service has no such model, job, project or location."""


# The reason of google.rpc.ErrorInfo for an API that the project has not switched on.
_DISABLED = "SERVICE_DISABLED"
_UNIMPLEMENTED = 501
# The generated client puts the request before the service's words.
_REQUEST = re.compile(r"^(GET|POST) \S+: ")


def kind_of(error: Exception) -> type[SluiceError]:
    """Returns what an error of a call means, by the table of all backends. UsageError: repeating it is of no use."""
    if isinstance(error, GoogleAPICallError) and error.code:
        kind = http_status(int(error.code)).alone
        may_pass = issubclass(kind, Unavailable | ServerFault) and error.code != _UNIMPLEMENTED
        return kind if may_pass else UsageError
    if isinstance(error, GoogleAuthError):
        # The network failed, or google.auth itself says that the error may pass.
        return Unavailable if error.retryable or isinstance(error, TransportError) else UsageError
    if isinstance(error, OSError):  # what `requests` raises, among others
        return TimedOut if "timeout" in type(error).__name__.lower() else Unavailable
    return ServerFault  # such as an answer that is not what the proto says


def error_of(call: Call, resource: str, error: Exception) -> SluiceError:
    """Returns the error to raise: fact, the service's words, remedy.

    Args:
      resource: what the call is about.
    """
    kind, words = kind_of(error), words_of(error)
    if issubclass(kind, Overloaded):
        return kind(
            f"cannot {call.what}: {resource}: the quota is used up: {words}; wait, or ask Google for more of it"
        )
    if kind is not UsageError:
        return kind(f"cannot {call.what}: {resource}: {words}")
    if isinstance(error, GoogleAuthError):
        return UsageError(f"cannot {call.what}: {resource}: {words}{_about_credentials(error)}")
    assert isinstance(error, GoogleAPICallError)
    if error.code == 404:
        return NoSuchResource(f"cannot {call.what}: {resource} does not exist: {words}; check project, location and ID")
    return UsageError(f"cannot {call.what}: {resource}: {words}{_remedy(call, error)}")


def words_of(error: Exception) -> str:
    """Returns the service's own words."""
    text = error.message if isinstance(error, GoogleAPICallError) else str(error)
    return _REQUEST.sub("", str(text)).strip().rstrip(".") or type(error).__name__


def _remedy(call: Call, error: GoogleAPICallError) -> str:
    if error.reason == _DISABLED:
        return "; switch the API on: `gcloud services enable aiplatform.googleapis.com`"
    if error.code == 403:
        also = ", and iam.serviceAccounts.actAs on --vertex_service_account" if call is CREATE else ""
        return (
            f". The caller needs the permission {call.permission}{also}; roles/aiplatform.user has the former. Does "
            "--impersonate_service_account name the account that you mean?"
        )
    if error.code == 401:
        return "; `gcloud auth application-default login` renews your credentials"
    return ""


def _about_credentials(error: GoogleAuthError) -> str:
    if isinstance(error, InvalidOperation):
        return "; the server wants credentials, and an http:// server of --vertex_endpoint is sent none: give https://"
    return "; `gcloud auth application-default login` renews your credentials"

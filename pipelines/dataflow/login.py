"""Whether this machine has credentials of Google's, which Dataflow asks for; found out in seconds, before all else."""

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, TestOptions
from google.auth.exceptions import GoogleAuthError
from google.auth.transport import Request

from sluice.models.endpoints.google_accounts import default_credentials
from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.runner import is_dataflow


def check_login(options: PipelineOptions, request: Request | None = None) -> None:
    """Checks that a job which this machine submits to Dataflow can be submitted by somebody.

    Beam would look for credentials for minutes, and then go on without any.

    Args:
      request: sends the HTTP requests of the look-up; None: LookUpRequest.

    Raises:
      UsageError: there are no credentials.
    """
    if not is_dataflow(options) or not _submits(options):
        return
    try:
        default_credentials(options.view_as(GoogleCloudOptions).impersonate_service_account or "", request)
    except (GoogleAuthError, OSError) as error:
        raise UsageError(
            f"Dataflow needs Google's credentials, and there are none: {error}. Log in with `gcloud auth "
            "application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS; docs/dataflow.md lists "
            "the roles that they need"
        ) from error


def _submits(options: PipelineOptions) -> bool:
    """Whether this process asks the service for a job, and says who asks. The launcher of a template only writes it."""
    google = options.view_as(GoogleCloudOptions)
    return not (google.no_auth or google.template_location or options.view_as(TestOptions).dry_run)

"""Opens the client for a command's managed jobs, and tells which machines they run on."""

from sluice.models.uri import ManagedModel
from sluice.pipelines.managed.client import JobClient
from sluice.pipelines.managed.credentials import find_credentials, is_plain, service_url
from sluice.pipelines.managed.job import Machines
from sluice.pipelines.managed.wire import check_accelerator
from sluice.pipelines.options.batch import BatchOptions


def open_client(model: ManagedModel, options: BatchOptions, impersonate: str = "") -> JobClient:
    """Returns the client for the jobs of a model's project and location.

    Args:
      impersonate: Beam's --impersonate_service_account.

    Raises:
      UsageError: there are no credentials, or no such accelerator.
    """
    url = service_url(model.location, options.vertex_endpoint)
    check_accelerator(options.accelerator()[0])
    credentials = find_credentials(url, impersonate)
    return JobClient(model.project, model.location, url, credentials, retry_secs=options.max_retry_secs)


def is_here(url: str) -> bool:
    """Whether the service at a URL is a local one, which reads and writes files of this machine too."""
    return is_plain(url)


def model_name(model: ManagedModel) -> str:
    """Returns the model's resource name, with the version or alias that its URI has."""
    return model.name


def machines(options: BatchOptions) -> Machines:
    """Returns the machines that the flags ask for."""
    accelerator, accelerators = options.accelerator()
    return Machines(
        machine_type=options.vertex_machine_type,
        replicas=options.vertex_replicas,
        accelerator=accelerator,
        accelerators=accelerators,
        batch_size=options.vertex_batch_size,
        service_account=options.vertex_service_account,
    )

"""The flags that say which model is called, and how; the same for every command that calls one."""

import dataclasses
import sys

from sluice.models.batching.options import ON_UNAVAILABLE, SchedulerOptions
from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.signature import DEFAULT_SIGNATURE
from sluice.pipelines.options.flags import flag, parse_bool, parse_headers, parse_sizes

REST_FORMATS = ("columns", "rows")

# A day: more is a mistake of the unit, and overflows timers.
_MAX_RPC_TIMEOUT_SECS = 86_400.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointFlags:
    """How a served model is reached."""

    rpc_timeout_secs: float = flag("Deadline of one call", 60.0, float, group="Endpoint", metavar="S")
    rpc_ca_file: str = flag(
        "PEM file of the certificates to trust, instead of the machine's; read at launch", "", group="Endpoint",
        metavar="FILE",
    )  # fmt: skip
    rpc_headers: tuple[tuple[str, str], ...] = flag(
        "Headers of every call; or @FILE with one 'NAME: VALUE' or NAME=VALUE a line, read at launch: for values that "
        "have commas, and for secrets, which others on this machine would see in a command line",
        (),
        parse_headers,
        group="Endpoint",
        metavar="NAME=VALUE,...|@FILE",
        secret=True,
    )
    rpc_token_file: str = flag(
        "File with a bearer token, on each worker; read again when it changes", "", group="Endpoint", metavar="FILE"
    )
    rpc_google_auth: bool = flag(
        "Send a Google access token (application default credentials, scope cloud-platform), as Google's APIs want it; "
        "for Cloud Run and IAP see --rpc_google_audience",
        False,
        parse_bool,
        group="Endpoint",
    )
    rpc_google_audience: str = flag(
        "Send a Google ID token for this audience, as Cloud Run and IAP want it, instead of an access token (Cloud "
        "Run: the service's URL; IAP: the OAuth client's ID); implies --rpc_google_auth",
        "",
        group="Endpoint",
        metavar="URL",
    )
    rest_format: str = flag(
        "REST: send a list for each input, or an object for each row", "columns", choices=REST_FORMATS, group="Endpoint"
    )
    rest_gzip: bool = flag("REST: compress requests", False, parse_bool, group="Endpoint")

    def __post_init__(self) -> None:
        check_number(self, "rpc_timeout_secs", above=0, most=_MAX_RPC_TIMEOUT_SECS)

    def endpoint_options(self) -> EndpointOptions:
        """Returns how the endpoint is called, the certificates read.

        Raises:
          UsageError: the file of certificates cannot be read.
        """
        certificates = ""
        if self.rpc_ca_file:
            try:
                with open(self.rpc_ca_file, encoding="ascii") as file:
                    certificates = file.read()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"--rpc_ca_file {self.rpc_ca_file} cannot be read: {error}") from error
        return EndpointOptions(
            rpc_timeout_secs=self.rpc_timeout_secs,
            ca_certificates=certificates,
            headers=self.rpc_headers,
            token_file=self.rpc_token_file,
            google_auth=self.rpc_google_auth,
            google_audience=self.rpc_google_audience,
            rest_format=self.rest_format,
            rest_gzip=self.rest_gzip,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFlags(EndpointFlags):
    """Which model is called, and how rows are gathered into calls. Checks itself."""

    model: str = flag(
        "SavedModel directory, or one of numbered versions of it (the newest complete one is used), local or gs://; or "
        "a model behind TF Serving: grpc://HOST:8500/NAME or http://HOST:8501/v1/models/NAME, with /versions/N or "
        "/labels/L behind it if need be, grpcs:// and https:// for TLS",
        group="Model",
        metavar="URI",
    )
    signature: str = flag("Signature of the model to call", DEFAULT_SIGNATURE, group="Model", metavar="NAME")
    max_batch_size: int = flag(
        "Rows of one call at most; 0: 4096 in the worker, 512 for an endpoint", 0, int, group="Model",
        metavar="ROWS",
    )  # fmt: skip
    max_batch_bytes: int = flag("Bytes of one call's tensors at most", 64 << 20, int, group="Model", metavar="BYTES")
    max_batch_delay_ms: float = flag(
        "How long rows wait for company though the model is free", 0.0, float, group="Model", metavar="MS"
    )
    allowed_batch_sizes: tuple[int, ...] = flag(
        "Pad each call to one of these sizes", (), parse_sizes, group="Model", metavar="16,128,..."
    )
    max_in_flight: int = flag(
        "Calls under way at a time, per process; 0: 1 in the worker, for an endpoint as many as serve best, up to 32 "
        "(a number that is given bounds that search)",
        0,
        int,
        group="Model",
        metavar="CALLS",
    )
    intra_op_threads: int = flag("Threads within an op; 0: one per core", 0, int, group="Model", metavar="N")
    inter_op_threads: int = flag("Threads across ops; 0: one per core", 0, int, group="Model", metavar="N")
    warm_up: bool = flag(
        "Replay the model's assets.extra/tf_serving_warmup_requests after loading it", True, parse_bool, group="Model"
    )
    max_retries: int = flag(
        "How often a call is repeated that the server broke on, or that is not answered while others are", 3, int,
        group="Endpoint", metavar="N",
    )  # fmt: skip
    max_retry_secs: float = flag(
        "How long a server that is away, overloaded, or answers nobody is waited for",
        300.0,
        float,
        group="Endpoint",
        metavar="S",
    )
    on_unavailable: str = flag(
        "After --max_retry_secs or --max_retries: fail the job, or make failures of the rows (dead_letter)", "fail",
        choices=ON_UNAVAILABLE, group="Endpoint",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise UsageError("--model is empty")
        for name in ("max_batch_delay_ms", "max_retry_secs"):
            check_number(self, name)
        for name in ("max_retries", "intra_op_threads", "inter_op_threads"):
            check_number(self, name, whole=True)
        check_number(self, "max_batch_bytes", above=0, whole=True)
        self.scheduler_options()  # checks its own

    def scheduler_options(self) -> SchedulerOptions:
        """Returns how rows are gathered into calls."""
        return SchedulerOptions(
            max_batch_size=self.max_batch_size,
            max_batch_bytes=self.max_batch_bytes,
            max_batch_delay_ms=self.max_batch_delay_ms,
            allowed_batch_sizes=self.allowed_batch_sizes,
            max_in_flight=self.max_in_flight,
            max_retries=self.max_retries,
            max_retry_secs=self.max_retry_secs,
            on_unavailable=self.on_unavailable,
        )


def check_number(
    options: object, name: str, *, above: float | None = None, most: float = sys.float_info.max, whole: bool = False
) -> None:
    """Refuses what is no number above `above` (None: 0 or more), up to `most`. So NaN, of which no comparison holds."""
    value = getattr(options, name)
    enough = value >= 0 if above is None else value > above
    if enough and value <= most and (not whole or isinstance(value, int)):
        return
    kind = "a whole number" if whole else "a finite number"
    bounds = "0 or more" if above is None else f"more than {above:g}"
    if most < sys.float_info.max:
        bounds += f" and at most {most:g}"
    text = f"{value:g}" if isinstance(value, float) else value
    raise UsageError(f"--{name} {text}: it is {kind}, {bounds}")

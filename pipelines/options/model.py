"""The flags for which model to call, and how; the same for every command that calls one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sluice.models.batching.options import ON_UNAVAILABLE, SchedulerOptions
from sluice.models.errors import UsageError
from sluice.models.interface import DEFAULT_RPC_TIMEOUT_SECS, EndpointOptions, ModelOptions
from sluice.models.signature import DEFAULT_SIGNATURE
from sluice.models.uri import parse_base_url
from sluice.pipelines.options.flags import check_number, flag, parse_bool, parse_headers, parse_names, parse_sizes

REST_FORMATS = ("columns", "rows")

# A day: a longer deadline has the wrong unit, and overflows timers.
_MAX_RPC_TIMEOUT_SECS = 86_400.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointFlags:
    """How to reach a served model."""

    rpc_timeout_secs: float | None = flag(
        "Deadline of one call; default: 60, and for an endpoint of Vertex AI the endpoint's own", None, float,
        group="Endpoint", metavar="S",
    )  # fmt: skip
    rpc_ca_file: str = flag(
        "PEM file of certificates to trust instead of the machine's; read at launch", "", group="Endpoint",
        metavar="FILE",
    )  # fmt: skip
    rpc_headers: tuple[tuple[str, str], ...] = flag(
        "Headers of every call; or @FILE with one 'NAME: VALUE' or NAME=VALUE a line, read at launch. Use @FILE for "
        "values with commas, and for secrets, which others on this machine can see in a command line",
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
        "Send a Google access token (application default credentials, scope cloud-platform), which Google's APIs need; "
        "for Cloud Run and IAP see --rpc_google_audience",
        False,
        parse_bool,
        group="Endpoint",
    )
    rpc_google_auth_hosts: tuple[str, ...] = flag(
        "Hosts besides Google's own that --rpc_google_auth may send its token to; .DOMAIN: all hosts under it",
        (),
        parse_names,
        group="Endpoint",
        metavar="HOST,...",
    )
    rpc_google_audience: str = flag(
        "Send a Google ID token for this audience instead of an access token, which Cloud Run and IAP need (Cloud Run: "
        "the service's URL; IAP: the OAuth client's ID); implies --rpc_google_auth",
        "",
        group="Endpoint",
        metavar="URL",
    )
    rest_format: str = flag(
        "REST: send one list per input, or one object per row", "columns", choices=REST_FORMATS, group="Endpoint"
    )
    rest_gzip: bool = flag("REST: compress requests", False, parse_bool, group="Endpoint")
    vertex_endpoint: str = flag(
        "URL of a proxy or a local service instead of Vertex AI at LOCATION-aiplatform.googleapis.com. An http:// URL "
        "gets no credentials",
        "",
        group="Endpoint",
        metavar="URL",
    )
    signature_from: str = flag(
        "vertex://: take the signature from this SavedModel directory, saved_model.pb, or JSON file of TF Serving's "
        "/metadata, instead of the deployed model's artifact; read at launch",
        "",
        group="Endpoint",
        metavar="DIR|FILE",
    )

    def __post_init__(self) -> None:
        if self.rpc_timeout_secs is not None:
            check_number(self, "rpc_timeout_secs", above=0, most=_MAX_RPC_TIMEOUT_SECS)
        if self.vertex_endpoint:
            parse_base_url(self.vertex_endpoint, "--vertex_endpoint")

    def endpoint_options(self, account: str = "") -> EndpointOptions:
        """Returns how to call the endpoint; reads the certificates.

        Args:
          account: see EndpointOptions.google_account.

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
            rpc_timeout_secs=DEFAULT_RPC_TIMEOUT_SECS if self.rpc_timeout_secs is None else self.rpc_timeout_secs,
            own_timeout=self.rpc_timeout_secs is None,
            ca_certificates=certificates,
            headers=self.rpc_headers,
            token_file=self.rpc_token_file,
            google_auth=self.rpc_google_auth,
            google_auth_hosts=self.rpc_google_auth_hosts,
            google_audience=self.rpc_google_audience,
            google_account=account,
            rest_format=self.rest_format,
            rest_gzip=self.rest_gzip,
            vertex_endpoint=self.vertex_endpoint,
            signature_from=self.signature_from,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFlags(EndpointFlags):
    """Which model to call, and how to gather rows into calls. Checks itself."""

    model: str = flag(
        "SavedModel directory, or a directory of its numbered versions (the newest complete one is used), local or "
        "gs://; or a model behind TF Serving: grpc://HOST:8500/NAME or http://HOST:8501/v1/models/NAME, optionally "
        "with /versions/N or /labels/L; grpcs:// and https:// for TLS; or an endpoint of Vertex AI: "
        "vertex://projects/P/locations/L/endpoints/E",
        group="Model",
        metavar="URI",
    )
    signature: str = flag("Signature of the model to call", DEFAULT_SIGNATURE, group="Model", metavar="NAME")
    max_batch_size: int = flag(
        "Maximum rows per call; 0: 4096 in the worker, 512 for an endpoint, 64 if an input gets what is in files",
        0,
        int,
        group="Model",
        metavar="ROWS",
    )
    max_batch_bytes: int = flag("Maximum bytes of tensors per call", 64 << 20, int, group="Model", metavar="BYTES")
    max_batch_delay_ms: float = flag(
        "How long rows wait for more rows although the model is free", 0.0, float, group="Model", metavar="MS"
    )
    allowed_batch_sizes: tuple[int, ...] = flag(
        "Pad each call to one of these sizes", (), parse_sizes, group="Model", metavar="16,128,..."
    )
    max_in_flight: int = flag(
        "Maximum concurrent calls per process; 0: 1 in the worker; for an endpoint the best number is searched for, "
        "up to 32 (a value limits that search)",
        0,
        int,
        group="Model",
        metavar="CALLS",
    )
    intra_op_threads: int = flag("Threads within an op; 0: one per core", 0, int, group="Model", metavar="N")
    inter_op_threads: int = flag("Threads across ops; 0: one per core", 0, int, group="Model", metavar="N")
    model_timeout_secs: float = flag(
        "Deadline of one call of a model in the worker; 0: none. A call that does not end is tried once more; then the "
        "process ends, to be replaced",
        600.0,
        float,
        group="Model",
        metavar="S",
    )
    warm_up: bool = flag(
        "Replay the model's assets.extra/tf_serving_warmup_requests after loading it", True, parse_bool, group="Model"
    )
    op_libraries: tuple[str, ...] = flag(
        "Libraries of ops that the model uses beside TensorFlow's own (TF Text, TF Ranking): their paths on each "
        "worker",
        (),
        parse_names,
        group="Model",
        metavar="FILE,...",
    )
    max_retries: int = flag(
        "How often to repeat a call that fails in the server, or that gets no response while other calls do", 3, int,
        group="Endpoint", metavar="N",
    )  # fmt: skip
    max_retry_secs: float = flag(
        "How long to wait for a server that is unavailable, overloaded, or responds to no call",
        300.0,
        float,
        group="Endpoint",
        metavar="S",
    )
    on_unavailable: str = flag(
        "After --max_retry_secs or --max_retries: fail the job, or turn the rows into failures (dead_letter)", "fail",
        choices=ON_UNAVAILABLE, group="Endpoint",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise UsageError("--model is empty")
        for name in ("max_batch_delay_ms", "max_retry_secs"):
            check_number(self, name)
        check_number(self, "model_timeout_secs", most=_MAX_RPC_TIMEOUT_SECS)
        for name in ("max_retries", "intra_op_threads", "inter_op_threads"):
            check_number(self, name, whole=True)
        check_number(self, "max_batch_bytes", above=0, whole=True)
        self.scheduler_options()  # checks its own values

    def model_options(self, endpoint: EndpointOptions, defaults: Mapping[str, Any]) -> ModelOptions:
        """Returns how to open and call the model.

        Args:
          defaults: by input, in the types of the signature.
        """
        return ModelOptions(
            signature=self.signature,
            defaults=tuple(sorted(defaults.items())),
            intra_op_threads=self.intra_op_threads,
            inter_op_threads=self.inter_op_threads,
            warm_up=self.warm_up,
            op_libraries=self.op_libraries,
            time_limit_secs=self.model_timeout_secs,
            endpoint=endpoint,
        )

    def scheduler_options(self) -> SchedulerOptions:
        """Returns how to gather rows into calls."""
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

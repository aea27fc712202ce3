"""The flags for managed batch prediction jobs of Vertex AI."""

import dataclasses
import re

from sluice.models.errors import UsageError
from sluice.models.signature import DEFAULT_SIGNATURE
from sluice.models.uri import parse_model_uri
from sluice.pipelines.options.flags import check_number, flag, parse_bool

GROUP = "Managed job"
_SCHEME = "vertex://"
_ACCELERATOR = re.compile(r"([A-Z][A-Z0-9_]*)(?::([1-9][0-9]*))?")
# Flags that have no effect where the service reads and writes by itself.
NOT_DIRECT = (
    "input_query", "row_restriction", "column_names", "csv_delimiter", "csv_quote_char", "allow_quoted_newlines",
    "input_schema", "column_defaults", "columns", "exclude_columns", "output_prefix", "add_model_columns", "flatten",
    "write_disposition", "write_method", "allow_schema_update", "partition_by", "cluster_by", "failures",
    "failures_table", "failure_payload", "failure_payload_dir", "csv_encoding", "csv_skip_lines",
    "rename_duplicate_columns", "null_values", "null_strings", "map", "limit", "check",
    "read_paths", "read_paths_root",
    "vertex_max_rescore_rate",
)  # fmt: skip
# An int32 in the service's protos.
_MAX_INT32 = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class VertexFlags:
    """Which machines score, and how far the command goes with the job."""

    vertex_machine_type: str = flag(
        "Type of the machines that score in a managed job", "n1-standard-4", group=GROUP, metavar="TYPE"
    )
    vertex_accelerator: str = flag(
        "Accelerator of each of them, such as NVIDIA_TESLA_T4 or NVIDIA_L4:2; default: none", "", group=GROUP,
        metavar="TYPE[:COUNT]",
    )  # fmt: skip
    vertex_replicas: int = flag("How many of them", 1, int, group=GROUP, metavar="N")
    vertex_batch_size: int = flag(
        "Rows per call of the model in a managed job; 0: 64, the service's own. A row that fails takes its batch with "
        "it, which is then scored again, row by row",
        0,
        int,
        group=GROUP,
        metavar="ROWS",
    )
    vertex_max_rescore_rate: float = flag(
        "Share of rows that may be scored once more, one by one, because the managed job has not answered them; above "
        "it, and above 1,000 rows, the command fails before it pays for that",
        0.5,
        float,
        group=GROUP,
        metavar="SHARE",
    )
    vertex_service_account: str = flag(
        "Service account that the model's container runs as; default: one of the service's own. Files and tables are "
        "read and written by Vertex AI's service agent in any case",
        "",
        group=GROUP,
        metavar="ACCOUNT",
    )
    vertex_direct: bool = flag(
        "The service reads --input (JSON Lines, CSV, TFRecord, on gs://) or --input_table itself, and writes the "
        "output in its own form under --output, a gs:// directory, or in --output_table. Nothing is prepared or joined",
        False,
        parse_bool,
        group=GROUP,
    )
    vertex_job: str = flag(
        "Follow this managed job, by its ID, name or label, though its input has changed since: its rows are those "
        "that were prepared for it. All other flags are those of the command that made it",
        "",
        group=GROUP,
        metavar="JOB",
    )
    detach: bool = flag(
        "Return when the managed job is created, and print the command that follows it and gets its output", False,
        parse_bool, group=GROUP,
    )  # fmt: skip
    cancel_on_interrupt: bool = flag(
        "Ctrl-C cancels the managed job; without this flag the job goes on, and the same command follows it", False,
        parse_bool, group=GROUP,
    )  # fmt: skip

    def check_vertex(self, model: str, signature: str) -> None:
        """Checks the flags of managed jobs.

        Args:
          model: the URI of --model.
          signature: --signature.

        Raises:
          UsageError: one is given, and the model is none of a managed job; or a value is invalid.
        """
        fields = dataclasses.fields(VertexFlags)
        given = [field.name for field in fields if getattr(self, field.name) != field.default]
        managed = bool(given or model.strip().startswith(_SCHEME)) and parse_model_uri(model).managed is not None
        if given and not managed:
            raise UsageError(
                f"--{given[0]} applies to a managed job: --model vertex://projects/P/locations/L/models/M; leave it out"
            )
        if managed and signature != DEFAULT_SIGNATURE:
            raise UsageError(
                f"--signature {signature}: a managed job calls '{DEFAULT_SIGNATURE}' only; an endpoint (--model "
                "vertex://projects/P/locations/L/endpoints/E) calls any"
            )
        if not self.vertex_machine_type:
            raise UsageError("--vertex_machine_type is empty; a managed job needs machines, such as n1-standard-4")
        check_number(self, "vertex_replicas", above=0, most=_MAX_INT32, whole=True)
        check_number(self, "vertex_batch_size", most=_MAX_INT32, whole=True)
        check_number(self, "vertex_max_rescore_rate", most=1)
        self.accelerator()
        if self.detach and self.cancel_on_interrupt:
            raise UsageError("--detach does not wait for the job, so --cancel_on_interrupt has no effect; give one")

    def accelerator(self) -> tuple[str, int]:
        """Returns the accelerator's type and how many of it each machine has; ("", 0): none.

        Raises:
          UsageError: the flag has another form.
        """
        if not self.vertex_accelerator:
            return "", 0
        found = _ACCELERATOR.fullmatch(self.vertex_accelerator)
        if not found or int(found[2] or 1) > _MAX_INT32:
            raise UsageError(
                f"--vertex_accelerator {self.vertex_accelerator}: give TYPE or TYPE:COUNT, such as NVIDIA_TESLA_T4:1"
            )
        return found[1], int(found[2] or 1)

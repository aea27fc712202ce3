"""The flags that batch and streaming jobs share."""

import dataclasses

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import (
    flag,
    log_format_flag,
    map_flag,
    parse_bool,
    parse_names,
    parse_pairs,
    progress_flag,
)
from sluice.transforms.core.formats import FORMATS

# The directory of payloads in files, where none is given: beside other files of the job. It is named here, because
# transforms.core.payload_files imports Beam, and flags must not.
DIRECTORY = "failure-payloads"
PAYLOAD_MODES = ("full", "hash", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobFlags:
    """What a job carries from input to output, in which form, and what it reports."""

    column_defaults: tuple[tuple[str, str], ...] = flag(
        "Values for nulls in columns of the model; may be repeated", (), parse_pairs, group="Input", metavar="A=0,B=x",
        repeated=True,
    )  # fmt: skip
    map: tuple[tuple[str, str], ...] = map_flag(
        "Columns that the model's inputs take their values from, where the names differ; may be repeated"
    )
    read_paths: tuple[tuple[str, str], ...] = map_flag(
        "Inputs of the model that get what is in files, and the columns that hold their paths or URIs; may be repeated"
    )
    read_paths_root: str = flag(
        "Directory, local or a URI, where relative paths of --read_paths begin; no path leads out of it. Default: a "
        "relative path begins in the directory of the file that holds its row, and any path may be read, but no "
        "message names a file of the worker's own disk",
        "",
        group="Input",
        metavar="DIR",
    )
    output_format: str = flag(
        "Format of the output files; default: by their ending", "", choices=FORMATS, group="Output"
    )
    output_prefix: str = flag("Prefix for the names of the model's outputs", "", group="Output", metavar="TEXT")
    columns: tuple[str, ...] | None = flag(
        "Input columns to carry into the output; default: all; empty: none", None, parse_names, group="Output",
        metavar="A,B,...",
    )  # fmt: skip
    exclude_columns: tuple[str, ...] = flag(
        "Input columns and model outputs to leave out", (), parse_names, group="Output", metavar="A,B,..."
    )
    add_model_columns: bool = flag(
        "Add _model and _version to each row; tables always have them, and messages have them as attributes", False,
        parse_bool, group="Output",
    )  # fmt: skip
    flatten: bool = flag("CSV: write lists as JSON text in one field", False, parse_bool, group="Output")
    failure_payload: str = flag(
        "What a failure keeps of its row: the whole row, its SHA-256, or nothing", "full", choices=PAYLOAD_MODES,
        group="Failures",
    )  # fmt: skip
    failure_payload_dir: str = flag(
        "Directory, local or gs://, for payloads that are too large for a message or a row of a table: each becomes a "
        f"file, whose URI the failure carries. Default: {DIRECTORY} beside --failures or --output, else under Beam's "
        "--temp_location, else in the current directory",
        "",
        group="Failures",
        metavar="PATH",
    )
    summary_file: str = flag("Also write the summary as JSON to this file", "", group="Run", metavar="FILE")
    report_file: str = flag(
        "Also write a report, one page of HTML, to this file, local or gs://: throughput over time, distributions of "
        "inputs and predictions, failures, phases. Needs the extra sluice[report]",
        "",
        group="Run",
        metavar="FILE",
    )
    progress: str = progress_flag()
    log_format: str = log_format_flag()

    def check_read_paths(self) -> None:
        """Checks the flags for files that rows name.

        Raises:
          UsageError: a flag has no effect.
        """
        if self.read_paths_root and not self.read_paths:
            raise UsageError("--read_paths_root applies to --read_paths INPUT=COLUMN, which is not given; leave it out")

"""Every option of a job, as dataclasses: the one source of flags, help and checks."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from models.errors import UsageError
from models.signature import DEFAULT_SIGNATURE

Options = TypeVar("Options")

FORMATS = ("csv", "jsonl", "parquet", "avro", "tfrecord")
PAYLOAD_MODES = ("full", "hash", "none")
PROGRESS = ("auto", "bar", "log", "none")


def flag(
    help: str,
    default: Any = dataclasses.MISSING,
    parse: Callable[[str], Any] = str,
    choices: Sequence[str] = (),
    group: str = "",
    metavar: str = "",
) -> Any:
    """Returns a dataclass field that is a command-line flag of the field's name; without a default it is required."""
    metadata = {"help": help, "parse": parse, "choices": tuple(choices), "group": group, "metavar": metavar}
    return dataclasses.field(default=default, metadata=metadata)


def parse_bool(text: str) -> bool:
    """Returns what a flag given as --flag=true means."""
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"true or false is expected, found {text!r}")


def parse_names(text: str) -> tuple[str, ...]:
    """Returns the parts of a comma-separated list; () of an empty text."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_sizes(text: str) -> tuple[int, ...]:
    """Returns ascending whole numbers above 0 from a comma-separated list."""
    sizes = tuple(sorted(int(part) for part in parse_names(text)))
    if any(size < 1 for size in sizes):
        raise argparse.ArgumentTypeError(f"sizes are 1 or more, found {text!r}")
    return sizes


def parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Returns (name, value) pairs from NAME=VALUE,NAME=VALUE."""
    pairs = []
    for part in parse_names(text):
        name, equals, value = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"NAME=VALUE is expected, found {part!r}")
        pairs.append((name, value))
    return tuple(pairs)


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """Options of `sluice batch`. Checks itself; a value that cannot be raises UsageError."""

    input: str = flag("Files to score: a path or glob, local or gs://", group="Input", metavar="GLOB")
    model: str = flag(
        "SavedModel directory, or a directory of numbered versions of it (the newest complete one is used)",
        group="Model",
        metavar="URI",
    )
    output: str = flag(
        "Where predictions go: out/pred.csv becomes out/pred-00000-of-00001.csv; the ending picks the format",
        group="Output",
        metavar="PATH",
    )
    input_format: str = flag("Format of the input; default: by the file's ending", "", choices=FORMATS, group="Input")
    column_names: tuple[str, ...] = flag(
        "CSV without a header line: names of its columns", (), parse_names, group="Input", metavar="A,B,..."
    )
    csv_delimiter: str = flag("CSV: what stands between fields", ",", group="Input", metavar="CHAR")
    csv_quote_char: str = flag("CSV: what quotes a field; may be empty", '"', group="Input", metavar="CHAR")
    allow_quoted_newlines: bool = flag(
        "CSV: quoted values may hold newlines (each file is then read by one worker)", False, parse_bool, group="Input"
    )
    input_schema: str = flag(
        "JSON file in BigQuery's schema form that types columns; needed to carry columns of JSON or TFRecord input "
        "into another format",
        "",
        group="Input",
        metavar="FILE",
    )
    column_defaults: tuple[tuple[str, str], ...] = flag(
        "What stands for a null in a column that the model takes", (), parse_pairs, group="Input", metavar="A=0,B=x"
    )
    signature: str = flag("Signature of the model to call", DEFAULT_SIGNATURE, group="Model", metavar="NAME")
    max_batch_size: int = flag("Rows of one call at most", 4096, int, group="Model", metavar="ROWS")
    max_batch_bytes: int = flag("Bytes of one call's tensors at most", 64 << 20, int, group="Model", metavar="BYTES")
    max_batch_delay_ms: float = flag(
        "How long rows wait for company though the model is free", 0.0, float, group="Model", metavar="MS"
    )
    allowed_batch_sizes: tuple[int, ...] = flag(
        "Pad each call to one of these sizes", (), parse_sizes, group="Model", metavar="16,128,..."
    )
    max_in_flight: int = flag("Calls under way at a time, per process", 1, int, group="Model", metavar="CALLS")
    intra_op_threads: int = flag("Threads within an op; 0: one per core", 0, int, group="Model", metavar="N")
    inter_op_threads: int = flag("Threads across ops; 0: one per core", 0, int, group="Model", metavar="N")
    warm_up: bool = flag(
        "Replay the model's assets.extra/tf_serving_warmup_requests after loading it", True, parse_bool, group="Model"
    )
    output_format: str = flag("Format of the output; default: by its ending", "", choices=FORMATS, group="Output")
    output_prefix: str = flag("Put before the names of the model's outputs", "", group="Output", metavar="TEXT")
    columns: tuple[str, ...] | None = flag(
        "Input columns to carry into the output; default: all; empty: none", None, parse_names, group="Output",
        metavar="A,B,...",
    )  # fmt: skip
    exclude_columns: tuple[str, ...] = flag(
        "Input columns and model outputs to leave out", (), parse_names, group="Output", metavar="A,B,..."
    )
    add_model_columns: bool = flag("Add _model and _version to each row", False, parse_bool, group="Output")
    flatten: bool = flag("CSV: write lists as JSON text in one field", False, parse_bool, group="Output")
    overwrite: bool = flag("Replace output that exists", False, parse_bool, group="Output")
    failures: str = flag(
        "Where failed rows go, as JSON Lines; default: beside --output, as out/pred.failures-00000-of-00001.jsonl",
        "",
        group="Failures",
        metavar="PATH",
    )
    failure_payload: str = flag(
        "What a failure shows of its row: all of it, its SHA-256, or nothing", "full", choices=PAYLOAD_MODES,
        group="Failures",
    )  # fmt: skip
    max_failure_rate: float = flag(
        "Share of rows that may fail; above it the job ends with exit code 3 and writes no predictions",
        0.1,
        float,
        group="Failures",
        metavar="SHARE",
    )
    summary_file: str = flag("Write the summary as JSON to this file too", "", group="Run", metavar="FILE")
    progress: str = flag(
        "Progress: a bar on a terminal, or a log line every 30 s", "auto", choices=PROGRESS, group="Run"
    )

    def __post_init__(self) -> None:
        for name in ("input", "model", "output"):
            if not getattr(self, name):
                raise UsageError(f"--{name} is empty")
        for name in ("max_batch_size", "max_batch_bytes", "max_in_flight"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)}: it is 1 or more")
        for name in ("max_batch_delay_ms", "intra_op_threads", "inter_op_threads"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} {getattr(self, name)}: it is 0 or more")
        if not 0 <= self.max_failure_rate <= 1:
            raise UsageError(f"--max_failure_rate {self.max_failure_rate:g}: it is a share between 0 and 1")
        if len(self.csv_delimiter) != 1:
            raise UsageError(f"--csv_delimiter {self.csv_delimiter!r}: it is one character (in a shell, tab is $'\\t')")
        if len(self.csv_quote_char) > 1:
            raise UsageError(f"--csv_quote_char {self.csv_quote_char!r}: it is one character, or empty")


def add_arguments(parser: argparse.ArgumentParser, options: type) -> None:
    """Adds a flag for each field of an options class, grouped for --help."""
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        meta = field.metadata
        group = groups.setdefault(meta["group"], None) or parser.add_argument_group(meta["group"])
        groups[meta["group"]] = group
        group.add_argument(f"--{field.name}", **_argument(field))


def _argument(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    meta = field.metadata
    text = meta["help"].replace("%", "%%")
    arguments: dict[str, Any] = {"type": meta["parse"], "dest": field.name}
    if field.default is dataclasses.MISSING:
        arguments["required"] = True
    else:
        arguments["default"] = field.default
        if field.default not in ("", (), None, False) and field.type is not bool:
            text += f" (default: {field.default})"
    if meta["parse"] is parse_bool:
        arguments |= {"nargs": "?", "const": True, "metavar": "true|false"}
        text += f" (default: {str(field.default).lower()})"
    elif meta["choices"]:
        arguments["choices"] = meta["choices"]
    elif meta["metavar"]:
        arguments["metavar"] = meta["metavar"]
    return arguments | {"help": text}


def from_namespace(options: type[Options], namespace: argparse.Namespace) -> Options:
    """Returns the options that were parsed.

    Raises:
      UsageError: a value cannot be.
    """
    names = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]
    return options(**{name: getattr(namespace, name) for name in names})

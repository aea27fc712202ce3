"""The options of a batch job."""

import dataclasses

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import flag, parse_bool, parse_names, parse_pairs
from sluice.pipelines.options.model import ModelFlags
from sluice.pipelines.options.table import FILE_LOADS, STORAGE_WRITE_API, TableFlags
from sluice.transforms.core.formats import FORMATS

PAYLOAD_MODES = ("full", "hash", "none")
PROGRESS = ("auto", "bar", "log", "none")
DISPOSITIONS = ("append", "truncate", "empty")

# Flags that say something about one kind of input or output alone.
_ABOUT_FILES_IN = ("input_format", "column_names", "csv_delimiter", "csv_quote_char", "allow_quoted_newlines")
_ABOUT_FILES_OUT = ("output_format", "flatten")
_ABOUT_TABLES_OUT = ("write_disposition", "write_method")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions(ModelFlags, TableFlags):
    """Options of `sluice batch`. Checks itself; a value that cannot be raises UsageError."""

    input: str = flag("Files to score: a path or glob, local or gs://", "", group="Input", metavar="GLOB")
    input_table: str = flag(
        "BigQuery table to score: PROJECT.DATASET.TABLE, as it is at launch; TABLE$PARTITION reads one partition, "
        "TABLE* all tables whose names begin so",
        "",
        group="Input",
        metavar="TABLE",
    )
    row_restriction: str = flag(
        "Read only these rows of --input_table: GoogleSQL, what could stand behind WHERE", "", group="Input",
        metavar="SQL",
    )  # fmt: skip
    input_query: str = flag(
        "Score what this query gives: GoogleSQL, one SELECT; --project pays for it", "", group="Input", metavar="SQL"
    )
    output: str = flag(
        "Files for predictions: out/pred.csv becomes out/pred-00000-of-00001.csv; the ending picks the format",
        "",
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
    write_disposition: str = flag(
        "What becomes of the rows that --output_table has: append to them; truncate: replace them, all at once; "
        "empty: there must be none",
        "append",
        choices=DISPOSITIONS,
        group="Output",
    )
    write_method: str = flag(
        "How rows get into --output_table: by the Storage Write API, or as Parquet files under Beam's --temp_location "
        "and one load job, which costs nothing and may have to wait",
        STORAGE_WRITE_API,
        choices=(STORAGE_WRITE_API, FILE_LOADS),
        group="Output",
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
    add_model_columns: bool = flag(
        "Add _model and _version to each row (tables always have them)", False, parse_bool, group="Output"
    )
    flatten: bool = flag("CSV: write lists as JSON text in one field", False, parse_bool, group="Output")
    overwrite: bool = flag("Replace files of --output and --failures that exist", False, parse_bool, group="Output")
    failures: str = flag(
        "Files for failed rows, as JSON Lines; default, if there is no --failures_table: beside --output, as "
        "out/pred.failures-00000-of-00001.jsonl",
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
        super().__post_init__()
        self._check_ends()
        self.check_tables()
        if not 0 <= self.max_failure_rate <= 1:
            raise UsageError(f"--max_failure_rate {self.max_failure_rate:g}: it is a share between 0 and 1")
        if len(self.csv_delimiter) != 1:
            raise UsageError(f"--csv_delimiter {self.csv_delimiter!r}: it is one character (in a shell, tab is $'\\t')")
        if len(self.csv_quote_char) > 1:
            raise UsageError(f"--csv_quote_char {self.csv_quote_char!r}: it is one character, or empty")

    def _check_ends(self) -> None:
        if sum(map(bool, (self.input, self.input_table, self.input_query))) != 1:
            raise UsageError("give --input, --input_table or --input_query, one of them")
        if bool(self.output) == bool(self.output_table):
            raise UsageError("give --output or --output_table, one of them")
        if not (self.output or self.failures or self.failures_table):
            raise UsageError(
                "rows that fail have no place to go, and no row may be lost: give --failures_table or --failures PATH"
            )
        if self.overwrite and not (self.output or self.failures):
            raise UsageError("--overwrite is about files; --write_disposition truncate replaces the rows of a table")
        if self.row_restriction and not self.input_table:
            raise UsageError("--row_restriction is about --input_table; a query has its own WHERE")
        for names, about, given in (
            (_ABOUT_FILES_IN, "files of --input", self.input),
            (_ABOUT_FILES_OUT, "files of --output", self.output),
            (_ABOUT_TABLES_OUT, "--output_table", self.output_table),
        ):
            self._check_about(names, about, bool(given))

    def _check_about(self, names: tuple[str, ...], about: str, given: bool) -> None:
        """Refuses flags that would mean nothing."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in names:
            if not given and getattr(self, name) != defaults[name]:
                raise UsageError(f"--{name} is about {about}; leave it out")

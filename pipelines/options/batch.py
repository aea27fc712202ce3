"""The options of a batch job."""

import dataclasses

from sluice.models.errors import UsageError
from sluice.pipelines.options.csv import CSV_FLAGS, CsvFlags
from sluice.pipelines.options.device import DeviceFlags
from sluice.pipelines.options.flags import check_number, flag, parse_bool, parse_paths
from sluice.pipelines.options.job import JobFlags
from sluice.pipelines.options.table import FILE_LOADS, STORAGE_WRITE_API, TableFlags
from sluice.pipelines.options.vertex import NOT_DIRECT, VertexFlags
from sluice.transforms.core.formats import FILES, INPUT_FORMATS

DISPOSITIONS = ("append", "truncate", "empty")

# Flags that apply to one kind of input or output only.
_FOR_INPUT_FILES = ("input_format", "limit", *CSV_FLAGS)
_FOR_OUTPUT_FILES = ("output_format", "flatten")
_FOR_OUTPUT_TABLES = ("write_disposition", "write_method")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchEnds(DeviceFlags, TableFlags):
    """Where a batch job reads and writes. A class of its own, so that --help shows these flags before JobFlags."""

    input: str | tuple[str, ...] = flag(
        "Files to score: a path, a glob or a directory, local or gs://; may be repeated, and commas separate URIs",
        (),
        parse_paths,
        group="Input",
        metavar="GLOB",
        repeated=True,
    )
    input_table: str = flag(
        "BigQuery table to score: PROJECT.DATASET.TABLE, as it is at launch; TABLE$PARTITION reads one partition, "
        "TABLE* all tables whose names begin with TABLE",
        "",
        group="Input",
        metavar="TABLE",
    )
    row_restriction: str = flag(
        "Read only these rows of --input_table: a GoogleSQL condition, as after WHERE", "", group="Input",
        metavar="SQL",
    )  # fmt: skip
    input_query: str = flag(
        "Score the result of this query: GoogleSQL, one SELECT; --project is billed for it", "", group="Input",
        metavar="SQL",
    )  # fmt: skip
    output: str = flag(
        "Files for predictions: out/pred.csv becomes out/pred-00000-of-00001.csv; the ending sets the format",
        "",
        group="Output",
        metavar="PATH",
    )
    input_format: str = flag(
        "Format of the input; default: by the file's ending. files: each file, such as an image, is a row, with the "
        "columns path and content; an input that takes bytes gets the content",
        "",
        choices=INPUT_FORMATS,
        group="Input",
    )
    input_schema: str = flag(
        "JSON file in BigQuery's schema form with the types of columns; needed to carry columns of JSON or TFRecord "
        "input into another format; auto: those that the first rows of JSON show (see sluice schema)",
        "",
        group="Input",
        metavar="FILE|auto",
    )
    write_disposition: str = flag(
        "What to do with existing rows of --output_table. append: keep them; truncate: replace them, all at once; "
        "empty: refuse to start if there are any",
        "append",
        choices=DISPOSITIONS,
        group="Output",
    )
    write_method: str = flag(
        "How to write --output_table: through the Storage Write API, or as Parquet files under Beam's --temp_location "
        "and one load job, which is free and may have to wait",
        STORAGE_WRITE_API,
        choices=(STORAGE_WRITE_API, FILE_LOADS),
        group="Output",
    )
    failures: str = flag(
        "Files for failed rows, as JSON Lines; default, without --failures_table: beside --output, as "
        "out/pred.failures-00000-of-00001.jsonl",
        "",
        group="Failures",
        metavar="PATH",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions(VertexFlags, JobFlags, CsvFlags, BatchEnds):
    """Options of `sluice batch`. Checks itself: an invalid value raises UsageError."""

    check: bool = flag(
        "Check model, input, first rows and outputs, print what becomes of each column, and do not run the job", False,
        parse_bool, group="Run",
    )  # fmt: skip
    overwrite: bool = flag("Replace existing files of --output and --failures", False, parse_bool, group="Output")
    limit: int = flag(
        "Score only so many rows, the first of the files (one worker reads them); 0: all", 0, int, group="Input",
        metavar="ROWS",
    )  # fmt: skip
    max_failure_rate: float = flag(
        "Share of rows that may fail; above it the job ends with exit code 3 and writes no predictions",
        0.1,
        float,
        group="Failures",
        metavar="SHARE",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.input, str):  # as code gives it
            object.__setattr__(self, "input", parse_paths(self.input))
        self._check_ends()
        self.check_tables()
        self.check_vertex(self.model, self.signature)
        if not 0 <= self.max_failure_rate <= 1:
            raise UsageError(f"--max_failure_rate {self.max_failure_rate:g}: it is a share between 0 and 1")
        check_number(self, "limit", whole=True)
        self.check_csv()
        self.check_read_paths()
        if self.read_paths and self.input_format == FILES:
            raise UsageError(
                "--read_paths names a column of paths in rows; with --input_format files each file is a row itself: "
                "give --map INPUT=content to say which input gets it"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The paths, globs and directories of --input."""
        return (self.input,) if isinstance(self.input, str) else self.input

    def _check_ends(self) -> None:
        if sum(map(bool, (self.input, self.input_table, self.input_query))) != 1:
            raise UsageError("give exactly one of --input, --input_table and --input_query")
        if bool(self.output) == bool(self.output_table):
            raise UsageError("give either --output or --output_table")
        if not (self.output or self.failures or self.failures_table or self.vertex_direct):
            raise UsageError(
                "rows that fail need a sink, so that none is lost: give --failures_table or --failures PATH"
            )
        if self.overwrite and not (self.output or self.failures or self.vertex_direct):
            raise UsageError("--overwrite applies to files; --write_disposition truncate replaces the rows of a table")
        if self.row_restriction and not self.input_table:
            raise UsageError("--row_restriction applies to --input_table; put the condition of a query in its WHERE")
        for names, about, given in (
            (_FOR_INPUT_FILES, "files of --input", self.input),
            (_FOR_OUTPUT_FILES, "files of --output", self.output),
            (_FOR_OUTPUT_TABLES, "--output_table", self.output_table),
        ):
            if not given:
                self._check_absent(names, about)
        if self.vertex_direct:
            self._check_absent(NOT_DIRECT, "rows that Sluice reads and writes itself, which --vertex_direct rules out")

    def _check_absent(self, names: tuple[str, ...], about: str) -> None:
        """Refuses flags that would have no effect."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise UsageError(f"--{name} applies to {about}; leave it out")

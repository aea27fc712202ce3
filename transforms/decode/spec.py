"""The input of decoding, which a job decides at launch, and its output."""

import dataclasses
import functools
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from sluice.models.errors import CorruptFile
from sluice.models.isolate import isolate
from sluice.models.reserved import FED, POSITION
from sluice.models.wording import message, text_of
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import with_origin, with_payload
from sluice.transforms.core.failures import DECODE, READ, Failure, count_failures

# The error_type of a row that does not fit. It has no exception.
INVALID_ROW = "InvalidRow"


@dataclasses.dataclass(frozen=True)
class CsvOptions:
    """The dialect of CSV files.

    Attributes:
      column_names: the fields of files without a header line; empty: the first line of each file is its header.
      quote_char: "" if quotes have no meaning.
      allow_quoted_newlines: values may hold newlines. Files are then read unsplit.
      encoding: of the files, by a name of Python's; "": UTF-8. Others are read unsplit, with positions as in UTF-8.
      skip_lines: how many lines of each file come before its header, or its first row.
      rename_duplicates: give numbers to names that come again, and names to columns that have none.
      cr_ends: lines of the first files end with a carriage return alone. Whoever reads a file looks itself.
      null_values: texts that stand for no value, besides the empty field, in all columns but those of strings.
      null_strings: they, and the empty field, do so in columns of strings, too; not in what is fed (`InputSpec.fed`),
        where they always do.
    """

    delimiter: str = ","
    quote_char: str = '"'
    column_names: tuple[str, ...] = ()
    allow_quoted_newlines: bool = False
    null_values: tuple[str, ...] = ()
    null_strings: bool = False
    encoding: str = ""
    skip_lines: int = 0
    rename_duplicates: bool = False
    cr_ends: bool = False

    @property
    def quote(self) -> bytes:
        return self.quote_char.encode()

    @functools.cached_property
    def null_texts(self) -> tuple[str, ...]:
        """All texts that stand for no value. Spaces are often left around those of null_values."""
        spaced = (f"{left}{text}{right}" for text in self.null_values for left in ("", " ") for right in ("", " "))
        return ("", *spaced)


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The contents of a job's input, decided once at launch: nothing is inferred from a block.

    Attributes:
      format: a name of transforms.core.formats.
      columns: (name, type) of each column to read, in order. In text formats a binary column is base64.
      fed: for CSV: (input, type) of inputs whose columns are carried as text: what the model is fed of them, each in a
        column of its own after the others (models.reserved.FED).
      mapped: (input, column) of inputs that take a column of another name.
      decimals: for CSV: columns of whole numbers that are written with a fraction of zeros.
      exact: columns of floats that are written: a number that they would round fails its row; of text, a whole number.
      guessed: columns whose type is that of the first rows.
      examples: for TFRecords of a model that parses tf.Examples itself: the column of the whole records.
      payload: carry the source text of each row, for failures and for writers of raw rows.
      header: for CSV whose lines are written as they are: the header that every file must have.
      added: for JSON objects that are written as they are: the names that the output adds to them.
      arrays: for JSON: the first files are arrays of objects. Such files are read unsplit.
      texts: for JSON: columns that hold any value, as the text that it has in its row.
      closed: for JSON: columns of objects in which no other key may have a value than those of their types.
    """

    format: str
    columns: tuple[tuple[str, pa.DataType], ...]
    fed: tuple[tuple[str, pa.DataType], ...] = dataclasses.field(default=(), kw_only=True)
    mapped: tuple[tuple[str, str], ...] = dataclasses.field(default=(), kw_only=True)
    decimals: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    exact: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    guessed: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    texts: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    closed: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    csv: CsvOptions = dataclasses.field(default_factory=CsvOptions)
    examples: str = ""
    payload: bool = True
    header: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    arrays: bool = False

    @property
    def schema(self) -> pa.Schema:
        kinds = dict(self.columns)
        fed = [*self.fed, *((name, kinds[column]) for name, column in self.aliases)]
        return pa.schema([*self.columns, *((FED + name, kind) for name, kind in fed)])

    @property
    def aliases(self) -> list[tuple[str, str]]:
        """(input, column) of `mapped` whose column is fed as it is."""
        fed = dict(self.fed)
        return [(name, column) for name, column in self.mapped if name not in fed]

    def source_of(self, name: str) -> str:
        """Returns the column that an input takes."""
        return dict(self.mapped).get(name, name)

    def hint(self, name: str) -> str:
        """Returns the end of the error for a value that is not of the type of this column: the remedy, if any."""
        if name in self.guessed:
            return ", the type of the whole numbers in the first rows; declare the column FLOAT64 in --input_schema"
        return ""


@dataclasses.dataclass
class Decoded:
    """Rows in order, and the failures among them.

    Attributes:
      batches: the job's columns and the reserved ones.
    """

    batches: list[pa.RecordBatch] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)

    @property
    def rows(self) -> int:
        """The number of rows read: good and bad."""
        return sum(batch.num_rows for batch in self.batches) + len(self.failures)

    def joined(self) -> "Decoded":
        """Returns the same rows in one batch."""
        if len(self.batches) < 2:
            return self
        return Decoded(pa.Table.from_batches(self.batches).combine_chunks().to_batches(), self.failures)

    def add(self, other: "Decoded") -> None:
        """Appends rows that come after these."""
        self.batches += other.batches
        self.failures += other.failures


def first_rows(decoded: Decoded, count: int) -> Decoded:
    """Returns the first rows, good and bad, by their positions. There must be more."""
    joined = decoded.joined()
    places = [batch.column(POSITION).to_numpy() for batch in joined.batches]
    failed = [int(failure.origin.rpartition("=")[2]) for failure in joined.failures]
    end = np.sort(np.concatenate([*places, np.array(failed, np.int64)]))[count]
    good = [batch.filter(pa.array(place < end)) for batch, place in zip(joined.batches, places, strict=True)]
    bad = [failure for failure, place in zip(joined.failures, failed, strict=True) if place < end]
    return Decoded([batch for batch in good if batch.num_rows], bad)


def row_failure(message: str, origin: str, payload: bytes) -> Failure:
    """Returns the failure of a row that cannot be decoded."""
    return Failure(DECODE, INVALID_ROW, message, origin, payload)


def file_failure(error: Exception, origin: str) -> Failure:
    """Returns the failure of a file that cannot be read past `origin`."""
    # zlib names its error class "error". An error without a text, such as EOFError, is shown by its name.
    name = f"zlib.{type(error).__name__}" if isinstance(error, zlib.error) else type(error).__name__
    return Failure(READ, name, text_of(error) or message(name), origin)


def finish(
    arrays: Sequence[pa.Array],
    spec: InputSpec,
    origin: str,
    positions: np.ndarray,
    payload: pa.Array | None,
) -> pa.RecordBatch:
    """Returns the batch of the job's columns with the reserved ones after them.

    Args:
      arrays: of `spec.columns`, then of `spec.fed`.
    """
    places = {name: place for place, (name, _) in enumerate(spec.columns)}
    aliases = [arrays[places[column]] for _, column in spec.aliases]
    batch = pa.RecordBatch.from_arrays([*arrays, *aliases], schema=spec.schema)
    batch = with_origin(batch, origin, positions)
    return with_payload(batch, payload) if spec.payload and payload is not None else batch


def without_bad(
    batch: pa.RecordBatch,
    reasons: Mapping[int, str],
    origin: str,
    positions: np.ndarray,
    payload: Callable[[int], bytes],
) -> Decoded:
    """Returns the batch without its bad rows, and the failures of those, in order.

    Args:
      reasons: the bad rows, with the reason of each.
      origin, positions: see transforms.core.batches.with_origin.
      payload: returns the source text of a row.
    """
    if not reasons:
        return Decoded([batch])
    failures = [
        row_failure(reason, f"{origin}{positions[row]}", payload(row)) for row, reason in sorted(reasons.items())
    ]
    keep = np.ones(batch.num_rows, bool)
    keep[list(reasons)] = False
    return Decoded([batch.filter(pa.array(keep))] if keep.any() else [], failures)


def check_columns(spec: InputSpec, names: Sequence[str], holder: str) -> None:
    """Checks that a file has the columns of the job.

    Args:
      holder: names the source of `names` in the error: "the file", or "the header".

    Raises:
      CorruptFile: a column is missing, or there twice.
    """
    counts = Counter(names)
    missing = [name for name, _ in spec.columns if name not in counts]
    if missing:
        raise CorruptFile(f"{holder} has no column {missing[0]!r}; it has {', '.join(names)}")
    twice = [name for name, _ in spec.columns if counts[name] > 1]
    if twice:
        raise CorruptFile(f"{holder} has more than one column {twice[0]!r}")


class Undecodable(Exception):
    """Items do not decode together. The text says why a single item does not."""


def decode_isolated(count: int, decode: Callable[[int, int], Decoded], fail: Callable[[int, str], Failure]) -> Decoded:
    """Decodes items [0, count) together and, where that fails, in halves until each item at fault is alone.

    Args:
      decode: decodes items [start, stop); raises Undecodable if it cannot.
      fail: returns the failure of one item, for the text of its error.
    """
    decoded = Decoded()
    for part in isolate(count, decode, Undecodable):
        if part.error is not None:
            decoded.failures.append(fail(part.start, text_of(part.error)))
        elif part.result is not None:
            decoded.add(part.result)
    return decoded


def count_decoded(decoded: Decoded, size: int) -> None:
    """Counts rows_read, bytes_read and rows_failed. Must run on the bundle's thread, as `metrics.count`."""
    metrics.count(metrics.ROWS_READ, decoded.rows)
    metrics.count(metrics.BYTES_READ, size)
    count_failures(decoded.failures)

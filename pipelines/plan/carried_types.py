"""Decides how the columns that the model takes are carried: as the source has them, not as the model is fed."""

import dataclasses
from collections.abc import Collection, Mapping

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from sluice.pipelines.plan.csv_texts import read_texts
from sluice.transforms.core.formats import CSV, JSONL, TFRECORD, TYPED_FORMATS
from sluice.transforms.decode.json_file import first_block
from sluice.transforms.decode.null_markers import with_spaced_nulls
from sluice.transforms.decode.spec import CsvOptions
from sluice.transforms.files.find_source import Source

# Texts that int64 holds, whatever their digits are.
_WHOLE = r"^\s*[+-]?[0-9]{1,18}\s*$"


@dataclasses.dataclass(frozen=True)
class CarriedTypes:
    """The types of the model's columns as they are carried.

    Attributes:
      types: by name.
      fed: (column, type) of columns that are carried as text: what the model is fed of them.
      guessed: columns that are whole numbers in the first rows.
    """

    types: Mapping[str, pa.DataType]
    fed: tuple[tuple[str, pa.DataType], ...] = ()
    guessed: tuple[str, ...] = ()


def carried_types(source: Source, needed: Mapping[str, pa.DataType], output: str, csv: CsvOptions) -> CarriedTypes:
    """Returns how columns without a type of their own are carried.

    From CSV to CSV they are their text. Elsewhere a float of any width is a float64. In files it is an int64 if the
    first rows hold whole numbers only; the type of a table's field must not hang on one day's rows. A tf.Example has
    the floats that the model takes and no others.

    Args:
      needed: the model's columns among those that are carried, with the types that the model is fed.
      output: the format of the output files; "": a table, or a stream.
    """
    if source.format not in (CSV, JSONL) or output == TFRECORD:
        return CarriedTypes(needed)
    if source.format == CSV and output == CSV:
        fed = tuple((name, kind) for name, kind in needed.items() if csv.null_strings or not pa.types.is_string(kind))
        return CarriedTypes(dict.fromkeys(needed, pa.string()), fed)
    floats = [name for name, kind in needed.items() if pa.types.is_floating(kind)]
    guessed = whole_numbers(source, floats, csv) if output and floats else ()
    types = {name: pa.int64() if name in guessed else _widened(kind) for name, kind in needed.items()}
    return CarriedTypes(types, guessed=guessed)


def exact_floats(source: Source, columns: Mapping[str, pa.DataType]) -> tuple[str, ...]:
    """Returns the columns, of floats or of lists of them, in which no number may be rounded.

    Of tf.Examples none: their floats are float32. Of text those that are float64: shorter ones are what was asked for.
    """
    if source.format in TYPED_FORMATS:
        return tuple(name for name, kind in columns.items() if pa.types.is_floating(_leaf(kind)))
    if source.format not in (CSV, JSONL):
        return ()
    return tuple(name for name, kind in columns.items() if pa.types.is_float64(_leaf(kind)))


def _leaf(kind: pa.DataType) -> pa.DataType:
    return _leaf(kind.value_type) if pa.types.is_list(kind) else kind


def _widened(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_widened(kind.value_type))
    return pa.float64() if pa.types.is_floating(kind) else kind


def whole_numbers(source: Source, names: Collection[str], csv: CsvOptions) -> tuple[str, ...]:
    """Returns the columns that hold whole numbers, and nothing else but nulls, in the first rows of a file."""
    look = _whole_in_csv if source.format == CSV else _whole_in_json
    return look(source, names, csv) if source.names else ()


def _whole_in_csv(source: Source, names: Collection[str], csv: CsvOptions) -> tuple[str, ...]:
    texts = read_texts(source, names, csv)
    return tuple(name for name in texts.column_names if _are_whole(texts.column(name), csv))


def _are_whole(texts: pa.ChunkedArray, csv: CsvOptions) -> bool:
    present = with_spaced_nulls(texts.combine_chunks(), csv.null_texts).drop_null()
    return len(present) > 0 and bool(pc.all(pc.match_substring_regex(present, _WHOLE)).as_py())


def _whole_in_json(source: Source, names: Collection[str], _: CsvOptions) -> tuple[str, ...]:
    block = first_block(source.path)
    values: dict[str, list[object]] = {name: [] for name in names}
    for line in block.data.splitlines() if block else ():
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        for name in names if isinstance(row, dict) else ():
            if row.get(name) is not None:
                values[name].append(row[name])
    return tuple(name for name, found in values.items() if found and all(map(_is_int64, found)))


def _is_int64(value: object) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63

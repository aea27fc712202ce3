"""What the first rows of CSV show of its columns: how numbers are written in them, and what stands for no value."""

import dataclasses
import shlex
from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from sluice.pipelines.options.flags import join_list
from sluice.pipelines.plan.names import defaults_flag
from sluice.transforms.core.formats import CSV
from sluice.transforms.decode.convert import parse_texts
from sluice.transforms.decode.formats import read_range, split_file
from sluice.transforms.decode.null_markers import KNOWN, with_spaced_nulls
from sluice.transforms.decode.spec import CsvOptions, InputSpec
from sluice.transforms.files.find_source import Source

# How much of a file is read to see what its rows hold.
SAMPLE_BYTES = 1 << 20
# How much of it shows how numbers are written.
_FORM_BYTES = 1 << 16
_BOOLEAN = r"^\s*(?i:true|false)\s*$"
_FRACTION = r"^\s*[+-]?[0-9]+\.0*\s*$"
_SHOWN_COLUMNS = 5


@dataclasses.dataclass(frozen=True)
class NumberForms:
    """How numbers are written in columns of CSV.

    Attributes:
      booleans: columns that hold true and false.
      decimals: columns of whole numbers that have fractions of zeros.
    """

    booleans: tuple[str, ...] = ()
    decimals: tuple[str, ...] = ()


def read_texts(source: Source, names: Iterable[str], csv: CsvOptions, most_bytes: int = SAMPLE_BYTES) -> pa.Table:
    """Returns columns of the first rows of CSV as their texts, in which an empty field is ""."""
    columns = tuple((name, pa.string()) for name in names if name in source.names)
    spec = InputSpec(CSV, columns, dataclasses.replace(csv, null_strings=False), payload=False)
    schema = pa.schema(columns)
    parts = split_file(source.path, source.size, spec)
    if not parts or not columns:
        return schema.empty_table()
    stop = None if parts[0].stop is None else min(parts[0].stop, parts[0].start + most_bytes)
    decoded = next((each for each, *_ in read_range(dataclasses.replace(parts[0], stop=stop), spec)), None)
    if decoded is None or not decoded.batches:
        return schema.empty_table()
    return pa.Table.from_batches(decoded.batches).select(schema.names)


def number_forms(source: Source, kinds: Mapping[str, pa.DataType], csv: CsvOptions) -> NumberForms:
    """Returns how numbers are written in the first rows.

    Args:
      kinds: the types of columns; those that are not of numbers do not count.
    """
    names = [name for name, kind in kinds.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)]
    texts = read_texts(source, names, csv, _FORM_BYTES)
    present = {name: _present(texts.column(name), csv) for name in texts.column_names}
    booleans = tuple(name for name, column in present.items() if _all_match(column, _BOOLEAN))
    whole = (name for name in present if pa.types.is_integer(kinds[name]))
    return NumberForms(booleans, tuple(name for name in whole if _any_matches(present[name], _FRACTION)))


def _present(texts: pa.ChunkedArray, csv: CsvOptions) -> pa.Array:
    return with_spaced_nulls(texts.combine_chunks(), csv.null_texts).drop_null()


def _all_match(texts: pa.Array, pattern: str) -> bool:
    return len(texts) > 0 and bool(pc.all(pc.match_substring_regex(texts, pattern)).as_py())


def _any_matches(texts: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, pattern)).as_py())


def marker_advice(source: Source, spec: InputSpec, inputs: Collection[str]) -> str:
    """Returns which null markers the first rows hold in columns of numbers, and the flag to give; "": none.

    A marker is one of the texts that people and programs write for no value, and no value of its column's type.

    Args:
      inputs: the names of the model's inputs; a column that goes to none of them needs no default.
    """
    fed = [(spec.source_of(name), kind) for name, kind in spec.fed]
    kinds = {name: kind for name, kind in (*spec.columns, *fed) if not pa.types.is_string(kind)}
    texts = read_texts(source, kinds, spec.csv)
    found = {name: _markers(texts.column(name), kinds[name], spec.csv) for name in texts.column_names}
    found = {name: markers for name, markers in found.items() if markers}
    if not found:
        return ""
    shown = [f"'{name}' holds {', '.join(markers)}" for name, markers in list(found.items())[:_SHOWN_COLUMNS]]
    more = f" and {len(found) - len(shown)} more columns likewise" if len(found) > len(shown) else ""
    every = dict.fromkeys((*spec.csv.null_values, *(marker for markers in found.values() for marker in markers)))
    flag = shlex.quote(join_list(list(every)))
    mapped = {column: name for name, column in spec.mapped}
    taken = [name for column in found if (name := mapped.get(column, column)) in inputs]
    default = f", and {defaults_flag(taken)} for what replaces it" if taken else ""
    return f"column {', column '.join(shown)}{more}: if this stands for no value, give --null_values {flag}{default}"


def _markers(texts: pa.ChunkedArray, kind: pa.DataType, csv: CsvOptions) -> list[str]:
    present = pc.utf8_trim_whitespace(_present(texts, csv))
    known = pc.unique(present.filter(pc.is_in(present, value_set=pa.array(KNOWN))))
    if pa.types.is_binary(kind) or pa.types.is_nested(kind):
        return []
    _, misfits = parse_texts(known, kind)
    return [] if misfits is None else [text for text, bad in zip(known.to_pylist(), misfits, strict=True) if bad]

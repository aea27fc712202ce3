"""What is likely to help against a reason for which rows fail: flags to paste, and what they are for."""

import ast
import dataclasses
import re
import shlex
from collections.abc import Collection, Iterable
from typing import NamedTuple

import orjson

from sluice.models.errors import BadInput, ModelFault, Overloaded, ServerFault, TimedOut, Unavailable
from sluice.pipelines.options.flags import join_list
from sluice.pipelines.plan.names import find_alike, map_flags
from sluice.transforms.core.failures import BIND, DECODE, ENCODE, PREDICT, READ, TOO_MANY_DELIVERIES, WRITE
from sluice.transforms.core.reasons import Group
from sluice.transforms.decode.null_markers import KNOWN


class Remedy(NamedTuple):
    """A remedy.

    Attributes:
      flags: for the job, to paste; capitals stand for what only the user knows. "": there is none.
      text: when they help, or what to do.
    """

    flags: str
    text: str

    def __str__(self) -> str:
        return ": ".join(filter(None, self))


_MEND = "mend what writes these rows, or the rows themselves (sluice failures --export)"
_SCHEMA = "--input_schema FILE"
_NAMES = "^column '.+?' names .*, and it cannot be read: "
_OF_TYPE = "^column '.+?'.*(?:does not fit|out of the range|is expected, found| is not )"
_LIST_NULL = "^column '.+?' (?:is null|is null or empty|holds a null); the model takes"
_MISFIT = "^column '.+?'(?:: | has | holds ).*the model takes"
_OTHER_NAME = "or --map INPUT=COLUMN, if the input is to take another column"
# Words of messages of transforms and of models.tensors, the flags, and when they help. {0} is the column, quoted.
_BY_WORDS: tuple[tuple[str, str, str], ...] = (
    (f"{_NAMES}it is relative", "--read_paths_root DIR", "for the directory in which such paths begin"),
    (f"{_NAMES}a message may not name", "--read_paths_root DIR", "if such files are meant; no path leads out of DIR"),
    (
        f"{_NAMES}it leads out of",
        "",
        "nobody has allowed such files: look at what writes these rows, or widen the root",
    ),
    (f"{_NAMES}the file has more than", "--max_batch_bytes BYTES", "for files as large as these"),
    (_NAMES, "", "put the file there, or mend its path (sluice failures --export), and send these rows again"),
    ("name it in --null_values", "--null_values TEXT", "for texts that stand for no value"),
    (_LIST_NULL, "", f"no default stands for a null where the model takes a list: {_MEND}; {_OTHER_NAME}"),
    ("^column '(.+?)' is null", "--column_defaults {0}", f"the model is fed VALUE for nulls; {_OTHER_NAME}"),
    ("declare the column FLOAT64", _SCHEMA, "with the column as FLOAT64"),
    ("^column .*: no object of the first rows has the key", _SCHEMA, "with that key, or with the column as JSON"),
    ("declare the column INT64", _SCHEMA, "with the column as INT64, NUMERIC or STRING"),
    ("declare it BYTES", _SCHEMA, "with the column as BYTES; or let its name end in _bytes"),
    ("is REQUIRED in the output", _SCHEMA, "with the column as NULLABLE"),
    ("^expected .* fields, found ", "--csv_delimiter TEXT", "if the file has another; or quote values that hold it"),
    ("^the line is not valid UTF-8", "--csv_encoding cp1252", "or latin-1, utf-16: whichever the file has"),
    ("^the line is not valid ", "--csv_encoding NAME", "if the file has another one"),
    (
        "^a quote is opened|^quotes are left open",
        "--allow_quoted_newlines",
        "or --csv_quote_char= if they mean nothing",
    ),
    ("give --output_prefix", "--output_prefix TEXT", "for the names of the model's outputs"),
    ("write fewer columns", "--exclude_columns A,B", "or write to files or a table"),
    ("^not valid JSON|a JSON object is expected", "", _MEND),
    (_MISFIT, "", f"the row has another shape or type than the model takes: {_MEND}; {_OTHER_NAME}"),
    (_OF_TYPE, "", f"the value is not of the model's type: {_MEND}"),
)
_AGAIN = (
    "the model's server was at fault, not the rows: send them again when it answers (sluice replay, or the job); "
    "with a larger --max_retry_secs calls wait for longer"
)
_BY_TYPE = {
    **dict.fromkeys((Unavailable.__name__, TimedOut.__name__, Overloaded.__name__, ServerFault.__name__), _AGAIN),
    BadInput.__name__: f"the model refuses these values: {_MEND}",
    ModelFault.__name__: f"the model fails on these values: {_MEND}",
    TOO_MANY_DELIVERIES: "such a message may kill the process that scores it: replay one alone before the others",
    "Unanswered": "the service does not answer these rows: look at the example, and at the model",
    "BlockTooLarge": "write the file with smaller blocks or pages",
}
_BY_STAGE = {
    READ: "the file is damaged, and its further rows are missing: get it anew",
    PREDICT: "the model was called with the row, and failed: look at the example",
    ENCODE: "another --output_format may hold such values",
    WRITE: "the destination refuses the row, in its own words: look at the example",
}
_ALONE = Remedy("--max_batch_size 1", "tells the rows at fault from the others, for the price of many calls")
_OF_COLUMN = re.compile("^column '(.+?)': .* is not ")
_OF_NULL = re.compile("^column '(.+?)' is null")
_KEY = re.compile(r'"((?:[^"\\]|\\.)+)"\s*:')


def remedy_for(group: Group) -> Remedy | None:
    """Returns what is likely to help against a reason; None: nothing is known."""
    if remedy := _nulls(group) or _renamed(group):
        return remedy
    if group.stage == PREDICT and group.example.startswith("not isolated"):
        return _ALONE
    if group.stage != PREDICT:  # there, the words are those of a model
        for words, flags, text in _BY_WORDS:
            if found := re.search(words, group.example):
                return Remedy(flags.format(*map(_default, found.groups())), text)
    text = _BY_TYPE.get(group.error_type) or _BY_STAGE.get(group.stage, "")
    return Remedy("", text) if text else None


def with_inputs(groups: Iterable[Group], mapped: Collection[tuple[str, str]]) -> list[Group]:
    """Returns reasons with the inputs that take the column of their messages, where these have other names.

    Args:
      mapped: --map: (input of the model, column).
    """
    return [dataclasses.replace(group, inputs=_inputs_of(group, mapped)) for group in groups]


def _inputs_of(group: Group, mapped: Collection[tuple[str, str]]) -> tuple[str, ...]:
    column = _OF_COLUMN.search(group.example) if group.stage == DECODE else None
    return tuple(name for name, taken in mapped if column and taken == column[1])


def _nulls(group: Group) -> Remedy | None:
    """Returns the flags for values that people write where there is none."""
    column = _OF_COLUMN.search(group.example)
    markers = [text for text in dict.fromkeys(map(_unquoted, group.values)) if text in KNOWN]
    if not column or not markers:
        return None
    default = _default(*(group.inputs or (column[1],)))
    flags = f"--null_values {shlex.quote(join_list(markers))} --column_defaults {default}"
    return Remedy(flags, "if they stand for no value; the model is fed VALUE instead")


def _renamed(group: Group) -> Remedy | None:
    """Returns the --map flag for an input without a value, if its row has that under a name that is spelt otherwise."""
    column = _OF_NULL.search(group.example) if group.stage == BIND else None
    if not column:
        return None
    keys = _keys(group.payload)
    alike = {} if column[1] in keys else find_alike([column[1]], keys)
    return Remedy(map_flags(alike.items()), "the row has such a value under this name") if alike else None


def _keys(payload: str) -> list[str]:
    """Returns the keys of a row that is a JSON object; of one that is cut off, those that are seen."""
    try:
        row = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return list(dict.fromkeys(_KEY.findall(payload))) if payload.startswith("{") else []
    return list(row) if isinstance(row, dict) else []


def _default(*names: str) -> str:
    """Returns the value of --column_defaults for inputs, to paste."""
    return shlex.quote(join_list([f"{name}=VALUE" for name in names]))


def _unquoted(value: str) -> str:
    try:
        return str(ast.literal_eval(value)).strip()
    except (ValueError, SyntaxError):  # no message of ours quotes so
        return ""

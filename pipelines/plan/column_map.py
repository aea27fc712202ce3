"""Which column each input of the model takes: that of its own name, unless --map names another."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec
from sluice.pipelines.plan.names import find_alike, map_flags, near_name, some_names
from sluice.transforms.core.formats import CSV
from sluice.transforms.files.find_source import Source

_LOG = logging.getLogger(__name__)


def check_map(
    pairs: Sequence[tuple[str, str]], inputs: Collection[str], columns: Collection[str], examples: bool
) -> None:
    """Checks --map.

    Args:
      pairs: (input, column).
      inputs: the names of the model's.
      columns: the names of the input's; none: they are not known.
      examples: the model gets whole records.

    Raises:
      UsageError: it names an input or a column that is not there, or an input twice.
    """
    for place, (name, column) in enumerate(pairs):
        flag = f"--map {name}={column}"
        if examples:
            raise UsageError(f"{flag}: the model gets the tf.Examples as they are, and reads them itself; leave it out")
        if name not in inputs:
            raise UsageError(f"{flag}: the model takes no '{name}'{near_name(name, inputs)}")
        if name in [other for other, _ in pairs[:place]]:
            raise UsageError(f"{flag}: --map names a column for '{name}' before; give one")
        if columns and column not in columns:
            names = list(columns)
            raise UsageError(
                f"{flag}: the input has no column '{column}'{near_name(column, names)}; it has {some_names(names)}"
            )


def check_absent(
    absent: Sequence[ColumnSpec],
    missing: Sequence[ColumnSpec],
    taken: set[str],
    source: Source,
    advise: Callable[[Mapping[str, str]], str] = lambda _: "",
) -> None:
    """Refuses inputs that have no column, and warns of others whose columns seem to have another name.

    Args:
      absent: inputs without a column.
      missing: those of them without which no row can be scored.
      taken: columns that inputs take.
      advise: returns, for the end of the error, what else there is to say of the columns of other names (by input).

    Raises:
      UsageError: there are missing ones. Where names differ only in capitals, spaces and signs, the text has the --map
        flags to paste.
    """
    alike = find_alike((spec.name for spec in absent), source.names, taken)
    flags = map_flags(alike.items())
    if not missing:
        if alike:
            _LOG.warning("The model does without %s, but the input may have it: %s", ", ".join(alike), flags)
        return
    first = next((spec for spec in missing if spec.name not in alike), missing[0])
    if first.name in alike:
        named = some_names([f"'{spec.name}'" for spec in missing])
        raise UsageError(
            f"the model takes {named}, which the input {source.path} has under other names: give {flags}{advise(alike)}"
        )
    also = f" The others are there under other names: give {flags}" if flags else ""
    raise UsageError(
        f"the model takes column '{first.name}' ({first}), and the input {source.path} has no such column"
        f"{near_name(first.name, source.names)}; it has {some_names(source.names)}.{_csv_hint(source)} Name the column "
        f"that it is with --map {first.name}=COLUMN, or give a value for it with --column_defaults {first.name}=VALUE."
        f"{also}"
    )


def _csv_hint(source: Source) -> str:
    """Returns the likely mistake where a header does not look like one: another delimiter in it, or values."""
    if source.format == CSV and len(source.names) == 1 and any(mark in source.names[0] for mark in "\t;|"):
        return " Does the file use another delimiter? Give it with --csv_delimiter."
    if source.format == CSV and any(name[:1].isdigit() for name in source.names):
        return " Does the file lack a header line? Give the names with --column_names."
    return ""

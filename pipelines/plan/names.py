"""Names of columns that are not there: which others may be meant, and the flags that say what is meant."""

import difflib
import shlex
from collections.abc import Collection, Iterable, Sequence

from sluice.pipelines.options.flags import join_list

# What TensorFlow puts before the name of an input that begins with no letter.
_PREFIX = "arg_"


def near_name(name: str, known: Iterable[str]) -> str:
    """Returns " (did you mean 'x'?)" for the end of an error; "" if no known name is similar."""
    same = [other for other in known if other.lower() == name.lower()]
    near = same or difflib.get_close_matches(name, list(known), 1, 0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def some_names(names: Sequence[str], most: int = 12) -> str:
    """Returns names as an error lists them."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"


def find_alike(names: Iterable[str], columns: Sequence[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Returns, by name of an input, the only column that has the same letters and digits.

    TensorFlow makes underscores of all other characters in the names of inputs, and `arg_2000` of 2000; people write
    capitals and spaces as they like.

    Args:
      taken: columns that are inputs under their own names.
    """
    by_key: dict[str, list[str]] = {}
    for column in columns:
        if column not in taken:
            by_key.setdefault(_key(column), []).append(column)
    wanted = {name: by_key.get(_key(name)) or by_key.get(_key(name.removeprefix(_PREFIX)), []) for name in names}
    found = {name: alike[0] for name, alike in wanted.items() if len(alike) == 1}
    return {name: column for name, column in found.items() if list(found.values()).count(column) == 1}


def _key(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def map_flags(pairs: Iterable[tuple[str, str]]) -> str:
    """Returns --map flags for (input, column) pairs, to be pasted into a shell."""
    return " ".join(f"--map {shlex.quote(join_list([f'{name}={column}']))}" for name, column in pairs)


def defaults_flag(names: Iterable[str]) -> str:
    """Returns the --column_defaults flag for these inputs, to be pasted into a shell and filled in."""
    return f"--column_defaults {shlex.quote(join_list([f'{name}=VALUE' for name in names]))}"

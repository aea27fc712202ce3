"""Command-line flags made from dataclasses, whose fields are the one source of flags, help and checks."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Options = TypeVar("Options")

# In the order of --help.
_GROUPS = ("Input", "Model", "Endpoint", "Output", "Failures", "Run")


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


def add_arguments(parser: argparse.ArgumentParser, options: type) -> None:
    """Adds a flag for each field of an options class, grouped for --help."""
    fields = dataclasses.fields(options)
    for group in _GROUPS:
        members = [field for field in fields if field.metadata["group"] == group]
        if members:
            section = parser.add_argument_group(group)
            for field in members:
                section.add_argument(f"--{field.name}", **_argument(field))


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

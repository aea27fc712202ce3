"""Makes command-line flags from dataclasses. Their fields are the one source of flags, help and checks."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from sluice.models.errors import UsageError
from sluice.pipelines.logs import FORMATS, TEXT

Options = TypeVar("Options")

# Flags whose values may be secrets: ours, and Beam's own.
SECRETS = ("rpc_headers", "s3_secret_access_key", "s3_session_token", "azure_connection_string", "gbek")
# In the order of --help, and of a template's form.
GROUPS = ("Input", "Model", "Endpoint", "Managed job", "Output", "Failures", "BigQuery", "Run")

PROGRESS = ("auto", "bar", "log", "none")


def flag(
    help: str,
    default: Any = dataclasses.MISSING,
    parse: Callable[[str], Any] = str,
    choices: Sequence[str] = (),
    group: str = "",
    metavar: str = "",
    secret: bool = False,
    repeated: bool = False,
) -> Any:
    """Returns a dataclass field that becomes a command-line flag of its name. Without a default it is required.

    Args:
      help: the line in --help, and in a template's form.
      parse: converts the text of the flag.
      choices: the values that are allowed; (): any.
      group: one of GROUPS.
      metavar: what --help shows for the value; a template takes the parameter's type from it.
      secret: the options' repr hides the value, and templates have no parameter for it.
      repeated: the flag may be given several times; its values, tuples, are joined.
    """
    metadata = {"help": help, "parse": parse, "choices": tuple(choices), "group": group, "metavar": metavar}
    metadata |= {"secret": secret, "repeated": repeated}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def progress_flag() -> str:
    """Returns the field for --progress, which every command that shows progress has."""
    text = "Progress: a line on a terminal (bar), or a log line every 30 s (log); auto: bar if there is a terminal"
    field: str = flag(text, "auto", choices=PROGRESS, group="Run")
    return field


def log_format_flag() -> str:
    """Returns the field for --log_format, which every command that runs for long has."""
    text = "Log lines: for people (text), or a JSON object each, with time, level, logger, message and fields (json)"
    field: str = flag(text, TEXT, choices=FORMATS, group="Run")
    return field


def parse_bool(text: str) -> bool:
    """Returns the value of --flag=true or --flag=false."""
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")


# A comma that is part of a name or value is written so in a list.
_ESCAPED = "\\,"


def split_list(text: str) -> list[str]:
    r"""Returns the parts of a comma-separated list, as they are; `\,` is a comma within a part."""
    return [part.replace("\0", ",") for part in text.replace(_ESCAPED, "\0").split(",")]


def join_list(parts: Sequence[str]) -> str:
    """Returns the list whose parts `split_list` returns."""
    return ",".join(part.replace(",", _ESCAPED) for part in parts)


def parse_names(text: str) -> tuple[str, ...]:
    """Returns the parts of a comma-separated list; () for an empty text."""
    return tuple(part.strip() for part in split_list(text) if part.strip())


# A comma between two paths. A comma within one is left alone unless a URI follows it, or is written \,.
_BETWEEN_PATHS = re.compile(r"(?<!\\),[ ]*(?=[A-Za-z][A-Za-z0-9+.-]*://)")


def parse_paths(text: str) -> tuple[str, ...]:
    """Returns the path in a text; or several, if they are URIs with commas between them, as in a template's form."""
    return tuple(part.replace(_ESCAPED, ",") for part in _BETWEEN_PATHS.split(text) if part)


def parse_sizes(text: str) -> tuple[int, ...]:
    """Returns ascending whole numbers above 0 from a comma-separated list."""
    sizes = tuple(sorted(int(part) for part in parse_names(text)))
    if any(size < 1 for size in sizes):
        raise argparse.ArgumentTypeError(f"sizes are 1 or more, found {text!r}")
    return sizes


def parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Returns (name, value) pairs from NAME=VALUE,NAME=VALUE."""
    return tuple(_split_pair(part) for part in parse_names(text))


def parse_pair(text: str) -> tuple[tuple[str, str], ...]:
    """Returns one (name, value) from NAME=VALUE. Commas are part of the value."""
    return (_split_pair(text),)


def parse_map(text: str) -> tuple[tuple[str, str], ...]:
    """Returns (input, column) pairs from INPUT=COLUMN,INPUT=COLUMN. Spaces are part of a column's name."""
    return tuple((name.strip(), column) for name, column in map(_split_pair, filter(str.strip, split_list(text))))


def map_flag(help: str) -> Any:
    """Returns a field for pairs of an input and a column; see `flag`."""
    return flag(help, (), parse_map, group="Input", metavar="INPUT=COLUMN,...", repeated=True)


def _split_pair(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found {part!r}")
    return name, value


def parse_headers(text: str) -> tuple[tuple[str, str], ...]:
    """Returns (name, value) pairs from NAME=VALUE,NAME=VALUE, or from @FILE with `NAME: VALUE` or NAME=VALUE a line.

    Headers may be secrets: an error says which one is wrong, but not its text. So no ValueError may escape: argparse
    would print the text.
    """
    if not text.startswith("@"):
        parts = [part for part in text.split(",") if part.strip(" \t")]
        return tuple(_split_header(part, "=", f"header {count}") for count, part in enumerate(parts, 1))
    path = text[1:]
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [(number, line.removesuffix("\n")) for number, line in enumerate(file, 1)]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file in UTF-8"
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {reason}") from error
    headers = tuple(_split_header(line, ":=", f"{path}, line {number}") for number, line in lines if line.strip(" \t"))
    if not headers:
        raise argparse.ArgumentTypeError(f"{path} has no headers; give one a line, as NAME: VALUE")
    return headers


def _split_header(text: str, separators: str, where: str) -> tuple[str, str]:
    split = min((text.find(separator) for separator in separators if separator in text), default=-1)
    if split < 0:
        forms = " or ".join({"=": "NAME=VALUE", ":": "NAME: VALUE"}[separator] for separator in separators)
        raise argparse.ArgumentTypeError(
            f"{where} is not {forms} (not shown: it may be a secret); give a value that has commas by @FILE"
        )
    return text[:split].strip(" \t"), text[split + 1 :].strip(" \t")


def add_arguments(parser: argparse.ArgumentParser, options: type) -> None:
    """Adds a flag for each field of an options class, grouped for --help."""
    fields = dataclasses.fields(options)
    for group in GROUPS:
        members = [field for field in fields if field.metadata["group"] == group]
        if members:
            section = parser.add_argument_group(group)
            for field in members:
                section.add_argument(f"--{field.name}", **_argument(field))


class Joined(argparse.Action):
    """Adds the values of a flag that is given several times; they replace the default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        earlier = getattr(namespace, self.dest)
        earlier = () if earlier is self.default else earlier
        setattr(namespace, self.dest, (*earlier, *cast(Sequence[object], values)))


def _argument(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    meta = field.metadata
    text = meta["help"].replace("%", "%%")
    arguments: dict[str, Any] = {"type": _parser(field), "dest": field.name}
    if field.default is dataclasses.MISSING:
        arguments["required"] = True
    else:
        arguments["default"] = field.default
        if field.default not in ("", (), None, False) and field.type is not bool:
            text += f" (default: {field.default})"
    if meta["repeated"]:
        arguments["action"] = Joined
    if meta["parse"] is parse_bool:
        arguments |= {"nargs": "?", "const": True, "metavar": "true|false"}
        text += f" (default: {str(field.default).lower()})"
    elif meta["choices"]:
        left_blank = () if field.default in meta["choices"] else (field.default,)
        arguments |= {"choices": (*meta["choices"], *left_blank), "metavar": f"{{{','.join(meta['choices'])}}}"}
    elif meta["metavar"]:
        arguments["metavar"] = meta["metavar"]
    return arguments | {"help": text}


def _parser(field: "dataclasses.Field[Any]") -> Callable[[str], Any]:
    """Returns the function that parses a flag's text.

    For numbers, booleans and choices an empty text means the default: a template's form passes it for a blank field.
    """
    parse: Callable[[str], Any] = field.metadata["parse"]
    if field.default is dataclasses.MISSING or not (parse in (int, float, parse_bool) or field.metadata["choices"]):
        return parse

    def parse_or_default(text: str) -> Any:
        return parse(text) if text else field.default

    parse_or_default.__name__ = parse.__name__  # argparse shows the name in errors: "invalid int value"
    return parse_or_default


def from_namespace(options: type[Options], namespace: argparse.Namespace) -> Options:
    """Returns the options that were parsed.

    Raises:
      UsageError: a value is invalid.
    """
    names = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]
    return options(**{name: getattr(namespace, name) for name in names})


def check_number(
    options: object, name: str, *, above: float | None = None, most: float = sys.float_info.max, whole: bool = False
) -> None:
    """Checks that a field is a number above `above` (None: 0 or more), and at most `most`; NaN is none.

    Raises:
      UsageError: it is not.
    """
    value = getattr(options, name)
    enough = value >= 0 if above is None else value > above
    if enough and value <= most and (not whole or isinstance(value, int)):
        return
    kind = "a whole number" if whole else "a finite number"
    bounds = "0 or more" if above is None else f"more than {above:g}"
    if most < sys.float_info.max:
        bounds += f" and at most {most:g}"
    text = f"{value:g}" if isinstance(value, float) else value
    raise UsageError(f"--{name} {text}: it is {kind}, {bounds}")

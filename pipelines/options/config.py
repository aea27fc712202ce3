"""Flags in a YAML file (`--config`), and options in the form that such a file has.

A key is the name of a flag. Its value means what it means on a command line, so it is taken as its text: YAML's own
types would read `no` as false, and 010 as 8.
"""

import argparse
import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import (
    Joined,
    join_list,
    parse_bool,
    parse_headers,
    parse_map,
    parse_names,
    parse_pairs,
    parse_paths,
    parse_sizes,
)
from sluice.pipelines.options.parser import Parser

if TYPE_CHECKING:
    import yaml
    from _typeshed import DataclassInstance

# A text, several of them, or several by name.
Value: TypeAlias = str | list[str] | dict[str, str]

CONFIG = "config"
_FLAG = f"--{CONFIG}"
# Flags that make no sense in a file.
_APART = (CONFIG, "help")
# Commands whose further flags are those of another one.
_HANDED_ON = {"compare": "batch"}
# They take several values from a text, in which a comma of a value is written as join_list writes it.
_SPLIT = (parse_map, parse_names, parse_pairs, parse_paths, parse_sizes)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# What stands for no value where it has no quotes.
_NOTHING = ("", "~", "null")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A flag as a file gives it.

    Attributes:
      plain: the value is one text without quotes.
      where: file and line, for errors.
    """

    name: str
    value: Value
    plain: bool
    where: str


def with_config(typed: Sequence[str], parsers: Mapping[str, Parser], beam: Collection[str]) -> list[str]:
    """Returns a command line with the flags of its --config file in it, except those that were typed.

    Args:
      parsers: of the commands, by name.
      beam: the commands that hand flags which they do not know to Beam.

    Raises:
      UsageError: the file cannot be read, or holds what is no flag of the command.
    """
    place = next((number for number, word in enumerate(typed) if not word.startswith("-")), len(typed))
    before, after = typed[: place + 1], typed[place + 1 :]
    parser = parsers.get(typed[place]) if place < len(typed) else None
    path = _path_in(after) if parser else ""
    if parser is None or not path:
        return list(typed)
    given = {word[2:].partition("=")[0] for word in after if word.startswith("--")} - {CONFIG}
    settings = [setting for setting in read_settings(path) if setting.name not in given]
    parser.set_file(path, [setting.name for setting in settings])
    other = parsers.get(_HANDED_ON.get(typed[place], ""))
    words = (word for each in settings for word in words_of(each, parser, typed[place] in beam, other))
    return [*before, *words, *after]


def _path_in(words: Sequence[str]) -> str:
    paths = [word.partition("=")[2] for word in words if word.startswith(f"{_FLAG}=")]
    paths += [path for word, path in itertools.pairwise(words) if word == _FLAG]
    if len(paths) > 1:
        raise UsageError(f"{_FLAG} is given {len(paths)} times; put all flags into one file")
    return "".join(paths)


def read_settings(path: str) -> list[Setting]:
    """Returns the flags in a file, in order.

    Raises:
      UsageError: the file cannot be read, or holds something else than flags. The text quotes no value: it may be a
        secret.
    """
    root = _parse(path)
    if root is None:
        return []
    if root.id != "mapping":
        raise UsageError(f"{_FLAG} {path}: it holds no flags; give one a line, as NAME: VALUE")
    settings = [_setting(key, node, f"{path}, line {key.start_mark.line + 1}") for key, node in root.value]
    names = [setting.name for setting in settings]
    for place, setting in enumerate(settings):
        if setting.name in names[:place]:
            raise UsageError(
                f"{setting.where}: {setting.name} is there twice; give one, with a list for several values"
            )
    return settings


def _parse(path: str) -> "yaml.Node | None":
    import yaml  # takes a tenth of the time in which a command without a file answers

    try:
        return yaml.compose(_read(path), yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        reason = getattr(error, "problem", None) or getattr(error, "reason", "it cannot be parsed")
        raise UsageError(f"{_FLAG} {where}: this is not YAML: {reason}") from error


def _read(path: str) -> str:
    try:
        if "://" in path:
            from sluice.transforms.core.beam_files import open_binary  # imports Beam, which takes seconds

            with open_binary(path) as stored:
                return stored.read().decode("utf-8-sig")
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{_FLAG} {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{_FLAG} {path} cannot be read: it is not a text file in UTF-8") from error


def _setting(key: "yaml.Node", node: "yaml.Node", where: str) -> Setting:
    name = _text(key, where)
    if not _NAME.fullmatch(name):
        raise UsageError(f"{where}: {name!r} is no name of a flag; write it without dashes before it")
    plain = node.id == "scalar" and node.style is None
    if plain and node.value.lower() in _NOTHING:
        raise UsageError(f"{where}: {name} has no value; leave it out, or write '' for an empty text")
    return Setting(name, _value(node, where), plain, where)


def _value(node: "yaml.Node", where: str) -> Value:
    if node.id == "sequence":
        return [_text(each, where) for each in node.value]
    if node.id == "mapping":
        pairs = [(_text(key, where), _text(value, where)) for key, value in node.value]
        if len(dict(pairs)) < len(pairs):
            raise UsageError(f"{where}: a name is there twice")
        return dict(pairs)
    return _text(node, where)


def _text(node: "yaml.Node", where: str) -> str:
    if node.id != "scalar":
        raise UsageError(f"{where}: a text or number is expected, found a {node.id} within another")
    return str(node.value)


def words_of(setting: Setting, parser: Parser, beam: bool = False, other: Parser | None = None) -> list[str]:
    """Returns a flag as the words of a command line.

    Args:
      beam: a flag that the parser does not know is taken for one of Beam's.
      other: of the command that gets a flag which the parser does not know.

    Raises:
      UsageError: there is no such flag, or it takes no such value.
    """
    action = None
    if setting.name not in _APART:
        action = parser.flag(setting.name) or (other.flag(setting.name) if other else None)
    if action is None:
        if beam and setting.name not in _APART:
            return _words_for_beam(setting)
        text = f"{setting.where}: '{setting.name}' is no flag for a file of {parser.prog}"
        meant = [] if setting.name in _APART else parser.meant(f"--{setting.name}")
        raise UsageError("; ".join([text, *meant]))
    if action.nargs == 0:
        return [f"--{setting.name}"] if _is_on(setting) else []
    return [f"--{setting.name}={text}" for text in _texts(setting, action)]


def _is_on(setting: Setting) -> bool:
    try:
        return parse_bool(str(setting.value))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{setting.where}: {setting.name}: {error}") from error


def _texts(setting: Setting, action: argparse.Action) -> list[str]:
    """Returns what a flag of ours is given: once, or as often as there are values."""
    value, form = setting.value, str(action.metavar or "")
    if isinstance(value, str):
        return [value]
    listed = "," in form and not form.startswith("{")
    parts = [f"{name}={text}" for name, text in value.items()] if isinstance(value, dict) else value
    if action.type is parse_headers and any("," in part for part in parts):
        raise UsageError(f"{setting.where}: {setting.name}: a value has a comma; give it by @FILE")
    if isinstance(value, dict) and "=" not in form:
        raise UsageError(f"{setting.where}: {setting.name} takes no names with values; give {form or 'one value'}")
    is_list, as_it_is = isinstance(value, list), isinstance(action, Joined) and action.type not in _SPLIT
    if as_it_is or (is_list and isinstance(action, argparse._AppendAction)):
        return parts
    if is_list and isinstance(action, Joined):
        return [join_list([part]) for part in parts]
    if is_list and not listed:
        raise UsageError(f"{setting.where}: {setting.name} takes one value, and {len(parts)} are given in a list")
    return [join_list(parts)]


def _words_for_beam(setting: Setting) -> list[str]:
    name, value = setting.name, setting.value
    if isinstance(value, dict):
        raise UsageError(f"{setting.where}: {name} is a flag of Beam's; write its value as one text, in quotes")
    if isinstance(value, list):
        return [f"--{name}={text}" for text in value]
    if setting.plain and value.lower() == "false":
        raise UsageError(
            f"{setting.where}: {name}: false: flags of Beam's are given or left out. Leave it out, or give the flag "
            "that turns it off, as in no_use_public_ips: true"
        )
    return [f"--{name}"] if setting.plain and value.lower() == "true" else [f"--{name}={value}"]


def used_options(options: "DataclassInstance") -> dict[str, object]:
    """Returns options in the form of a file of --config, without secrets and what has no value."""
    fields = [field for field in dataclasses.fields(options) if not field.metadata.get("secret")]
    values = {field.name: getattr(options, field.name) for field in fields}
    return {name: _as_written(value) for name, value in values.items() if value is not None}


def _as_written(value: object) -> object:
    if not isinstance(value, tuple):
        return value
    if value and all(isinstance(each, tuple) for each in value):
        return _pairs(value)
    return list(value)


def _pairs(pairs: Iterable[tuple[str, str]]) -> object:
    pairs = list(pairs)
    return dict(pairs) if len(dict(pairs)) == len(pairs) else [f"{name}={value}" for name, value in pairs]


def config_text(values: Mapping[str, object]) -> str:
    """Returns the text of a file of --config.

    Args:
      values: by the names of flags, as `used_options` returns them.
    """
    import yaml  # see above

    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=1000)
    return text

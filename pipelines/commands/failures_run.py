"""Reads failures, tells why rows failed, and exports them for people to edit."""

import collections
import contextlib
import glob
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, TypeAlias, cast

import orjson
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import SluiceError, UsageError
from sluice.pipelines.commands.json_output import write_json
from sluice.pipelines.commands.replay_table import FailureTable
from sluice.pipelines.logs import tell
from sluice.pipelines.options.failures import FailuresOptions
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_OK
from sluice.pipelines.progress.remedies import with_inputs
from sluice.pipelines.progress.why import reason_records, render_reasons
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.failures import STAGES, payload_text
from sluice.transforms.core.reasons import Reasons
from sluice.transforms.pubsub.replay.failure_files import FailureFiles
from sluice.transforms.pubsub.replay.stored_failure import StoredFailure, editable_line, row_line

# A name of this form is a table, unless it is a file or ends as files of failures do.
_TABLE = re.compile(r"[\w:.-]+[.:][\w-]+\.[\w$-]+")
_FILES = (".jsonl", ".json", ".gz")
# How many failures name each model and version.
Models: TypeAlias = collections.Counter[tuple[str, str]]
# So many of them are shown.
_MOST_MODELS = 5
# Of a row, so much may be shown.
_HEAD_BYTES = 1_000


def show_failures(sources: Sequence[str], options: FailuresOptions, as_json: bool = False) -> int:
    """Prints why rows failed; returns the exit code.

    Args:
      sources: files, globs, directories and tables.

    Raises:
      UsageError: a source cannot be read, or holds something else; or a file of --export cannot be written.
    """
    if unknown := next((stage for stage in options.stages if stage not in STAGES), ""):
        raise UsageError(f"--stages {unknown}: give one or more of {', '.join(STAGES)}")
    if options.row_restriction and not any(map(_is_table, sources)):
        raise UsageError("--row_restriction applies to a table, and none is given")
    opened = [_open(source, options) for source in sources]
    reasons, exports, models = Reasons(), _Exports(options), Models()
    try:
        with exports:
            problems = _read(opened, options, reasons, exports, models)
    except _NotExported as error:
        problems = [str(error)]
    if as_json:
        write_json(_as_json(reasons, options, models))
    else:
        sys.stdout.write(_as_text(reasons, options, models))
    if report := exports.report() + _left_out(opened):
        tell(report)
    for text in problems:
        tell(f"sluice: {text}\n", logging.ERROR)
    return EXIT_FAILED if problems else EXIT_OK


def _read(
    opened: Sequence[FailureFiles | FailureTable],
    options: FailuresOptions,
    reasons: Reasons,
    exports: "_Exports",
    models: Models,
) -> list[str]:
    """Counts failures and exports them; returns why not all could be read."""
    problems = []
    try:
        for failure in _chosen(opened, options):
            payload = _head(failure.payload or b"")
            reasons.add(failure.stage, failure.error_type, failure.error_message, failure.origin, payload)
            models[failure.model, failure.version] += 1
            exports.write(failure)
    except (SluiceError, OSError) as error:
        problems.append(str(error))
    problems += [text for source in opened for text in getattr(source, "damaged", ())]
    return [f"not all failures could be read: {text}" for text in problems]


def _left_out(opened: Sequence[FailureFiles | FailureTable]) -> str:
    """Returns a line on rows of tables that are no failures; "" if there are none."""
    strangers = sum(getattr(source, "strangers", 0) for source in opened)
    return f"{strangers:,} rows of tables are no failures, and are left out\n" if strangers else ""


def _open(source: str, options: FailuresOptions) -> FailureFiles | FailureTable:
    if _is_table(source):
        return FailureTable(options, source, options.row_restriction, label="")
    return FailureFiles(source, label="")


def _is_table(source: str) -> bool:
    if os.path.lexists(source) or glob.has_magic(source) or source.endswith(_FILES):
        return False
    return _TABLE.fullmatch(source) is not None


def _chosen(opened: Sequence[FailureFiles | FailureTable], options: FailuresOptions) -> Iterator[StoredFailure]:
    for source in opened:
        for chunk in source.chunks():
            for failure in chunk:
                if options.stages and failure.stage not in options.stages:
                    continue
                if options.error_types and failure.error_type not in options.error_types:
                    continue
                if options.message in failure.error_message:
                    yield failure


def _head(payload: bytes) -> str:
    """Returns the beginning of a payload that is text; "" of another one."""
    head = payload[:_HEAD_BYTES]
    return payload_text(head.decode(errors="ignore").encode() if len(head) < len(payload) else head) or ""


def _as_json(reasons: Reasons, options: FailuresOptions, models: Models) -> str:
    groups = with_inputs(reasons.top(), options.map)
    shown = groups[: options.top or None]
    records = [record | {"payload": group.payload} for record, group in zip(reason_records(shown), shown, strict=True)]
    of = [{"model": model, "version": version, "count": count} for (model, version), count in models.most_common()]
    found = {"failures": reasons.total, "models": of, "reasons": records, "more_reasons": len(groups) - len(shown)}
    return orjson.dumps(found | {"other_failures": reasons.others}, option=orjson.OPT_INDENT_2).decode() + "\n"


def _as_text(reasons: Reasons, options: FailuresOptions, models: Models) -> str:
    groups = with_inputs(reasons.top(), options.map)
    shown = groups[: options.top or None]
    lines = [f"{reasons.total:,} failures, {len(groups):,} reason{'' if len(groups) == 1 else 's'}"]
    lines += [
        f"  {count:,}  of {model}{version and f', version {version}'}"
        for (model, version), count in models.most_common(_MOST_MODELS)
        if model
    ]
    lines += render_reasons(shown)
    if len(groups) > len(shown):
        left = sum(group.count for group in groups[len(shown) :])
        lines.append(f"{len(groups) - len(shown):,} more reasons, of {left:,} failures (--top 0 shows all)")
    if reasons.others:
        lines.append(f"{reasons.others:,} failures have other reasons, each of few rows")
    return "\n".join(lines) + "\n"


class _NotExported(Exception):
    """A file of an export is not whole. The text says why."""


class _Exports:
    """The files of --export and --export_rows."""

    def __init__(self, options: FailuresOptions) -> None:
        self._options = options
        self._written = self._rows = self._left = 0
        self._whole = True
        self._made: list[str] = []

    def __enter__(self) -> "_Exports":
        try:
            with contextlib.ExitStack() as stack:
                self._failures = self._new_file(stack, "--export", self._options.export)
                self._payloads = self._new_file(stack, "--export_rows", self._options.export_rows)
                self._stack = stack.pop_all()
        except UsageError:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._noticing():
            self._stack.close()

    def _new_file(self, stack: contextlib.ExitStack, flag: str, path: str) -> BinaryIO | None:
        file = _new_file(stack, flag, path)
        self._made += [path] if file else []
        return file

    def _remove(self) -> None:
        """Removes the files of a command that is refused: they are empty, and in the way of the next one."""
        with contextlib.suppress(OSError):
            FileSystems.delete(self._made)

    def write(self, failure: StoredFailure) -> None:
        """Writes a failure, and its row if that is text.

        Raises:
          _NotExported: it cannot be written; nor may the end of the `with` block.
        """
        if self._failures:
            self._put(self._failures, editable_line(failure))
            self._written += 1
        if self._payloads:
            text = row_line(failure)
            if text:
                self._put(self._payloads, text.encode())
            self._rows, self._left = self._rows + bool(text), self._left + (not text)

    def _put(self, file: BinaryIO, line: bytes) -> None:
        with self._noticing():
            file.write(line + b"\n")

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of whichever file system
            self._whole = False
            names = " and ".join(filter(None, (self._options.export, self._options.export_rows)))
            raise _NotExported(f"{names}: not whole, because it cannot be written: {error}") from error

    def report(self) -> str:
        """Returns lines that say what has been written; "" if it is not whole."""
        text = ""
        if not self._whole:
            return text
        if self._failures:
            text += f"{self._written:,} failures are in {self._options.export}\n"
        if self._payloads:
            left = f"; {self._left:,} others are no text, or were not kept" if self._left else ""
            text += f"{self._rows:,} rows are in {self._options.export_rows}{left}\n"
        return text


def _new_file(stack: contextlib.ExitStack, flag: str, path: str) -> BinaryIO | None:
    """Returns a file that did not exist before; None without a path.

    Raises:
      UsageError: it exists, or cannot be written.
    """
    if not path:
        return None
    try:
        if "://" not in path:
            return cast(BinaryIO, stack.enter_context(open(path, "xb")))
        if not match_files(path):
            file = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
            return cast(BinaryIO, stack.enter_context(contextlib.closing(file)))
    except FileExistsError:
        pass
    except OSError as error:
        raise UsageError(f"{flag} {path} cannot be written: {error.strerror or error}") from error
    raise UsageError(f"{flag} {path} exists; give it another name")

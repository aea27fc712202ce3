"""What a managed job has written by itself: how many predictions, how many errors, and why."""

import ast
import collections
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from sluice.pipelines.managed.job import Job
from sluice.transforms.core.beam_files import match_files, open_binary
from sluice.transforms.core.formats import CSV

# The names that the service gives its files; an ending such as .csv may follow.
RESULTS, _ERRORS = "prediction.results-*", "prediction.errors_stats-*"
_BLOCK_BYTES = 8 << 20
# A message and how often it came, in text that is neither JSON nor a tuple. After a space or a colon a number is more
# often part of the message: "port 8080".
_COUNTED = re.compile(r"(?P<message>.*?)(?:\s*(?:\t|(?<![0-9]),)\s*|(?<=\))\s+)(?P<count>[0-9]+)\)?", re.DOTALL)
_MESSAGE_KEYS, _COUNT_KEYS = ("message", "error", "error_message"), ("count", "error_count")


class Counts(NamedTuple):
    """What became of a job's rows.

    Attributes:
      incomplete: those that the job did not come to; None: the service does not know how many.
      reasons: of failed rows: how many each message is for; many rows may share one.
    """

    predicted: int
    failed: int
    incomplete: int | None
    reasons: Mapping[str, int]


def count(job: Job, output_format: str) -> Counts:
    """Returns the counts of a job that has ended: the service's own, or else those of the lines that it has written.

    Raises:
      OSError: the output cannot be read.
    """
    stats = job.stats
    reasons = error_reasons(job.output_directory) if job.output_directory else {}
    predicted, failed = stats.successful, stats.failed
    if predicted is None:
        predicted = _lines(job.output_directory, output_format) if job.output_directory else 0
    if failed is None:
        failed = sum(reasons.values())
    return Counts(predicted, failed, stats.incomplete, reasons)


def output_files(job: Job) -> tuple[str, ...]:
    """Returns the files that a job has written."""
    if not job.output_directory:
        return ()
    return tuple(file.path for file in match_files(f"{job.output_directory}/prediction.*"))


def error_reasons(directory: str) -> dict[str, int]:
    """Returns the messages of failed rows, the most frequent first, and how many rows each is for."""
    reasons: collections.Counter[str] = collections.Counter()
    for file in match_files(f"{directory}/{_ERRORS}"):
        with open_binary(file.path) as lines:
            for line in lines.read().decode("utf-8", "replace").splitlines():
                if line.strip():
                    message, number = parse_error(line.strip())
                    reasons[message] += number
    return dict(reasons.most_common())


def parse_error(line: str) -> tuple[str, int]:
    """Returns the message of a line, and how many rows it is for.

    No form is published. Seen were JSON, tuples in Python's form, and plain text; what is not understood counts once.
    """
    for read in (json.loads, ast.literal_eval):
        try:
            parsed = _message_and_count(read(line))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if parsed:
            return parsed
    found = _COUNTED.fullmatch(line.removeprefix("("))
    return (found["message"].strip().strip("\"'"), int(found["count"])) if found else (line, 1)


def _message_and_count(value: object) -> tuple[str, int] | None:
    if isinstance(value, dict):
        message = next((value[key] for key in _MESSAGE_KEYS if key in value), None)
        number = next((value[key] for key in _COUNT_KEYS if key in value), 1)
    elif isinstance(value, list | tuple) and len(value) == 2:
        message, number = value
    else:
        return None
    if message is None or isinstance(number, bool) or not isinstance(number, int | str) or not str(number).isdecimal():
        return None
    return (message if isinstance(message, str) else json.dumps(message)), int(number)


def _lines(directory: str, output_format: str) -> int:
    """Counts the predictions in a directory: one a line; a file of CSV has a header besides."""
    headers = output_format == CSV
    counts = [_newlines(file.path) for file in match_files(f"{directory}/{RESULTS}")]
    return sum(max(0, lines - headers) for lines in counts)


def _newlines(path: str) -> int:
    lines, last = 0, b"\n"
    with open_binary(path) as file:
        for block in _blocks(file.read):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while block := read(_BLOCK_BYTES):
        yield block

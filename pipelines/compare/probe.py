"""`python -m sluice.pipelines.compare.probe FLAGS`: opens the model of a batch job, and measures what it is asked.

FLAGS are those of `sluice batch`. A line on standard input is a request, {"do": NAME, ...}, and a line on standard
output its answer, both JSON. The first answer comes unasked: {"loaded": ...}. An error is {"error": TEXT}, which quotes
no value of a row where --failure_payload says so. The process ends with its input.
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from sluice.models.errors import SluiceError, UsageError
from sluice.models.wording import log_text, told
from sluice.pipelines.compare.drive import RowsFailed
from sluice.pipelines.compare.stream import Load
from sluice.pipelines.compare.subject import Point, Subject
from sluice.pipelines.end import end_process
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.flags import add_arguments, from_namespace
from sluice.pipelines.options.parser import Parser
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_OK
from sluice.transforms.core.failures import FULL

LOADED, THROUGHPUT, LATENCY, STAGES = "loaded", "throughput", "latency", "stages"


def parse_job(flags: Sequence[str], name: str = "sluice compare") -> BatchOptions:
    """Returns the options of a batch job.

    Raises:
      UsageError: they are invalid. An unknown flag ends the process, as that of a command does.
    """
    parser = Parser(name, allow_abbrev=False)
    add_arguments(parser, BatchOptions)
    return from_namespace(BatchOptions, parser.parse_args(list(flags)))


def answer(subject: Subject, asked: dict[str, Any]) -> dict[str, Any]:
    """Returns the answer to a request."""
    point = Point(**asked["point"])
    if asked["do"] == THROUGHPUT:
        return dataclasses.asdict(subject.throughput(point, asked["secs"]))
    if asked["do"] == LATENCY:
        return dataclasses.asdict(subject.latency(Load(**asked["load"]), point))
    return subject.stages(point)


def words_of(error: SluiceError, private: bool) -> str:
    """Returns what is told of an error; where values of rows are private, none of them is in it."""
    return told(error, private) if isinstance(error, UsageError | RowsFailed) else log_text(error, private)


def main() -> int:
    """Answers until the input ends; returns the exit code."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer

    def say(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")

    options = parse_job(sys.argv[1:])
    private = options.failure_payload != FULL
    try:
        subject = Subject(options)
    except SluiceError as error:
        say({"error": words_of(error, private)})
        return EXIT_FAILED
    with contextlib.closing(subject):
        say({LOADED: dataclasses.asdict(subject.loaded)})
        for line in sys.stdin:
            try:
                say(answer(subject, json.loads(line)))
            except SluiceError as error:
                say({"error": words_of(error, private)})
    return EXIT_OK


if __name__ == "__main__":
    end_process(main())

"""The options of `sluice compare`."""

import argparse
import dataclasses
import re

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import check_number, flag, parse_bool, parse_paths, progress_flag

WAYS = ("worker", "grpc", "rest", "vertex", "vertex_job")
# Less gives no figure that is worth anything: starting each way takes that long.
_MIN_MINUTES = 0.05
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_duration(text: str) -> float:
    """Returns seconds from 90s, 30m, 5h or 2d; 0 for an empty text."""
    if not text:
        return 0.0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 30m, 5h or 2d, found {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def _one(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of `sluice compare`. Checks itself: an invalid value raises UsageError."""

    input: tuple[str, ...] = flag(
        "Sample of the data, on this machine: a path, a glob or a directory; may be repeated. Ten thousand rows or "
        "more are enough; they are read again and again",
        (),
        parse_paths,
        group="Input",
        metavar="GLOB",
        repeated=True,
    )
    model: str = flag("SavedModel directory, or a directory of its numbered versions", "", group="Model", metavar="DIR")
    endpoint: tuple[str, ...] = flag(
        "Server of the same model to compare with, as a URI for --model; may be repeated. Without it, the reference "
        "server is started on this machine, over gRPC and REST",
        (),
        _one,
        group="Model",
        metavar="URI",
        repeated=True,
    )
    measure_managed: bool = flag(
        "Measure an --endpoint vertex://projects/P/locations/L/endpoints/E, and run batch prediction jobs of an "
        "--endpoint vertex://projects/P/locations/L/models/M; both cost money. A job takes minutes beyond --minutes",
        False,
        parse_bool,
        group="Managed job",
    )
    temp_location: str = flag(
        "Where such a job keeps its files while it runs: gs://BUCKET/DIR", "", group="Managed job", metavar="DIR"
    )
    only: str = flag("Measure this way only", "", choices=WAYS, group="Run")
    minutes: float = flag("How long to measure", 10.0, float, group="Run")
    streams: str = flag("Measure latency in a stream, too: yes or no", "yes", choices=("yes", "no"), group="Run")
    target_qps: float = flag("Messages a second that a stream has to hold", 0.0, float, group="Run", metavar="N")
    target_p99_ms: float = flag(
        "Latency that 99 % of the messages have to keep within; 0: five times what it is at a low rate", 0.0, float,
        group="Run", metavar="MS",
    )  # fmt: skip
    rows: int = flag("Rows that have to be scored by --deadline", 0, int, group="Run", metavar="N")
    deadline: float = flag(
        "Time for --rows, from start to exit: 90s, 30m, 5h or 2d", 0.0, parse_duration, group="Run", metavar="TIME"
    )
    rows_per_month: int = flag("Rows of a month, for its cost", 0, int, group="Run", metavar="N")
    prices: str = flag(
        "JSON file of prices, in the form of pipelines/compare/prices.json; those that it lacks are from there", "",
        group="Run", metavar="FILE",
    )  # fmt: skip
    write_config: str = flag(
        "Write the flags of the recommended way to this file, for --config", "", group="Output", metavar="FILE"
    )
    summary_file: str = flag("Also write all figures as JSON to this file", "", group="Output", metavar="FILE")
    report_file: str = flag(
        "Also write a page of it, as HTML with charts, to this file", "", group="Output", metavar="FILE"
    )
    progress: str = progress_flag()

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("--model is missing: the SavedModel to compare the ways of")
        if not self.input:
            raise UsageError("--input is missing: a sample of the data")
        if any("://" in path for path in self.input):
            raise UsageError("--input: the sample has to be on this machine; copy some files, they need not be many")
        if self.temp_location and not self.measure_managed:
            raise UsageError("--temp_location is for a job of --measure_managed; leave it out")
        check_number(self, "minutes", above=_MIN_MINUTES, most=24 * 60)
        for name in ("target_qps", "target_p99_ms", "deadline"):
            check_number(self, name)
        for name in ("rows", "rows_per_month"):
            check_number(self, name, whole=True)
        if bool(self.rows) != bool(self.deadline):
            raise UsageError("--rows and --deadline go together: so many rows in this time")

"""Which portable runners may run streams, and the options without which messages would be late, or lost.

Measured with Beam 2.77 on Flink 1.19: a bundle is finalized, and its messages acknowledged, after the next checkpoint;
without checkpoints never. If a checkpoint does not finish the bundle first, some jobs do not begin to read.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import parse_bool
from sluice.pipelines.portable.job_server import EMBEDDED, ask_options
from sluice.pipelines.portable.kind import FLINK, PRISM, is_portable, runner_name

_INTERVAL, _FINISH, _TIME = "checkpointing_interval", "finish_bundle_before_checkpointing", "max_bundle_time_mills"
# Messages wait for their acknowledgement as long, and what a worker had in work when it was killed is so much.
_INTERVAL_MS = 3000
# A bundle that stays open for a second, as it does by default, delays its predictions as long.
_BUNDLE_MS = 100

_ONLY = "a streaming job runs in this process (leave --runner out), on Flink or on Dataflow"


@dataclasses.dataclass(frozen=True)
class StreamFlags:
    """Beam's flags of a stream on Flink.

    Attributes:
      flags: with those that a stream needs.
      checkpoint_secs: between two checkpoints.
    """

    flags: list[str]
    checkpoint_secs: float


def check_engine(options: PipelineOptions) -> None:
    """Checks that a portable runner is Flink's.

    Raises:
      UsageError: it is another one; or the job server does not answer.
    """
    given = f"--runner {options.view_as(StandardOptions).runner}"
    name = runner_name(options)
    if name == PRISM:
        raise UsageError(f"{given}: {_ONLY}; Prism loses messages behind a shuffle when a worker is killed")
    if not is_portable(options) or name not in (FLINK, "portablerunner"):
        raise UsageError(
            f"{given}: {_ONLY}; other runners may acknowledge messages before their predictions are written"
        )
    endpoint = options.view_as(PortableOptions).job_endpoint
    if name == FLINK and not endpoint:
        return
    declared = () if endpoint in (None, EMBEDDED) else (each.name for each in ask_options(endpoint))
    if _INTERVAL not in declared:
        raise UsageError(
            f"{given} --job_endpoint {endpoint}: {_ONLY}; this is no job server of Flink: it has no --{_INTERVAL}, "
            "and may acknowledge messages before their predictions are written"
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def stream_flags(flags: Sequence[str], readers: int) -> StreamFlags:
    """Adds what a stream on Flink needs to Beam's flags.

    Args:
      readers: how many take messages at a time.

    Raises:
      UsageError: a flag forbids what a stream needs.
    """
    parser = _Parser(allow_abbrev=False, add_help=False, argument_default=argparse.SUPPRESS)
    for name in (_INTERVAL, _TIME, "parallelism"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument(f"--{_FINISH}", type=parse_bool, nargs="?", const=True)
    parser.add_argument("--streaming", type=parse_bool, nargs="?", const=True)
    given = vars(parser.parse_known_args(list(flags))[0])
    if given.get(_INTERVAL, _INTERVAL_MS) <= 0:
        raise UsageError(
            f"--{_INTERVAL} {given[_INTERVAL]}: Flink acknowledges messages after a checkpoint, so a stream needs "
            f"some; give milliseconds, or leave it out for {_INTERVAL_MS}"
        )
    if not given.get(_FINISH, True):
        raise UsageError(f"--{_FINISH}=false: without it some jobs never begin to read; leave it out")
    wanted = {_INTERVAL: str(_INTERVAL_MS), _TIME: str(_BUNDLE_MS), _FINISH: ""}
    if readers > 1:
        wanted["parallelism"] = str(readers)
    missing = [f"--{name}={value}" if value else f"--{name}" for name, value in wanted.items() if name not in given]
    return StreamFlags([*flags, *missing], given.get(_INTERVAL, _INTERVAL_MS) / 1000)

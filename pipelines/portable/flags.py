"""Finds which flags a portable job may have beside Beam's own."""

import argparse
import dataclasses
from collections.abc import Collection, Mapping, Sequence

from sluice.pipelines.portable import declared
from sluice.pipelines.portable.job_server import ANSWER_SECS, EMBEDDED, ask_options
from sluice.pipelines.portable.kind import FLINK, full_name

# Beam's default, which says nothing of what the user wants.
_BEAM_TIMEOUT = 300


@dataclasses.dataclass(frozen=True)
class Declared:
    """The options that a job's server has and Beam's Python does not.

    Attributes:
      kinds: what each holds, by name; see pipelines.portable.declared.
      on: those that are on by default.
      written_out: Beam passes them on without asking the job server.
    """

    kinds: Mapping[str, str]
    on: frozenset[str] = frozenset()
    written_out: bool = False

    def pass_on(self, flags: Sequence[str]) -> tuple[list[str], list[str]]:
        """Returns the flags that are none of these options, and those that are, as Beam takes them."""
        if self.kinds:
            declared.quieten()
        return declared.pass_on(flags, self.kinds, self.on, self.written_out)


def find_declared(given: argparse.Namespace, known: Collection[str]) -> Declared:
    """Returns the options of the job server that the flags name; of Flink's own, if Beam is going to start one.

    Args:
      given: Beam's flags.
      known: the flags that Beam has itself, with their dashes.

    Raises:
      UsageError: the job server does not answer.
    """
    if given.job_endpoint and given.job_endpoint != EMBEDDED:
        secs = ANSWER_SECS if given.job_server_timeout == _BEAM_TIMEOUT else float(given.job_server_timeout)
        found = ask_options(given.job_endpoint, secs)
        kinds, on = declared.kinds_of(found), declared.inverted(found)
    elif full_name(given.runner) == FLINK:
        kinds, on = dict(declared.FLINK_OPTIONS), declared.FLINK_ON
    else:
        kinds, on = {}, frozenset[str]()
    fresh = {name: kind for name, kind in kinds.items() if f"--{name}" not in known}
    return Declared(fresh, on, bool(given.flink_submit_uber_jar))

"""A probe as its starter sees it: a process that measures one way when it is asked."""

import contextlib
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Self

from sluice.models.errors import SluiceError
from sluice.models.wording import WITHHELD
from sluice.pipelines.compare import probe
from sluice.pipelines.compare.costs import end_group, read_line
from sluice.pipelines.compare.drive import Driven
from sluice.pipelines.compare.probe import parse_job
from sluice.pipelines.compare.stream import Answered, Load
from sluice.pipelines.compare.subject import Loaded, Point
from sluice.transforms.core.failures import FULL

_SHOWN_CHARACTERS = 2000
# A model may take so long to open, and whatever is asked so much longer than it is planned to.
_LOAD_SECS, _SPARE_SECS = 900.0, 90.0


class Probe:
    """Starts a process that opens the model of a job; it lives until it is closed. Ctrl-C does not reach it.

    Args:
      flags: of `sluice batch`.
      limit: returns the seconds after which no answer is waited for any more, whatever was asked.
    """

    def __init__(self, flags: Sequence[str], limit: Callable[[], float] = lambda: math.inf) -> None:
        self._private, self._limit = parse_job(flags).failure_payload != FULL, limit
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", probe.__name__, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        end_group(self._process)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):  # a question that the process has not lived to read
                if stream is not None:
                    stream.close()

    def loaded(self) -> Loaded:
        """Waits until the model is open. Raises as all others do.

        Raises:
          SluiceError: what is measured fails, or the process has ended; the text says why.
        """
        return Loaded(**self._read("opening the model", _LOAD_SECS)[probe.LOADED])

    def throughput(self, point: Point, secs: float) -> Driven:
        what = f"keeping the model busy for {secs:.1f} s"
        return Driven(**self._ask(what, _SPARE_SECS + 2 * secs, probe.THROUGHPUT, point, secs=secs))

    def latency(self, load: Load, point: Point) -> Answered:
        what = f"sending {load.queries:,} messages, {load.rate:,.0f} a second"
        limit_secs = _SPARE_SECS + 2 * load.queries / load.rate
        found = self._ask(what, limit_secs, probe.LATENCY, point, load=dataclasses.asdict(load))
        return Answered(tuple(found.pop("latencies_ms")), **found)

    def stages(self, point: Point) -> dict[str, float]:
        return self._ask("measuring the stages of a row", _SPARE_SECS, probe.STAGES, point)

    def _ask(self, what: str, limit_secs: float, do: str, point: Point, **more: object) -> dict[str, Any]:
        """Asks for something that takes so long at most; `what` is its name for people."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, "point": dataclasses.asdict(point)} | more) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it has written says why
        return self._read(what, limit_secs)

    def _read(self, what: str, limit_secs: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        limit_secs = min(limit_secs, self._limit())
        line = read_line(self._process.stdout, limit_secs)
        if line is None:
            end_group(self._process)  # its answer would be taken for that of the next question
            raise SluiceError(f"{what} has not ended within {limit_secs:.0f} s; the model or its server may hang")
        if not line:
            raise SluiceError(f"a process that measures has ended: {self._last_words()}")
        found: dict[str, Any] = json.loads(line)
        if error := found.get("error"):
            raise SluiceError(str(error))
        return found

    def _last_words(self) -> str:
        """Returns the end of what the process has written, which may quote rows."""
        if self._private:
            return WITHHELD
        self._errors.seek(0)
        return self._errors.read()[-_SHOWN_CHARACTERS:].strip()

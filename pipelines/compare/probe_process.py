"""A probe as its starter sees it: a process that measures one way when it is asked."""

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, Self

from sluice.models.errors import SluiceError
from sluice.pipelines.compare import probe
from sluice.pipelines.compare.costs import end_group
from sluice.pipelines.compare.drive import Driven
from sluice.pipelines.compare.stream import Answered, Load
from sluice.pipelines.compare.subject import Loaded, Point

_SHOWN_CHARACTERS = 2000


class Probe:
    """Starts a process that opens the model of a job; it lives until it is closed. Ctrl-C does not reach it.

    Args:
      flags: of `sluice batch`.
    """

    def __init__(self, flags: Sequence[str]) -> None:
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
            if stream is not None:
                stream.close()

    def loaded(self) -> Loaded:
        """Waits until the model is open. Raises as all others do.

        Raises:
          SluiceError: what is measured fails, or the process has ended; the text says why.
        """
        return Loaded(**self._read()[probe.LOADED])

    def throughput(self, point: Point, secs: float) -> Driven:
        return Driven(**self._ask(probe.THROUGHPUT, point, secs=secs))

    def latency(self, load: Load, point: Point) -> Answered:
        found = self._ask(probe.LATENCY, point, load=dataclasses.asdict(load))
        return Answered(tuple(found.pop("latencies_ms")), **found)

    def stages(self, point: Point) -> dict[str, float]:
        return self._ask(probe.STAGES, point)

    def _ask(self, do: str, point: Point, **more: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, "point": dataclasses.asdict(point)} | more) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it has written says why
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SluiceError(f"a process that measures has ended: {self._errors.read()[-_SHOWN_CHARACTERS:].strip()}")
        found: dict[str, Any] = json.loads(line)
        if error := found.get("error"):
            raise SluiceError(str(error))
        return found

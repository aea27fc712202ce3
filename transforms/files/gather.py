"""Rows of a stream gathered into files at intervals, where the runner keeps them safe meanwhile, as Dataflow does.

The rows wait in the runner's state: they are durable before their messages are acknowledged, and another worker has
them when one dies. A file is written under a hidden name, its name goes through a shuffle, and only then is it renamed:
a bundle that is repeated writes another hidden file, and never a second one under a final name.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator

import apache_beam as beam
from apache_beam.coders import BytesCoder, Coder, VarIntCoder
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagRuntimeState,
    BagStateSpec,
    ReadModifyWriteRuntimeState,
    ReadModifyWriteStateSpec,
    RuntimeTimer,
    TimerSpec,
    on_timer,
)
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.timestamp import Timestamp

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import delete_files
from sluice.transforms.core.failures import FAILURES, FailedOutput
from sluice.transforms.files.open_file import BatchOrFailure, Format, OpenFile, WriteElement

_LOG = logging.getLogger(__name__)

# The key of the rows of this process: so an interval makes as many files as there are processes.
_PROCESS = uuid.uuid4().hex

_ELEMENTS = beam.DoFn.StateParam(BagStateSpec("elements", BytesCoder()))
_BYTES = beam.DoFn.StateParam(ReadModifyWriteStateSpec("bytes", VarIntCoder()))

# Opens a hidden file; returns it with its final name.
OpenHidden = Callable[[Format[BatchOrFailure]], tuple[OpenFile[BatchOrFailure], str]]
# A finished file: its hidden name, and its final one.
HiddenFile = tuple[str, str]


@beam.typehints.with_output_types(tuple[str, bytes])
class Pack(beam.DoFn):
    """Yields each element encoded, under the key of this process."""

    def __init__(self, coder: Coder) -> None:
        self._coder = coder

    def process(self, element: BatchOrFailure) -> Iterator[tuple[str, bytes]]:
        yield f"{_PROCESS}-{os.getpid()}", self._coder.encode(element)


class Gathering:
    """What becomes of the elements of a key in a runner's state. Picklable. Counts: rows_failed.

    Args:
      max_bytes: of encoded elements: those that reach it make a file at once.
      clock: seconds since the epoch.
    """

    def __init__(
        self,
        coder: Coder,
        format_: Format[BatchOrFailure],
        write: WriteElement,
        open_hidden: OpenHidden,
        interval_secs: float,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._coder, self._format, self._write, self._open_hidden = coder, format_, write, open_hidden
        self._interval_secs, self._max_bytes, self._clock = interval_secs, max_bytes, clock

    def add(
        self,
        data: bytes,
        elements: BagRuntimeState,
        size: ReadModifyWriteRuntimeState,
        timers: tuple[RuntimeTimer, RuntimeTimer],
        window: BoundedWindow,
    ) -> Iterator[HiddenFile | FailedOutput]:
        """Keeps an encoded element; yields a file if there are enough.

        Args:
          timers: of the interval, and of the end of the window.
        """
        held = size.read() or 0
        if not held:
            due, end = timers
            due.set(Timestamp(self._clock() + self._interval_secs))
            end.set(window.end)
        elements.add(data)
        size.write(held + len(data))
        if held + len(data) >= self._max_bytes:
            yield from self.flush(elements, size)

    def flush(
        self, elements: BagRuntimeState, size: ReadModifyWriteRuntimeState
    ) -> Iterator[HiddenFile | FailedOutput]:
        """Writes all elements to a hidden file, and forgets them."""
        if not size.read():
            return
        file, name = self._open_hidden(self._format)
        try:
            for data in elements.read():
                for failure in self._write(self._coder.decode(data), file.write):
                    yield beam.pvalue.TaggedOutput(FAILURES, failure)
            file.close(sync=True)
        except BaseException:
            file.drop()
            raise
        if file.rows:
            yield file.path, name
        else:  # the format cannot hold any of the rows
            file.drop()
        elements.clear()
        size.clear()


def gather_step(step: str, gathering: Gathering) -> beam.DoFn:
    """Returns the DoFn that writes elements an interval after the first of a key, or when there are enough.

    It yields HiddenFiles. Its timers are named after the step. Beam's FnApiRunner keeps the timers of one name, of all
    steps that it fuses, in one buffer, and gives them to one of these steps, by the order of a set: timers that are
    named alike fire in the wrong step, in some processes and not in others, and the rows are never written
    (fn_api_runner/execution.py, BundleContextManager.get_buffer).

    Args:
      step: distinguishes it from the others of the graph. Dataflow finds the timers of a running job by it.
    """
    due_timer = TimerSpec(f"due-{step}", TimeDomain.REAL_TIME)
    end_timer = TimerSpec(f"end-{step}", TimeDomain.WATERMARK)  # of the window: it comes when a job is drained

    due_param, end_param = beam.DoFn.TimerParam(due_timer), beam.DoFn.TimerParam(end_timer)

    class Gather(beam.DoFn):
        def process(
            self,
            element: tuple[str, bytes],
            elements: BagRuntimeState = _ELEMENTS,
            size: ReadModifyWriteRuntimeState = _BYTES,
            due: RuntimeTimer = due_param,
            end: RuntimeTimer = end_param,
            window: BoundedWindow = beam.DoFn.WindowParam,
        ) -> Iterator[HiddenFile | FailedOutput]:
            yield from gathering.add(element[1], elements, size, (due, end), window)

        @on_timer(due_timer)
        @on_timer(end_timer)
        def on_time(
            self, elements: BagRuntimeState = _ELEMENTS, size: ReadModifyWriteRuntimeState = _BYTES
        ) -> Iterator[HiddenFile | FailedOutput]:
            yield from gathering.flush(elements, size)

    return Gather()


class Rename(beam.DoFn):
    """Renames HiddenFiles. May be repeated: what is renamed already is left as it is.

    A hidden name is of one file, and only this step takes it away. Where it is gone, the file had its final name once,
    and a reader of the files may have taken it away since.
    """

    def __init__(self, rename: Callable[[str, str], None]) -> None:
        self._rename = rename

    def process(self, file: HiddenFile) -> None:
        path, name = file
        try:
            self._rename(path, name)
        except SluiceError:
            left, done = FileSystems.exists(path), FileSystems.exists(name)
            if left and not done:
                raise
            if not done:
                _LOG.warning("%s is not there any more: it was renamed to %s before, and taken away since", path, name)
            delete_files([path] if left else [])

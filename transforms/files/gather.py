"""Rows of a stream gathered into files at intervals, where the runner keeps them safe meanwhile, as Dataflow does.

The rows wait in the runner's state: they are durable before their messages are acknowledged, and another worker has
them when one dies. A file is written under a hidden name, its name goes through a shuffle, and only then is it renamed:
a bundle that is repeated writes another hidden file, and never a second one under a final name.
"""

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

# The key of the rows of this process: so an interval makes as many files as there are processes.
_PROCESS = uuid.uuid4().hex

_ELEMENTS = beam.DoFn.StateParam(BagStateSpec("elements", BytesCoder()))
_BYTES = beam.DoFn.StateParam(ReadModifyWriteStateSpec("bytes", VarIntCoder()))
_DUE_TIMER = TimerSpec("due", TimeDomain.REAL_TIME)
_END_TIMER = TimerSpec("end", TimeDomain.WATERMARK)  # of the window: it comes when a job is drained
_DUE, _END = beam.DoFn.TimerParam(_DUE_TIMER), beam.DoFn.TimerParam(_END_TIMER)

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


class Gather(beam.DoFn):
    """Writes the elements of a key to a hidden file, an interval after the first of them, or when there are enough.

    Yields HiddenFiles. Counts: rows_failed.

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

    def process(
        self,
        element: tuple[str, bytes],
        elements: BagRuntimeState = _ELEMENTS,
        size: ReadModifyWriteRuntimeState = _BYTES,
        due: RuntimeTimer = _DUE,
        end: RuntimeTimer = _END,
        window: BoundedWindow = beam.DoFn.WindowParam,
    ) -> Iterator[HiddenFile | FailedOutput]:
        held = size.read() or 0
        if not held:
            due.set(Timestamp(self._clock() + self._interval_secs))
            end.set(window.end)
        elements.add(element[1])
        size.write(held + len(element[1]))
        if held + len(element[1]) >= self._max_bytes:
            yield from self._flush(elements, size)

    @on_timer(_DUE_TIMER)
    def on_due(
        self,
        elements: BagRuntimeState = _ELEMENTS,
        size: ReadModifyWriteRuntimeState = _BYTES,
    ) -> Iterator[HiddenFile | FailedOutput]:
        yield from self._flush(elements, size)

    @on_timer(_END_TIMER)
    def on_end(
        self,
        elements: BagRuntimeState = _ELEMENTS,
        size: ReadModifyWriteRuntimeState = _BYTES,
    ) -> Iterator[HiddenFile | FailedOutput]:
        yield from self._flush(elements, size)

    def _flush(
        self, elements: BagRuntimeState, size: ReadModifyWriteRuntimeState
    ) -> Iterator[HiddenFile | FailedOutput]:
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


class Rename(beam.DoFn):
    """Renames HiddenFiles. May be repeated: what is renamed already is left as it is."""

    def __init__(self, rename: Callable[[str, str], None]) -> None:
        self._rename = rename

    def process(self, file: HiddenFile) -> None:
        path, name = file
        try:
            self._rename(path, name)
        except SluiceError:
            if not FileSystems.exists(name):
                raise
            delete_files([path] if FileSystems.exists(path) else [])

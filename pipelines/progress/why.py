"""Why the rows of a job have failed: what the job ends with, and what `sluice failures` shows."""

import itertools
import logging
import re
import shlex
from collections.abc import Collection, Iterator, Sequence

import orjson

from sluice.models.wording import Message
from sluice.pipelines.plan.names import map_flags
from sluice.pipelines.progress.remedies import remedy_for, with_inputs
from sluice.pipelines.progress.table import align
from sluice.transforms.core import metrics
from sluice.transforms.core.beam_files import open_text
from sluice.transforms.core.reasons import Group, Reasons

_LOG = logging.getLogger(__name__)

# So many reasons a job ends with.
SHOWN = 3
# Of failures that other processes have counted, so many are read for it, and no more than so many bytes of them.
_MOST_READ, _MOST_BYTES = 100_000, 256 << 20


def top_reasons(
    failures: int, files: Sequence[str], private: bool, mapped: Collection[tuple[str, str]] = ()
) -> tuple[Group, ...]:
    """Returns the most frequent reasons of a job that has ended.

    Args:
      failures: of the whole job.
      files: of its failures; they are read if this process has not seen them all.
      private: the values of rows are.
      mapped: --map of the job.
    """
    reasons = metrics.reasons()
    if reasons.total < failures and files:
        reasons = _read(files)
    return tuple(with_inputs(reasons.top(SHOWN, private), mapped))


def _read(files: Sequence[str]) -> Reasons:
    """Returns the reasons in files that this job has written, whose messages hold what may be told."""
    reasons = Reasons()
    try:
        for line in itertools.islice(_lines(files), _MOST_READ):
            record = orjson.loads(line)
            text = record["error_message"]
            reasons.add(record["stage"], record["error_type"], Message(text, text), record["origin"])
    except Exception as error:  # noqa: BLE001  of whichever file system; the job has ended
        _LOG.warning("Not all failures could be read to say why rows failed: %s", error)
    return reasons


def _lines(files: Sequence[str]) -> Iterator[bytes]:
    left = _MOST_BYTES
    for path in files:
        with open_text(path) as file:
            for line in iter(file.readline, b""):
                yield line
                left -= len(line)
                if left <= 0:  # payloads may be large, and the files far away
                    return


def reason_records(groups: Sequence[Group]) -> list[dict[str, object]]:
    """Returns reasons as JSON values. Their keys are an interface: tests hold them."""
    return [_record(group) for group in groups]


def _record(group: Group) -> dict[str, object]:
    remedy = remedy_for(group)
    return {
        "count": group.count,
        "stage": group.stage,
        "error_type": group.error_type,
        "reason": group.reason,
        "example": group.example,
        "origin": group.origin,
        "flags": remedy.flags if remedy else "",
        "remedy": remedy.text if remedy else "",
    }


def render_reasons(groups: Sequence[Group]) -> list[str]:
    """Returns the lines that show reasons: of each its count, an example and a remedy."""
    rows = [
        (f"{group.count:,}" if not number else "", text)
        for group in groups
        for number, text in enumerate(_texts(group))
    ]
    return align(rows, "><", indent="  ") if rows else []


def _texts(group: Group) -> list[str]:
    remedy = remedy_for(group)
    texts = [f"{group.stage} {group.error_type}: {group.reason}"]
    if group.example != group.reason or group.origin:
        texts.append(f"such as: {group.example}{f' ({group.origin})' if group.origin else ''}")
    if group.payload:
        texts.append(f"its row: {group.payload}")
    return [*texts, f"remedy: {remedy}"] if remedy else texts


def reasons_text(groups: Sequence[Group]) -> str:
    """Returns what a job ends with: lines, each with its end; "" if no row has failed."""
    if not groups:
        return ""
    title = "Why rows failed" if len(groups) < SHOWN else f"Why rows failed, the {SHOWN} most frequent reasons"
    return "".join(f"{line}\n" for line in (f"{title}:", *render_reasons(groups)))


def where_failures_are(files: Sequence[str], table: str, mapped: Collection[tuple[str, str]] = ()) -> str:
    """Returns the line with the command that shows all reasons; "" if there is nowhere to look.

    Args:
      mapped: --map of the job: the files do not tell it.
    """
    if files:
        place = files[0] if len(files) == 1 else re.sub(r"-\d{5}-of-\d{5}(?=\.)", "-*", files[0])
    else:
        place = table
    words = ["sluice failures", shlex.quote(place), *([map_flags(mapped)] if mapped else [])]
    return f"All reasons: {' '.join(words)}\n" if place else ""

"""The figures of `benchmarks.streaming` as the sections of STREAMING.md."""

import dataclasses

from benchmarks.streaming_runs import BROKEN, HEAD, SEAM_SECS, SWAP_SECS, Latency, Swaps

SLUICE, BEAM = "Sluice", "Beam's own"
_QUANTILES = ("p50", "p95", "p99", "max")


@dataclasses.dataclass(frozen=True)
class Figures:
    """The measured figures.

    Attributes:
      throughput: by contender; see `streaming_runs.sluice_throughput`.
      memory: see `streaming_memory.measure`.
      latencies: by contender.
    """

    throughput: dict[str, dict[str, float]]
    memory: dict[str, float]
    latencies: dict[str, list[Latency]]
    swaps: Swaps


def sections(figures: Figures) -> list[str]:
    """Returns the lines of Markdown."""
    return [
        *_throughput(figures.throughput, figures.latencies),
        *_memory(figures.memory),
        *_latency(figures.latencies),
        *_swaps(figures.swaps),
    ]


def _throughput(found: dict[str, dict[str, float]], latencies: dict[str, list[Latency]]) -> list[str]:
    ours = found[SLUICE]
    lines = [
        "## A backlog, from a subscription to a topic",
        "",
        "JSON messages that are there when the job starts. Counted are predictions by when Pub/Sub took them, without "
        f"the first {HEAD:.0%}: starting, loading the model and first calls are not in it. Nothing else runs meanwhile "
        "but the emulator; predictions are read afterwards.",
        "",
        "| | predictions | messages/s | Sluice is |",
        "|---|---:|---:|---:|",
    ]
    for name, each in found.items():
        faster = ours["messages_s"] / each["messages_s"]
        lines.append(f"| {name} | {each['messages']:,.0f} | {each['messages_s']:,.0f} | {faster:.1f} x as fast |")
    return [*lines, "", f"- A bundle of Sluice's had {ours['bundle']:,.0f} messages, the mean."]


def _memory(found: dict[str, float]) -> list[str]:
    return [
        "",
        "## Without Pub/Sub",
        "",
        "The same job in one process, whose source hands out the bytes of messages and whose sink encodes the messages "
        f"with their attributes and drops them; without the first {HEAD:.0%}.",
        "",
        "| | messages/s | process CPU us/message |",
        "|---|---:|---:|",
        f"| from bytes to encoded prediction | {found['messages_s']:,.0f} | {found['cpu_us']:.1f} |",
    ]


def _latency(found: dict[str, list[Latency]]) -> list[str]:
    lines = [
        "",
        "## Latency at a steady rate",
        "",
        "Milliseconds from handing a row to Pub/Sub until Pub/Sub took its prediction, and in brackets until a puller "
        "that waits for it had it, which is the emulator's time as well. Every row is counted, those at the seams of "
        "segments among them.",
        "",
        "| | rows/s sent | rows | p50 | p95 | p99 | max |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, loads in found.items():
        for load in loads:
            cells = (f"{load.taken[q] or 0:,.0f} ({load.received[q] or 0:,.0f})" for q in _QUANTILES)
            lines.append(f"| {name}, {load.rate:g}/s | {load.rate:g} | {load.rows:,} | {' | '.join(cells)} |")
    before, after = SEAM_SECS
    lines.append("")
    for load in found[SLUICE]:
        if load.at_seams is not None:
            lines.append(
                f"- At {load.rate:g}/s, {load.seams} segments went over into the next; the largest latency from "
                f"{before:g} s before a segment was full to {after:g} s after is {load.at_seams:,.0f} ms."
            )
    ours, beams = found[SLUICE][0].taken["p99"], found[BEAM][0].taken["p99"]
    if ours and beams:
        lines.append(
            f"- The p99 of Beam's own at {found[BEAM][0].rate:g}/s is {beams / ours:.1f} times that of Sluice."
        )
    return lines


def _swaps(found: Swaps) -> list[str]:
    lines = [
        "",
        "## The model replaced under load",
        "",
        f"{found.rate:g} rows/s; versions are put under the base path one after the other, {BROKEN} with half of its "
        "variables missing; the job looks each second, and takes what has not changed between two looks. Gap: the "
        f"longest time without a prediction within {SWAP_SECS:g} s after the version was there.",
        "",
        "| version | put after, s | first predicts, s later | predictions | largest gap, ms | largest latency, ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for turn in found.turns:
        name = f"{turn.version}, broken" if turn.version == BROKEN else f"{turn.version}"
        after = "never" if turn.after is None else f"{turn.after:.1f}"
        lines.append(
            f"| {name} | {turn.at:.1f} | {after} | {turn.predictions:,} | {turn.gap_ms:.0f} | {turn.latency_ms:.0f} |"
        )
    once = all(turn.runs == (turn.version != BROKEN) for turn in found.turns)
    return [
        *lines,
        "",
        f"- {sum(turn.predictions for turn in found.turns):,} predictions, {found.failures} failures; predictions "
        f"change over to each good version {'once' if once else 'NOT once'}. The job counted {found.swaps} swaps and "
        f"{found.rejected} rejected version{'' if found.rejected == 1 else 's'}.",
        f"- In the whole run, the largest gap is {found.gap_ms:.0f} ms, the largest latency {found.latency_ms:.0f} ms.",
    ]

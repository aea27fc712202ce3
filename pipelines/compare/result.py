"""All that a comparison gives, and the form of it as JSON."""

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from typing import Any

from sluice.pipelines.compare.answer import Answer, Line
from sluice.pipelines.compare.claims import claims
from sluice.pipelines.compare.managed import Managed
from sluice.pipelines.compare.prices import Prices
from sluice.pipelines.compare.probe import parse_job
from sluice.pipelines.compare.spread import Spread
from sluice.pipelines.options.config import config_text, used_options
from sluice.pipelines.options.flags import SECRETS
from sluice.pipelines.options.parser import versions


@dataclasses.dataclass(frozen=True)
class Result:
    """A comparison.

    Attributes:
      job_flags: of `sluice batch`, that the user gave besides.
      notes: what a reader has to know: what was broken off, where it ran, how long it took.
    """

    model: str
    answer: Answer
    managed: list[Managed]
    prices: Prices
    target_p99_ms: float
    job_flags: tuple[str, ...]
    notes: tuple[str, ...]
    interrupted: bool = False

    def flags(self, line: Line) -> list[str]:
        """Returns the flags of a way beside --model, each once: what the user gave was not searched for."""
        given = {flag.partition("=")[0] for flag in self.job_flags}
        return [*self.job_flags, *(flag for flag in line.flags if flag.partition("=")[0] not in given)]


def machine() -> str:
    """Returns what the figures are of: cores, Python, versions."""
    return f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, {versions()}"


def to_json(result: Result) -> str:
    """Returns the comparison as one JSON object."""
    record = {
        "model": result.model,
        "interrupted": result.interrupted,
        "machine": machine(),
        "ways": [_line(line) for line in result.answer.lines],
        "at_rest": result.answer.at_rest.found.way.name if result.answer.at_rest else None,
        "in_stream": result.answer.in_stream.found.way.name if result.answer.in_stream else None,
        "cheaper_than_copies_from_rows_per_second": result.answer.crossings,
        "managed_not_measured": [dataclasses.asdict(way) for way in result.managed],
        "claims": [dataclasses.asdict(claim) for claim in claims(result.answer)],
        "prices": {
            name: {"value": value, "date": day, "source": source} for name, value, day, source in result.prices.sources
        },
        "currency": result.prices.currency,
        "notes": list(result.notes),
    }
    return json.dumps(record, indent=2)


def _line(line: Line) -> dict[str, Any]:
    found = line.found
    return {
        "way": found.way.name,
        "rank": line.rank if line.use else None,
        "tied": line.tied,
        "failed": found.failed,
        "rows_per_second": _values(found.rate),
        "rows_per_second_of_whole_jobs": _values(found.whole_rate),
        "marginal_us": _values(found.marginal_us),
        "cpu_us": _values(found.cpu_us),
        "server_cpu_us": _values(found.server_cpu_us),
        "managed_job_us": _values(found.node_us),
        "start_seconds": _values(found.start_secs),
        "loaded": dataclasses.asdict(found.loaded) if found.loaded else None,
        "peak_mb": found.peak_mb,
        "server_mb": found.server_mb,
        "cost_per_million_rows": line.million,
        "cost_per_month": line.month,
        "max_batch_size": found.best.batch,
        "max_in_flight": found.best.in_flight,
        "searched": [
            {"max_batch_size": point.batch, "max_in_flight": point.in_flight, "rows_per_second": rates}
            for point, rates in found.searched.items()
        ],
        "stages_cpu_us": found.stages,
        "streams": [dataclasses.asdict(stream) for stream in found.streams],
        "workers_for_deadline": dataclasses.asdict(line.for_rows) if line.for_rows else None,
        "workers_for_target_qps": dataclasses.asdict(line.for_qps) if line.for_qps else None,
    }


def _values(values: Spread | None) -> Sequence[float] | None:
    return None if values is None else list(values.values)


def config_of(model: str, flags: Sequence[str]) -> str:
    """Returns a file for --config, which gives a job this model and these flags. Secrets are left out, and named.

    Args:
      flags: --NAME=VALUE, of `sluice batch`.
    """
    words = {flag.removeprefix("--").partition("=")[0]: flag.partition("=")[2] for flag in flags}
    secret = [name for name in SECRETS if name in words and not words[name].startswith("@")]
    values = used_options(parse_job([*flags, f"--model={model}", "--input=i", "--output=o"]))
    # A file that holds a secret is named, as it was given.
    values |= {name: words[name] for name in SECRETS if name in words and name not in secret}
    text = config_text({"model": model} | {name: values[name] for name in words if name in values})
    left_out = "".join(
        f"# --{name} is left out: its value may be a secret. Give it beside --config.\n" for name in secret
    )
    return left_out + text

"""The text of `sluice batch --check`."""

from collections.abc import Iterator

from sluice.pipelines.plan.batch_job import BatchPlan
from sluice.pipelines.plan.batch_sinks import Sink
from sluice.pipelines.plan.model import describe_model
from sluice.pipelines.progress.table import align


def render_check(plan: BatchPlan) -> str:
    """Returns what a job would do."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: BatchPlan) -> Iterator[str]:
    sinks = [sink.table or _place(sink) for sink in plan.sinks]
    output, *failures = sinks
    yield from align(
        [
            ("Model", describe_model(plan.recipe, plan.version)),
            ("Input", plan.input.description),
            ("Output", output),
            *(("Failures", place) for place in failures),
        ]
    )
    for title, lines in (("Inputs of the model", plan.review.inputs), ("Columns of the output", plan.review.outputs)):
        yield from ("", title, *(f"  {line}" for line in align(lines)))
    yield from ("", f"{plan.first_rows} Nothing was scored or written.")


def _place(sink: Sink) -> str:
    return f"{sink.target.prefix}*{sink.target.suffix}" if sink.target else ""

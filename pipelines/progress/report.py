"""A job's summary, from what the job counted."""

from typing import Any

from sluice.pipelines.plan.batch import BatchPlan
from sluice.pipelines.plan.sinks import FilesOutput, TableOutput
from sluice.pipelines.progress.summary import Summary, from_counters
from sluice.transforms.core import metrics
from sluice.transforms.files.write import existing_files


def summarise(plan: BatchPlan, result: Any, seconds: float, done: bool, judged: bool) -> Summary:
    """Returns the summary of a finished job; of one that failed, what this process has counted until then.

    Args:
      result: Beam's PipelineResult; None if the runner raised.
      done: the job succeeded; otherwise files that stand at its output are not its own.
      judged: it came as far as to put its failures in place; likewise.
    """
    counters, means = _from_result(result) if result is not None else (metrics.tally(), {})
    output, failures = plan.output, plan.failures
    return from_counters(
        counters,
        means,
        seconds=seconds,
        output_files=existing_files(output.target) if done and isinstance(output, FilesOutput) else (),
        failure_files=existing_files(failures.files) if judged and failures.files else (),
        output_table=output.target.table if done and isinstance(output, TableOutput) else "",
        failures_table=failures.table.table if judged and failures.table else "",
        model=plan.recipe.spec.uri,
        version=plan.version,
    )


def _from_result(result: Any) -> tuple[dict[str, int], dict[str, float]]:
    """Returns our counters, and the means of our distributions, by name."""
    query = result.metrics().query()
    counters: dict[str, int] = {}
    for counter in query["counters"]:
        if counter.key.metric.namespace == metrics.NAMESPACE:
            name = counter.key.metric.name
            counters[name] = counters.get(name, 0) + counter.result
    means = {
        each.key.metric.name: each.result.mean
        for each in query["distributions"]
        if each.key.metric.namespace == metrics.NAMESPACE and each.result.count
    }
    return counters, means

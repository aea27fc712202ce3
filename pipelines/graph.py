"""The graph of a job: source, predict, sinks. It only wires."""

from typing import Any

import apache_beam as beam

from sluice.pipelines.plan.batch import BatchPlan
from sluice.pipelines.plan.sinks import FailureSinks, FilesOutput, TableOutput
from sluice.transforms.core.commit import Commit
from sluice.transforms.core.commit_gate import CommitGate
from sluice.transforms.files.read import ReadFiles
from sluice.transforms.files.write import WriteFailures, WriteFiles
from sluice.transforms.predict import Predict


def build_batch(pipeline: beam.Pipeline, plan: BatchPlan, gate: CommitGate | None = None) -> beam.PCollection:
    """Wires a job; returns its `Committed`. The labels are an interface: a golden test holds them."""
    read = pipeline | "Read" >> _reader(plan)
    scored = read.rows | "Predict" >> Predict(plan.recipe, plan.output_prefix)
    parts, refused = scored.rows | "Write" >> _writer(plan.output)
    failures = (read.failures, scored.failures, refused) | "Failures" >> beam.Flatten()
    failure_parts = [failures | label >> writer for label, writer in _failure_writers(plan.failures)]
    commit = Commit(plan.output.committer, list(plan.failures.committers), plan.failure_policy, gate)
    return (parts, *failure_parts, read.tally) | "Commit" >> commit


def _reader(plan: BatchPlan) -> beam.PTransform:
    if plan.table is None:
        return ReadFiles(plan.pattern, plan.input)
    from sluice.transforms.bigquery.read import ReadTable

    return ReadTable(plan.table, plan.input)


def _writer(output: FilesOutput | TableOutput) -> beam.PTransform:
    if isinstance(output, FilesOutput):
        return WriteFiles(output.target, output.spec)
    if output.files:
        from sluice.transforms.bigquery.file_loads import WriteLoadFiles

        return WriteLoadFiles(output.target, output.files)
    from sluice.transforms.bigquery.write import WriteTableRows

    return WriteTableRows(output.target.rows_table, output.target.schema, endpoint=output.storage_endpoint)


def _failure_writers(failures: FailureSinks) -> Any:
    """Yields (label, transform), in the order of `FailureSinks.committers`."""
    if failures.files:
        yield "WriteFailures", WriteFailures(failures.files, failures.payload_mode)
    if failures.table:
        from sluice.transforms.bigquery.write_failures import WriteFailureRows

        table = WriteFailureRows(failures.table, failures.payload_mode, endpoint=failures.storage_endpoint)
        yield "WriteFailuresTable", table

"""The graph of a job: source, predict, sinks. It only wires."""

import apache_beam as beam

from pipelines.plan import BatchPlan
from transforms.commit_files import CommitFiles
from transforms.predict import Predict
from transforms.read_files import ReadFiles
from transforms.write_files import WriteFailures, WriteFiles


def build_batch(pipeline: beam.Pipeline, plan: BatchPlan) -> beam.PCollection:
    """Wires files to files; returns the job's `Committed`. The labels are an interface: a golden test holds them."""
    read = pipeline | "Read" >> ReadFiles(plan.pattern, plan.input)
    scored = read.rows | "Predict" >> Predict(plan.recipe, plan.output_prefix)
    written = scored.rows | "Write" >> WriteFiles(plan.target, plan.output)
    failures = (read.failures, scored.failures, written.failures) | "Failures" >> beam.Flatten()
    failure_shards = failures | "WriteFailures" >> WriteFailures(plan.failures_target, plan.failure_payload)
    commit = CommitFiles(plan.target, plan.output, plan.failures_target, plan.judgement)
    return (written.shards, failure_shards, read.tally) | "Commit" >> commit

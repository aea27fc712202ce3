"""Checks that a graph behind the local streaming source is one fused stage; otherwise messages would be lost.

Beam's in-process runner acknowledges a bundle once its own stage is done with it. Rows behind a step that ends the
stage are then in memory only, and sinks see them only when the job ends (measured with Beam 2.77).
"""

import apache_beam as beam
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.common import DoFnSignature
from apache_beam.transforms.core import Flatten, GroupByKey

from sluice.models.errors import UsageError

_REMEDY = (
    "on a local runner everything behind the source has to be one fused stage, or messages would be acknowledged "
    "before they are written. Run the job on Dataflow, or do without this step"
)
_BARRIERS: dict[type, str] = {GroupByKey: "groups by key", Flatten: "flattens"}


def check_fused(pipeline: beam.Pipeline) -> None:
    """Refuses a graph that the in-process runner would cut into stages behind an unbounded source.

    Raises:
      UsageError: it has a shuffle, a Flatten, a side input, a DoFn with state or timers, or a splittable DoFn there;
        the text names the step.
    """
    pipeline.visit(_Visitor())


class _Visitor(PipelineVisitor):
    def __init__(self) -> None:
        self._behind: set[beam.PCollection] = set()  # what comes from an unbounded source

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        transform = transform_node.transform
        fn = transform.fn if isinstance(transform, beam.ParDo) else None
        side_inputs = [side_input.pvalue for side_input in transform_node.side_inputs]
        if any(each in self._behind for each in (*transform_node.inputs, *side_inputs)):
            problem = _problem(transform_node, transform, fn)
            if problem:
                raise UsageError(f"the step '{transform_node.full_label}' {problem}: {_REMEDY}")
        elif fn is None or not DoFnSignature(fn).is_unbounded_per_element():
            return
        self._behind.update(transform_node.outputs.values())


def _problem(node: AppliedPTransform, transform: beam.PTransform, fn: beam.DoFn | None) -> str | None:
    for kind, what in _BARRIERS.items():
        if isinstance(transform, kind):
            return what
    if node.side_inputs:
        return "has a side input"
    if fn is not None:
        signature = DoFnSignature(fn)
        if signature.is_stateful_dofn():
            return "keeps state or timers"
        if signature.is_splittable_dofn():
            return "is a splittable DoFn"
    return None

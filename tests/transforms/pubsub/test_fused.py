"""`check_fused` refuses graphs that the in-process runner would cut behind the source, and names the step."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.pvalue import AsIter, AsSingleton, TaggedOutput
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import FixedWindows

from sluice.models.errors import UsageError
from sluice.transforms.pubsub.fused import check_fused
from sluice.transforms.pubsub.read import ReadMessages

REMEDY = (
    "on a local runner everything behind the source has to be one fused stage, or messages would be acknowledged "
    "before they are written. Run the job on Dataflow, or do without this step"
)


SEEN = beam.DoFn.StateParam(BagStateSpec("seen", VarIntCoder()))
LATER = TimerSpec("later", TimeDomain.REAL_TIME)
LATER_TIMER = beam.DoFn.TimerParam(LATER)


class Counting(beam.DoFn):
    """Keeps state."""

    def process(self, pair: tuple[str, Any], seen: Any = SEEN) -> Iterator[Any]:
        seen.add(1)
        yield pair


class Timing(beam.DoFn):
    """Sets timers."""

    def process(self, pair: tuple[str, Any], timer: Any = LATER_TIMER) -> None:
        timer.set(0)

    @on_timer(LATER)
    def later(self) -> Iterator[Any]:
        yield "later"


class Once(RestrictionProvider):
    def initial_restriction(self, element: Any) -> OffsetRange:
        return OffsetRange(0, 1)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element: Any, restriction: OffsetRange) -> int:
        return 1


ONCE = beam.DoFn.RestrictionParam(Once())


class Splitting(beam.DoFn):
    """A splittable DoFn that ends."""

    def process(self, element: Any, tracker: Any = ONCE) -> Iterator[Any]:
        if tracker.try_claim(0):
            yield element


class ByParity(beam.DoFn):
    def process(self, element: Any) -> Iterator[Any]:
        yield TaggedOutput("odd", element)
        yield element


class Outer(beam.PTransform):
    """A composite around a step, for the step's label."""

    def __init__(self, inner: beam.PTransform) -> None:
        super().__init__()
        self._inner = inner

    def expand(self, rows: beam.PCollection[Any]) -> Any:
        return rows | "Inner" >> self._inner


def keyed(step: beam.PTransform) -> Callable[[Any], Any]:
    return lambda rows: rows | "Key" >> beam.Map(lambda row: ("k", row)) | "Step" >> step


def source(pipeline: beam.Pipeline) -> Any:
    return pipeline | "Read" >> ReadMessages(False, subscription="projects/p/subscriptions/sub")


def few(pipeline: beam.Pipeline, label: str = "Few") -> Any:
    return pipeline | label >> beam.Create([1, 2, 3])


# Steps that end a stage: (adds the step to a PCollection, the step's name, what it does).
BARRIERS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "group": (keyed(beam.GroupByKey()), "Step", "groups by key"),
    "group in a composite": (keyed(Outer(beam.GroupByKey())), "Step/Inner", "groups by key"),
    "combine": (keyed(beam.CombinePerKey(sum)), "Step/GroupByKey", "groups by key"),
    "reshuffle": (lambda rows: rows | "Step" >> beam.Reshuffle(), r"Step/.*GroupByKey", "groups by key"),
    "count": (lambda rows: rows | "Step" >> beam.combiners.Count.PerElement(), r"Step/.*GroupByKey", "groups by key"),
    "distinct": (lambda rows: rows | "Step" >> beam.Distinct(), r"Step/.*GroupByKey", "groups by key"),
    "state": (keyed(beam.ParDo(Counting())), "Step", "keeps state or timers"),
    "timers": (keyed(beam.ParDo(Timing())), "Step", "keeps state or timers"),
    "batches by key": (keyed(beam.GroupIntoBatches(10)), "Step/.*", "keeps state or timers"),
    "splittable": (lambda rows: rows | "Step" >> beam.ParDo(Splitting()), "Step", "is a splittable DoFn"),
    "side input": (
        lambda rows: rows | "Step" >> beam.Map(lambda row, n: row, AsSingleton(few(rows.pipeline))),
        "Step",
        "has a side input",
    ),
    "side input of itself": (
        lambda rows: rows | "Step" >> beam.Map(lambda row, each: row, AsIter(rows)),
        "Step",
        "has a side input",
    ),
    "side input in a composite": (
        lambda rows: rows | "Step" >> Outer(beam.FlatMap(lambda row, n: [row], n=AsIter(few(rows.pipeline)))),
        "Step/Inner",
        "has a side input",
    ),
    "flatten with itself": (lambda rows: (rows, rows) | "Step" >> beam.Flatten(), "Step", "flattens"),
    "flatten with another": (
        lambda rows: (few(rows.pipeline), rows) | "Step" >> beam.Flatten(),
        "Step",
        "flattens",
    ),
    "flatten of one": (lambda rows: (rows,) | "Step" >> beam.Flatten(), "Step", "flattens"),
}
# Steps that are fused.
PLAIN: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda rows: rows,
    "map": lambda rows: rows | "Map" >> beam.Map(str),
    "windows": lambda rows: rows | "Window" >> beam.WindowInto(FixedWindows(60)),
    "values": lambda rows: rows | "Pair" >> beam.Map(lambda row: (1, row)) | "Values" >> beam.Values(),
    "a composite": lambda rows: rows | "Outer" >> Outer(beam.Filter(bool)),
    "several outputs": lambda rows: (rows | "Split" >> beam.ParDo(ByParity()).with_outputs("odd", main="all"))["odd"],
    "failures beside": lambda rows: (rows | "Try" >> beam.Map(int).with_exception_handling())[1],
}


def refusal(pipeline: beam.Pipeline) -> str:
    with pytest.raises(UsageError) as error:
        check_fused(pipeline)
    return str(error.value)


@pytest.mark.parametrize("barrier", BARRIERS)
def test_what_ends_a_stage_behind_the_source_is_refused(barrier: str) -> None:
    step, name, what = BARRIERS[barrier]
    pipeline = beam.Pipeline()
    # Beam itself refuses to group an unbounded PCollection in the global window.
    step(source(pipeline) | "Minutes" >> beam.WindowInto(FixedWindows(60))) | "After" >> beam.Map(print)
    label = refusal(pipeline).split("'")[1]
    assert re.fullmatch(name, label)
    assert refusal(pipeline) == f"the step '{label}' {what}: {REMEDY}"


@pytest.mark.parametrize("barrier", BARRIERS)
def test_in_a_branch_that_does_not_come_from_the_source_it_is_fine(barrier: str) -> None:
    pipeline = beam.Pipeline()
    source(pipeline) | "Map" >> beam.Map(str)
    BARRIERS[barrier][0](few(pipeline, "Other")) | "After" >> beam.Map(print)
    check_fused(pipeline)


@pytest.mark.parametrize("barrier", BARRIERS)
def test_before_the_source_it_is_fine(barrier: str) -> None:
    pipeline = beam.Pipeline()
    pull = source(pipeline).producer.transform.fn
    subscriptions = BARRIERS[barrier][0](few(pipeline, "Subscriptions"))
    names = subscriptions | "Name" >> beam.Map(lambda row: "projects/p/subscriptions/sub").with_output_types(str)
    names | "PullThem" >> beam.ParDo(pull) | "Map" >> beam.Map(str)
    check_fused(pipeline)


@pytest.mark.parametrize("plain", PLAIN)
def test_what_is_fused_is_fine(plain: str) -> None:
    pipeline = beam.Pipeline()
    PLAIN[plain](source(pipeline)) | "Write" >> beam.Map(print)
    check_fused(pipeline)


@pytest.mark.parametrize("plain", PLAIN)
def test_it_is_found_behind_what_is_fused(plain: str) -> None:
    pipeline = beam.Pipeline()
    PLAIN[plain](source(pipeline)) | "Settle" >> beam.Reshuffle()
    assert refusal(pipeline).startswith("the step 'Settle/")


def test_a_fan_out_with_several_outputs_is_fine() -> None:
    pipeline = beam.Pipeline()
    rows = source(pipeline)
    outputs = rows | "Split" >> beam.ParDo(ByParity()).with_outputs("odd", main="all")
    for number, branch in enumerate((rows, rows, outputs["odd"], outputs["all"])):
        branch | f"Map{number}" >> beam.Map(str) | f"Write{number}" >> beam.Map(print)
    check_fused(pipeline)


@pytest.mark.parametrize("place", range(3))
def test_one_branch_of_several_is_enough(place: int) -> None:
    pipeline = beam.Pipeline()
    outputs = source(pipeline) | "Split" >> beam.ParDo(ByParity()).with_outputs("odd", "even", main="all")
    for number, branch in enumerate((outputs["all"], outputs["odd"], outputs["even"])):
        written = branch | f"Write{number}" >> beam.Map(str)
        if number == place:
            written | "Settle" >> beam.Reshuffle()
    assert refusal(pipeline).startswith("the step 'Settle/")


def test_a_side_input_that_comes_from_the_source_is_refused_wherever_it_goes() -> None:
    pipeline = beam.Pipeline()
    rows = source(pipeline)
    few(pipeline) | "Lookup" >> beam.Map(lambda row, each: row, AsIter(rows))
    assert refusal(pipeline) == f"the step 'Lookup' has a side input: {REMEDY}"


def test_what_comes_behind_a_side_input_from_the_source_is_named_only_after_it() -> None:
    pipeline = beam.Pipeline()
    looked_up = few(pipeline) | "Lookup" >> beam.Map(lambda row, each: row, AsIter(source(pipeline)))
    looked_up | "Settle" >> beam.Reshuffle()
    assert refusal(pipeline).startswith("the step 'Lookup' ")


def test_two_sources_are_both_followed() -> None:
    pipeline = beam.Pipeline()
    source(pipeline) | "Map" >> beam.Map(str)
    other = pipeline | "ReadOther" >> ReadMessages(False, subscription="projects/p/subscriptions/other")
    other | "Settle" >> beam.Reshuffle()
    assert refusal(pipeline).startswith("the step 'Settle/")


def test_a_graph_without_an_unbounded_source_is_fine() -> None:
    pipeline = beam.Pipeline()
    few(pipeline) | "Split" >> beam.ParDo(Splitting()) | "Settle" >> beam.Reshuffle()
    check_fused(pipeline)

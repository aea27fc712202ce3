"""The time of each phase of a job."""

import time

import pytest

from sluice.pipelines.progress.phases import COMMIT, IMPORTS, PLAN, RUN, Phases, process_age, rounded_phases
from tests.support.fakes import FakeClock

NONE = dict.fromkeys(("imports", "plan", "model_load", "run", "commit"))


def test_phases_are_timed_and_noted() -> None:
    clock = FakeClock()
    phases = Phases(clock)
    with phases.timed(IMPORTS, before=0.5):
        clock.advance(2.0)
    with pytest.raises(ValueError), phases.timed(PLAN):
        clock.advance(0.25)
        raise ValueError
    phases.note(RUN, 3.0)
    phases.note(COMMIT, None)
    assert phases.seconds() == NONE | {"imports": 2.5, "plan": 0.25, "run": 3.0}
    assert phases.text() == "imports 2.50 s, plan 0.25 s, run 3.00 s"


def test_all_phases_have_a_key_in_their_order() -> None:
    assert list(Phases().seconds()) == list(NONE)
    assert rounded_phases(Phases().seconds()) == NONE
    assert rounded_phases({"run": 1.23456}) == {"run": 1.235}


def test_this_process_is_older_than_this_test() -> None:
    before = process_age()
    assert 0 < before <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert process_age() >= before

"""Every test model, and every model of the zoo, by both loaders: for the same batch the same answers, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from sluice.models import zoo
from sluice.models.tensors.binding import Feeds, bind
from tests.support.saved_models.cases import CASES
from tests.support.saved_models.rows import feeds_of
from tests.support.saved_models.twins import Twins, same
from tests.support.saved_models.zoo import ZooSample


def check(twins: Twins, batches: list[Feeds]) -> None:
    assert batches
    for feeds in batches:
        tensors = [feeds[spec.name] for spec in twins.signature.inputs]
        found, wanted = twins.native(tensors), twins.twin([np.asarray(tensor) for tensor in tensors])
        for name, one, other in zip(twins.fetches, found, wanted, strict=True):
            assert same(one, other), name
    twins.close()


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_test_model(name: str, cases: Callable[[str], str]) -> None:
    case = next(case for case in CASES if case.name == name)
    twins = Twins(cases(name), case.signature)
    check(twins, feeds_of(case, twins.signature))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_model_of_the_zoo(name: str, zoo_samples: Mapping[str, ZooSample]) -> None:
    sample = zoo_samples[name]
    twins = Twins(f"{sample.model}/1")
    groups = bind(sample.batch(), twins.signature, {}).groups
    assert sum(group.size for group in groups) == sample.rows
    check(twins, [group.feeds for group in groups])

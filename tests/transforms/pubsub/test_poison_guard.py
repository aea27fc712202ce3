"""How many messages may be held that were delivered before."""

import pytest

from sluice.transforms.pubsub.poison_guard import PoisonGuard, is_suspect, most_in_bundle
from sluice.transforms.pubsub.subscription import Received


def message(delivery: int) -> Received:
    return Received(f"ack-{delivery}", b"", "1", 0, {}, "", delivery)


@pytest.mark.parametrize(("delivery", "most"), [(0, 500), (1, 500), (2, 64), (3, 8), (4, 1), (100, 1)])
def test_the_more_often_delivered_the_less_company(delivery: int, most: int) -> None:
    assert most_in_bundle(message(delivery), 500) == most
    assert most_in_bundle(message(delivery), 5) == min(5, most)
    assert is_suspect(message(delivery)) == (delivery > 1)


def test_what_is_new_is_soon_pulled_by_the_thousand() -> None:
    allowance = PoisonGuard(3000)
    seen = [allowance.value]
    while seen[-1] < 3000:
        allowance.note([message(1)])
        seen.append(allowance.value)
    assert seen == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3000]
    allowance.note([])
    assert allowance.value == 3000


@pytest.mark.parametrize(("delivery", "value"), [(2, 256), (3, 16), (4, 1), (9, 1)])
def test_a_suspect_makes_wary_for_good(delivery: int, value: int) -> None:
    allowance = PoisonGuard(3000)
    for _ in range(20):
        allowance.note([message(0)])
    allowance.note([message(1), message(delivery), message(1)])
    assert allowance.value == value
    allowance.note([])
    allowance.note([message(1)] * 50)
    assert allowance.value == value + 1


def test_no_more_than_there_is_room_for() -> None:
    allowance = PoisonGuard(5)
    allowance.note([message(2)])
    assert allowance.value == 5

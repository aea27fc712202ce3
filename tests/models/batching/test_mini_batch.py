"""Operations on mini-batches."""

from __future__ import annotations

import numpy as np
import pytest

from sluice.models.batching.mini_batch import byte_count, merge, merge_key, pad, padded_size, row_count, slice_feeds
from sluice.models.tensors.binding import Feeds


def strings(*values: bytes) -> np.ndarray:
    return np.array(values, object)


def test_slices_merge_back() -> None:
    feeds = {"x": np.arange(7), "s": strings(*b"a b c d e f g".split())}
    parts = [slice_feeds(feeds, start, stop) for start, stop in ((0, 2), (2, 2), (2, 7))]
    assert [row_count(part) for part in parts] == [2, 0, 5]
    merged = merge(parts)
    assert merged["x"].tolist() == feeds["x"].tolist() and merged["s"].tolist() == feeds["s"].tolist()
    assert merge([feeds]) is feeds
    assert np.shares_memory(parts[2]["x"], feeds["x"])


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"b": np.zeros((5, 2)), "a": strings(b"longer")}, True),
        ({"b": np.zeros((1, 3)), "a": strings(b"a")}, False),
        ({"b": np.zeros((1, 2), np.float32), "a": strings(b"a")}, False),
        ({"b": np.zeros((1, 2)), "c": strings(b"a")}, False),
        ({"b": np.zeros((1, 2))}, False),
    ],
)
def test_requests_go_together_if_names_dtypes_and_inner_shapes_agree(other: Feeds, same: bool) -> None:
    assert (merge_key({"a": strings(b"a"), "b": np.zeros((1, 2))}) == merge_key(other)) is same


@pytest.mark.parametrize(
    ("feeds", "count"),
    [
        ({"x": np.zeros((3, 4), np.float32)}, 48),
        ({"x": np.zeros(0), "s": strings()}, 0),
        ({"s": strings(*[b"12345"] * 1000)}, 1000 * (5 + 41)),
        ({"s": strings(*[b"", b"1234567890"] * 8)}, 16 * (5 + 41)),
        ({"x": np.zeros(2), "s": strings(b"ab", b"abcd").reshape(2, 1)}, 16 + 2 * (3 + 41)),
    ],
)
def test_bytes_of_strings_count_with_the_objects_around_them(feeds: Feeds, count: int) -> None:
    assert byte_count(feeds) == byte_count(feeds, exact=True) == count


def test_bytes_are_exact_where_asked_for() -> None:
    for large in (0, 50, 5000):
        values = [b"x" * 3] * 99 + [b"y" * large]
        assert byte_count({"s": strings(*values)}, exact=True) == 99 * 3 + large + 100 * 41


@pytest.mark.parametrize(
    ("rows", "allowed", "size"),
    [(5, (), 5), (5, (8, 4, 16), 8), (4, (4, 8), 4), (17, (4, 16), 17), (0, (4,), 4)],
)
def test_padded_size(rows: int, allowed: tuple[int, ...], size: int) -> None:
    assert padded_size(rows, allowed) == size


def test_padding_repeats_the_last_row() -> None:
    feeds = {"x": np.array([[1, 2], [3, 4]]), "s": strings(b"a", b"b")}
    padded = pad(feeds, 4)
    assert padded["x"].tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]
    assert padded["s"].tolist() == [b"a", b"b", b"b", b"b"]
    assert pad(feeds, 2) is feeds

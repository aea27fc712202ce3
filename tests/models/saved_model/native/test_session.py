"""The C API against a Session of Python TensorFlow: the same bits, whatever becomes of the memory that was fed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sluice.models.devices import DeviceOptions
from sluice.models.saved_model.reasons import NoSuchTensor, TensorFlowError
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.strings import Strings
from tests.support.saved_models.cases import CASES
from tests.support.saved_models.stateful import STATEFUL
from tests.support.saved_models.twins import Lent, Twins, same
from tests.support.sizes import example_count, size

Open = Callable[..., Twins]

# A property is tried on many batches of one model.
PROPERTY = settings(max_examples=example_count(24), deadline=None, suppress_health_check=list(HealthCheck))
_TEXTS = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"x" * 22, b"x" * 23, b"y" * 3000]))


@pytest.fixture
def opened(cases: Callable[[str], str]) -> Iterator[Open]:
    twins: list[Twins] = []

    def open_(name: str, **options: Any) -> Twins:
        twins.append(Twins(cases(name), **options))
        return twins[-1]

    yield open_
    for each in twins:
        each.close()


def values_of(spec: TensorSpec, rows: int) -> st.SearchStrategy[np.ndarray]:
    """Any tensors of this spec, with so many rows."""
    shape = (rows, *(2 if size is None else size for size in spec.row_shape))
    if spec.dtype == "string":
        return st.lists(_TEXTS, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
            lambda values: objects(values).reshape(shape)
        )
    return arrays.arrays(np.uint8, (*shape, spec.numpy_dtype.itemsize)).map(
        lambda raw: (raw & 1 if spec.dtype == "bool" else raw).view(spec.numpy_dtype).reshape(shape)
    )


def objects(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def feeds_of(signature: Signature, data: st.DataObject) -> list[np.ndarray]:
    fixed = [spec.shape[0] for spec in signature.inputs if spec.shape and spec.shape[0]]
    rows = fixed[0] if fixed else data.draw(st.integers(0, 9))
    return [data.draw(values_of(spec, rows)) for spec in signature.inputs]


def answer(call: Callable[[Any], list[Any]], feeds: Any) -> list[Any] | str:
    try:
        return call(feeds)
    except TensorFlowError as error:
        return f"{error.code}: {error.message}".split(" [[")[0]


def agree(found: list[Any] | str, wanted: list[Any] | str) -> bool:
    if isinstance(found, str) or isinstance(wanted, str):
        return isinstance(found, str) == isinstance(wanted, str)
    return len(found) == len(wanted) and all(map(same, found, wanted))


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_every_model_answers_as_the_python_session(name: str, cases: Callable[[str], str]) -> None:
    case = next(case for case in CASES if case.name == name)
    twins = Twins(cases(name), case.signature)

    @PROPERTY
    @given(st.data())
    def check(data: st.DataObject) -> None:
        feeds = feeds_of(twins.signature, data)
        lent = Lent(feeds, data.draw(st.sampled_from([0, 1, 8])))
        found = answer(twins.either(data.draw(st.booleans())), lent.tensors)
        lent.spoil()
        assert agree(found, answer(twins.twin, feeds))

    check()
    assert twins.native.keeper == ""
    twins.close()


@pytest.mark.parametrize("name", STATEFUL)
def test_what_is_fed_may_be_overwritten_after_the_call(name: str, opened: Open) -> None:
    twins = opened(name)
    assert bool(twins.native.keeper) == STATEFUL[name][1]

    @PROPERTY
    @given(st.data())
    def check(data: st.DataObject) -> None:
        for _ in range(3):  # what a call has kept shows in a later one
            feeds = feeds_of(twins.signature, data)
            feeds = [np.where(array == b"\1", b"", array) if array.dtype == object else array for array in feeds]
            lent = Lent(feeds, data.draw(st.sampled_from([0, 8])))
            found = answer(twins.native, lent.tensors)
            lent.spoil()
            assert agree(found, answer(twins.twin, feeds))

    check()


def echo_feeds(random: np.random.Generator, rows: int, fails: bool) -> list[np.ndarray]:
    number = random.random((rows, 3), np.float32) * 2
    number[rows // 2] -= 9.0 * fails
    return [number, objects([bytes(random.integers(0, 255, size, np.uint8)) for size in random.integers(0, 60, rows)])]


@pytest.mark.slow
@pytest.mark.soak
def test_eight_threads_with_a_tenth_of_the_calls_failing(opened: Open) -> None:
    twins = opened("echo")
    wrong: list[Any] = []
    turns = size(30, soak=150)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for turn in range(turns):
            fails = turn % 10 == 3
            feeds = echo_feeds(random, int(random.integers(1, 300)), fails)
            lent = Lent(feeds)
            found = answer(twins.native, lent.tensors)
            lent.spoil()
            number, text = feeds
            if isinstance(found, str) != fails:
                wrong.append((seed, turn, found))
            elif not fails:
                named = dict(zip([spec.name for spec in twins.signature.outputs], found, strict=True))
                if named["same"].tolist() != text.tolist() or not same(named["numbers"], number):
                    wrong.append((seed, turn))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


_KINDS = st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())])


def test_slices_offsets_and_nulls_of_arrow_reach_the_model(opened: Open) -> None:
    """Columns as readers make them: parts of larger buffers, with nulls, which are empty strings."""
    twins = opened("echo")

    @PROPERTY
    @given(
        st.lists(st.one_of(st.none(), _TEXTS), max_size=30), _KINDS, st.integers(0, 9), st.integers(0, 9), st.booleans()
    )
    def check(values: list[bytes | None], kind: pa.DataType, before: int, behind: int, reused: bool) -> None:
        whole = [b"-" * 30] * before + values + [b"+" * 30] * behind
        plain = pa.array(whole, pa.binary())
        array = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
        strings = Strings.of(array.slice(before, len(values)))
        texts = objects([value or b"" for value in values])
        number = np.ones((len(values), 3), np.float32)
        found, wanted = answer(twins.either(reused), [number, strings]), answer(twins.twin, [number, texts])
        del array, plain, strings
        assert not isinstance(found, str) and agree(found, wanted)

    check()


@pytest.mark.soak
def test_strings_of_megabytes(opened: Open) -> None:
    twins = opened("echo")
    texts = objects([b"a" * size(5 << 20, soak=40 << 20), b"", b"b" * (3 << 20)])
    feeds = [np.ones((3, 3), np.float32), texts]
    assert agree(twins.native(Lent(feeds).tensors), twins.twin(feeds))


def test_arrays_in_other_orders_and_of_objects(opened: Open) -> None:
    twins = opened("echo")
    number = np.arange(12, dtype=np.float32).reshape(3, 4).T[::-1].astype(">f4")
    texts = objects([b"d", b"c" * 30, b"", b"a"])[::-1]
    assert agree(twins.native([number, texts]), twins.twin([number, texts]))
    strings = Strings.of(pa.array(["-", None, "c" * 30, "d", "+"]).slice(1, 4))
    found = dict(zip(twins.fetches, twins.native([number, strings]), strict=True))
    assert [b"", b"c" * 30, b"d", b"+"] in [np.asarray(value).tolist() for value in found.values()]


def test_what_tensorflow_refuses_is_an_error_and_the_session_stays_usable(opened: Open) -> None:
    twins = opened("echo")
    number, text = np.ones((2, 3), np.float32), objects([b"a", b"b"])
    for feeds in (
        [number.astype(np.float64), text],
        [text, number],
        [number, objects([b"a", None])],
        [number, np.array(["2020-01-01"], "datetime64[D]")],
        [number, objects([b"a"] * 3)],
    ):
        with pytest.raises(TensorFlowError) as caught:
            twins.native(feeds)
        assert caught.value.code == 3
    assert len(twins.native([number, text])) == len(twins.fetches)


def test_a_name_that_the_graph_lacks(opened: Open) -> None:
    session = opened("echo").session
    for name in ("nothing:0", "serving_default_text:1", "serving_default_text:x", "", ":0"):
        with pytest.raises(NoSuchTensor):
            session.prepare([], [name])


def test_what_is_fed_can_be_fetched(opened: Open) -> None:
    twins = opened("echo")
    call = twins.session.prepare(twins.feeds, [*twins.fetches, *twins.feeds])
    number, text = np.ones((1, 3), np.float32), objects([b"a"])
    found = call([number, text])
    assert len(found) == len(twins.fetches) + 2
    assert same(found[-2], number) and same(found[-1], text) and found[-2] is not number


def test_a_call_in_a_fork_is_refused_and_does_not_hang(opened: Open) -> None:
    twins = opened("echo")
    child = os.fork()
    if not child:
        try:
            twins.native([np.ones((1, 3), np.float32), objects([b"a"])])
        except RuntimeError as error:
            twins.session.close()
            os._exit(7 if "Start processes by spawn" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert twins.native([np.ones((1, 3), np.float32), objects([b"a"])])


def test_a_closed_session_is_not_called(opened: Open) -> None:
    twins = opened("echo")
    twins.session.close()
    twins.session.close()
    with pytest.raises(RuntimeError, match="closed"):
        twins.native([np.ones((1, 3), np.float32), objects([b"a"])])


def test_devices_are_listed(opened: Open) -> None:
    devices = opened("echo", devices=DeviceOptions(cpu_devices=2)).session.devices()
    assert list(devices) == ["CPU:0", "CPU:1"] and min(devices.values()) > 0


@pytest.mark.slow
def test_memory_does_not_grow(opened: Open) -> None:
    twins = opened("variables")
    random = np.random.default_rng(1)
    feeds = [random.random(2000, np.float32), objects([b"x" * 100] * 2000)]
    lent = Lent(feeds)
    sizes = []
    for _ in range(3):
        for _ in range(300):
            twins.native(lent.tensors)
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[0] < 40 << 20  # all that was fed is 190 MB between them


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

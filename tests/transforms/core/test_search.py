import hypothesis
from hypothesis import strategies as st

from sluice.transforms.core.search import holds

_DATA = st.binary(max_size=40) | st.text("ab\0", max_size=40).map(str.encode)
_TEXT = st.binary(min_size=1, max_size=3) | st.text("ab\0", min_size=1, max_size=3).map(str.encode)


@hypothesis.given(_DATA, _TEXT, st.integers(0, 5), st.integers(0, 5))
def test_holds_is_in(data: bytes, text: bytes, start: int, end: int) -> None:
    part = data[start : max(start, len(data) - end)]
    assert holds(part, text) == (text in part)
    assert holds(memoryview(data)[start : max(start, len(data) - end)], text) == (text in part)

import shlex

import pytest

from sluice.pipelines.options.flags import parse_map
from sluice.pipelines.plan.names import find_alike, map_flags


@pytest.mark.parametrize(
    ("names", "columns", "taken", "expected"),
    [
        (["Sepal_Length"], ["Sepal.Length"], (), {"Sepal_Length": "Sepal.Length"}),
        (["age", "zip_code"], ["AGE", "Zip Code", "id"], (), {"age": "AGE", "zip_code": "Zip Code"}),
        (["x"], ["x ", "X"], (), {}),  # which one is not clear
        (["a_b", "ab"], ["A.B"], (), {}),  # nor here
        (["age"], ["Age"], ("Age",), {}),
        (["age"], ["ages"], (), {}),
        (["straße"], ["STRASSE"], (), {"straße": "STRASSE"}),
        (["arg_2000", "arg__x"], ["2000", "_x"], (), {"arg_2000": "2000", "arg__x": "_x"}),
        (["arg_x"], ["x", "arg.x"], (), {"arg_x": "arg.x"}),
    ],
)
def test_names_that_differ_in_signs_only(
    names: list[str], columns: list[str], taken: tuple[str, ...], expected: dict[str, str]
) -> None:
    assert find_alike(names, columns, taken) == expected


def test_the_flags_come_back_from_a_shell() -> None:
    pairs = [("a", "A"), ("b", "x, y"), ("c", " it's $HOME"), ("d", "1=2")]
    words = shlex.split(map_flags(pairs))
    assert words[::2] == ["--map"] * 4
    assert [pair for word in words[1::2] for pair in parse_map(word)] == pairs

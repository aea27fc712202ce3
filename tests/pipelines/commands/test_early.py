"""What a command begins before its own imports. tests/pipelines/test_startup.py runs it."""

import pytest

from sluice.pipelines.commands import early


@pytest.mark.parametrize(
    ("words", "opens"),
    [
        (["predict", "--model", "work/model", "--json", "{}"], True),
        (["predict", "--model=gs://bucket/model"], True),
        (["predict", "--model=grpc://localhost/m"], False),
        (["predict", "--model", "vertex://projects/p/locations/l/endpoints/1"], False),
        (["predict", "--model=grpc://"], False),
        (["predict", "--model"], False),
        (["predict", "--help"], False),
    ],
)
def test_the_library_is_opened_for_a_model_in_this_process(
    words: list[str], opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[bool] = []
    monkeypatch.setattr("sluice.models.saved_model.native.preload.begin_to_open", lambda: began.append(True))
    early.begin_early(words)
    assert began == [True] * opens

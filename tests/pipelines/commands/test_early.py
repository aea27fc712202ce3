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
        (["predict", "--model", "work/model", "--help"], False),
        (["predict", "-h", "--model=work/model"], False),
    ],
)
def test_the_library_is_opened_for_a_model_in_this_process(
    words: list[str], opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[bool] = []
    monkeypatch.setattr("sluice.models.saved_model.native.preload.begin_to_open", lambda: began.append(True))
    early.begin_early(words)
    assert began == [True] * opens


def test_a_python_need_not_have_all_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 has no _sha512, and many a Python is built without _bz2 or _lzma."""
    began: list[bool] = []
    monkeypatch.setattr("sluice.models.saved_model.native.preload.begin_to_open", lambda: began.append(True))
    monkeypatch.setattr(early, "_NATIVE", ("_no_such_module", "math"))
    early.begin_early(["predict", "--model=work/model"])
    assert began == [True]

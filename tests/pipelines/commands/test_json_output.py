"""JSON on standard output."""

import io
import sys

import pytest

from sluice.pipelines.commands.json_output import write_json


def test_json_is_utf8_in_every_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    write_json('{"größe": "5 €"}\n')
    sys.stdout.flush()
    assert written.getvalue() == '{"größe": "5 €"}\n'.encode()


def test_what_is_no_file_is_written_to_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter and tests have such streams."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    write_json("[]\n")
    assert sys.stdout.getvalue() == "[]\n"  # type: ignore[attr-defined]

"""Where workers of other processes leave what they have seen."""

import atexit
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.pipelines.report import launch


def test_on_this_machine_no_other_user_reads_it_and_it_goes_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[Callable[[], object]] = []
    monkeypatch.setattr(atexit, "register", lambda work, *given, **named: at_exit.append(lambda: work(*given, **named)))
    monkeypatch.setattr(launch.tempfile, "tempdir", str(tmp_path))
    directory = launch._private_directory()
    assert os.path.dirname(directory) == str(tmp_path)
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    Path(directory, "inputs.json").write_text("{}")
    at_exit.pop()()
    assert not os.path.exists(directory) and at_exit == []

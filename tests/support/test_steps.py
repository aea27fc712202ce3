"""Steps that one process runs: each is told what it has imported, and how it ended."""

from pathlib import Path

from tests.support.steps import Step, run_steps


def test_a_step_is_told_what_is_wrong_with_it(tmp_path: Path) -> None:
    steps = {
        "right": Step("assert NAME == 'value'", {"colorsys"}),
        "imports": Step("import colorsys", {"colorsys", "wave"}),
        "fails": Step("raise ValueError('told')", set()),
        "ends": Step("import sys\nprint('said', file=sys.stderr)\nsys.exit(3)", set()),
        "right again": Step("import colorsys", {"wave"}),
    }
    wrong = run_steps(steps, tmp_path, NAME="value")
    assert (wrong["right"], wrong["right again"]) == ("", "")
    assert wrong["imports"].startswith("imported: {'colorsys'}")
    assert "ValueError: told" in wrong["fails"]
    assert "SystemExit: 3" in wrong["ends"] and "said" in wrong["ends"]

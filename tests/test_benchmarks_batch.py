"""The benchmarks of whole processes and of Python's lock reckon and print what they saw."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import batch, lock
from benchmarks.batch import Contender, Cost
from benchmarks.checkouts import ROOT, Checkout, checkouts
from benchmarks.lock import Held, Turn

COSTS = {
    ("Sluice", 2): [Cost(4.0, 5.0, 400), Cost(5.0, 5.0, 400), Cost(4.5, 5.0, 400)],
    ("Sluice", 200_000): [Cost(5.0, 6.0, 500), Cost(6.0, 6.0, 500), Cost(5.5, 6.0, 500)],
    ("Sluice", 1_000_000): [Cost(9.0, 12.4, 600), Cost(10.8, 12.4, 620), Cost(8.7, 14.0, 600)],
    ("tfx_bsl RunInference", 2): [Cost(9.0, 9.0, 700)] * 3,
    ("tfx_bsl RunInference", 20_000): [Cost(13.0, 12.0, 800)] * 3,
}


def test_the_table_has_a_line_for_each_contender() -> None:
    _, _, sluice, tfx = batch.table(COSTS, batch.SIZES)
    assert sluice == (
        "| Sluice | 4.50 (4.00 to 5.00) | 5.50 (5.00 to 6.00) | 9.00 (8.70 to 10.80) | 111,111 | 5.00 (4.00 to 6.00) | "
        "8.00 (8.00 to 10.00) | 620 |"
    )
    assert tfx == (
        "| tfx_bsl RunInference (to 20,000 rows) | 9.00 (9.00 to 9.00) |  |  |  | 200.02 (200.02 to 200.02) | "
        "150.02 (150.02 to 150.02) | 800 |"
    )


def test_the_first_contender_is_compared_with_the_others_where_both_were_measured() -> None:
    assert batch.comparisons(COSTS, batch.SIZES) == [
        "- tfx_bsl RunInference takes as long as Sluice 2.0 times at 2 rows."
    ]
    assert "# Batch inference, side by side" in batch.report({"csv": COSTS}, batch.SIZES, 60)


def test_contenders_alternate_and_go_back_and_forth() -> None:
    one, two = (Contender(name, lambda *_: [], {}, ROOT, sizes) for name, sizes in (("a", (2, 9)), ("b", (2,))))
    for backwards, names in ((False, "aba"), (True, "baa")):
        turns = list(batch._in_turn({"csv": [one, two]}, backwards))
        assert "".join(contender.name for _, _, contender in turns) == names
        assert [rows for _, rows, _ in turns] == [2, 2, 9]


def test_each_checkout_takes_part_in_its_own_environment(tmp_path: Path) -> None:
    sides = checkouts(str(tmp_path))
    found = batch.contenders("csv", sides, batch.SIZES, quick=False)
    assert [each.name for each in found[:2]] == ["Sluice", f"Sluice of {tmp_path.name}"]
    assert found[1].directory == found[1].environment["PYTHONPATH"] == str(tmp_path)
    assert found[1].command("in.csv", "out")[0] == sys.executable
    assert {batch.TFX_BSL: (2, 20_000)}.items() <= {each.name: each.sizes for each in found}.items()
    assert batch.TFX_BSL not in [each.name for each in batch.contenders("csv", sides, batch.QUICK_SIZES, quick=True)]


def test_a_job_with_a_report_is_measured_beside_one_without() -> None:
    found = batch.contenders("csv", checkouts(None), batch.SIZES, quick=False)
    without, with_ = batch.named(found, batch.REPORTED)
    command = without.command("in.csv", "some/out")
    assert with_.command("in.csv", "some/out") == [*command, "--report_file=some/report.html"]
    assert with_.sizes == without.sizes


@pytest.mark.parametrize(
    ("script", "error"), [("raise SystemExit('no model')", "failed:\nno model"), ("", "wrote 0 of 2")]
)
def test_a_contender_that_does_not_do_the_job_is_told(script: str, error: str) -> None:
    contender = Contender("bad", lambda *_: [sys.executable, "-c", script], {}, ROOT, (2,))
    with pytest.raises(RuntimeError, match=error):
        batch.run(contender, "csv", 2)


RAW = """\
process 1:"python";serve (lock_child.py:41);bind (sluice/models/binding.py:67) 30
process 1:"python";serve (lock_child.py:41);bind (sluice/models/binding.py:70) 10
process 1:"python";serve (lock_child.py:41);work (sluice/a b.py:2) 10
"""


def test_stacks_of_py_spy_are_counted() -> None:
    held = lock.parse(RAW, rate=100)
    assert held.secs == 0.5
    assert held.by_function() == {"bind (sluice/models/binding.py)": 40, "work (sluice/a b.py)": 10}
    assert (held - lock.parse(RAW.splitlines()[0], rate=100)).secs == pytest.approx(0.2)


def test_checkouts_are_compared_by_format() -> None:
    def turns(*held_us: float) -> list[Turn]:
        return [Turn(1.0, each, 9.0, Held(Counter({"main (a.py:1)": 200}), 250)) for each in held_us]

    found = {("csv", "this checkout"): turns(2.0, 1.0, 3.0), ("csv", "old"): turns(5.0)}
    assert lock.table(found, ["this checkout", "old"], ["csv"])[2] == (
        "| csv | 2.00 (1.00 to 3.00) | 5.00 (5.00 to 5.00) | 0.40 |"
    )
    assert lock.functions(found["csv", "this checkout"], 5) == ["   1.000 us  main (a.py)"]


def test_a_checkout_has_an_environment_of_its_own_or_this_one(tmp_path: Path) -> None:
    assert Checkout(str(tmp_path)).python == sys.executable
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert Checkout(str(tmp_path)).python == str(tmp_path / ".venv/bin/python")

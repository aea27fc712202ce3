"""What is found in a page, and what the shell of the examples does with it."""

import sys
from pathlib import Path

import pytest

from tests.support.pages.examples import DATAFLOW, EXPORT, FILE, OTHER, PYTHON, SLUICE, examples_of
from tests.support.pages.shell import ExampleError, run_line

PAGE = """Text with `sluice batch` in it.

```
sluice batch --model M \\
  --input 'a b.csv'   # a comment
sluice batch: the model takes 'x'
export PROJECT=p
./run_dataflow.sh status
make test
out/predictions.csv
```

```
$ sluice inspect --model M
Model    sluice serve
```

```json
{"sluice": "sluice batch"}
```

```
cat > b.yaml <<'END'
a: 1
END
sluice batch --config b.yaml
```

```bash
unknown --flag
```

```yaml job.yaml
model: m
```

<!-- not run: it has no end -->

```python
while True: pass
```

<!-- exit code 2 -->
```
sluice batch
sluice streaming --model M
```
"""


def test_what_is_found_in_a_page() -> None:
    found = [(each.line, each.kind, each.text, each.reason, each.code) for each in examples_of("p.md", PAGE)]
    assert found == [
        (4, SLUICE, "sluice batch --model M --input 'a b.csv'   # a comment", "", 0),
        (7, EXPORT, "export PROJECT=p", "", 0),
        (8, DATAFLOW, "./run_dataflow.sh status", "", 0),
        (9, OTHER, "make test", "installs, or runs for minutes", 0),
        (14, SLUICE, "$ sluice inspect --model M".removeprefix("$ "), "", 0),
        (23, FILE, "a: 1\n", "", 0),
        (26, SLUICE, "sluice batch --config b.yaml", "", 0),
        (30, OTHER, "unknown --flag", "", 0),
        (34, FILE, "model: m\n", "", 0),
        (40, PYTHON, "while True: pass", "it has no end", 0),
        (45, SLUICE, "sluice batch", "", 2),
        (46, SLUICE, "sluice streaming --model M", "needs Pub/Sub", 2),
    ]


@pytest.mark.parametrize(
    "text,reason",
    [
        ("sluice batch --input_table P.D.T", "needs BigQuery"),
        ("sluice batch --model vertex://projects/P/locations/L/models/M", "needs an account of Vertex AI"),
        ("sluice batch --model vertex://projects/local/locations/l/models/m", ""),
        ("sluice batch --input ...", "is shortened"),
        ("sluice batch --model DIR && sluice batch --model DIR", ""),
        ("sluice --help", ""),
        ("cat rows.jsonl | sluice predict --model DIR", ""),
    ],
)
def test_why_a_command_is_not_run(text: str, reason: str) -> None:
    (example,) = examples_of("p.md", f"```\n{text}\n```\n")
    assert (example.kind, example.reason) == (SLUICE, reason)


def echo(words: list[str]) -> int:
    print(" ".join(words), sys.stdin.read().strip())
    return 3 if "fail" in words else 0


def test_pipes_and_redirections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").write_text("from a file")
    assert run_line("sluice a < in", echo) == "a from a file\n"
    assert run_line("printf 'x|y\\n' | sluice b --mark '|' > out && cat out", echo) == "b --mark | x|y\n"
    assert run_line("sluice c; sluice d  # no more", echo) == "c \nd \n"
    assert run_line("sluice e | head -c 1", echo) == "e"


def test_what_goes_wrong_is_told() -> None:
    with pytest.raises(ExampleError, match="exit code 3") as error:
        run_line("sluice fail", echo)
    assert error.value.code == 3
    with pytest.raises(ExampleError, match="unknown is none of the programs"):
        run_line("unknown --flag", echo)
    with pytest.raises(ExampleError, match="& in a command"):
        run_line("sluice serve &", echo)

"""Flags in a file: each means what it means on the command line, which counts where both give one."""

import argparse
import dataclasses
import functools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import UsageError
from sluice.pipelines import cli
from sluice.pipelines.options import flags
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.config import config_text, read_settings, used_options, with_config, words_of
from sluice.pipelines.options.flags import SECRETS, from_namespace
from sluice.pipelines.options.parser import Parser
from sluice.pipelines.options.streaming import StreamingOptions
from tests.support.docs import fence
from tests.support.sizes import examples

FILES = {"model": "m", "input": "i.csv", "output": "o.csv"}


@functools.cache
def parsers() -> tuple[Parser, dict[str, Parser]]:
    return cli._parsers()


def parsed(path: Path, text: str, *typed: str, command: str = "batch") -> argparse.Namespace:
    path.write_text(text)
    parser, commands = parsers()
    words = with_config([command, f"--config={path}", *typed], commands, ("batch", "streaming"))
    args, rest = parser.parse_known_args(words)
    args.beam_flags = rest
    return args


def options(path: Path, text: str, *typed: str) -> BatchOptions:
    return from_namespace(BatchOptions, parsed(path, text, *typed))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


TEXT = """
# A nightly job.
model: gs://bucket/model
input: [a.csv, "b, c.csv"]
output: out/p.csv
overwrite: yes
warm_up: false
max_batch_size: 512
max_failure_rate: 5e-2
csv_delimiter: "\\t"
null_values: [NA, null, no, "a,b"]
columns: []
exclude_columns: x, y
column_defaults: {age: 030, name: "n, m"}
map:
- age=Age of person
- b=c,d
allowed_batch_sizes: [64, 8]
input_format:
  csv
signature: 010
runner: DataflowRunner
experiments: [a, b]
save_main_session: true
labels: "true"
"""


def test_what_a_file_gives(job: Path) -> None:
    args = parsed(job, TEXT)
    found = from_namespace(BatchOptions, args)
    assert found == BatchOptions(
        model="gs://bucket/model",
        input=("a.csv", "b, c.csv"),
        output="out/p.csv",
        overwrite=True,
        warm_up=False,
        max_batch_size=512,
        max_failure_rate=0.05,
        csv_delimiter="\t",
        null_values=("NA", "null", "no", "a,b"),
        columns=(),
        exclude_columns=("x", "y"),
        column_defaults=(("age", "030"), ("name", "n, m")),
        map=(("age", "Age of person"), ("b", "c,d")),
        allowed_batch_sizes=(8, 64),
        input_format="csv",
        signature="010",
    )
    assert args.beam_flags == [
        "--runner=DataflowRunner", "--experiments=a", "--experiments=b", "--save_main_session", "--labels=true"
    ]  # fmt: skip


def test_the_command_line_counts_also_for_what_may_be_repeated(job: Path) -> None:
    typed = ["--input", "z.csv", "--overwrite=false", "--null_values=-", "--runner", "DirectRunner"]
    args = parsed(job, TEXT, *typed)
    found = from_namespace(BatchOptions, args)
    assert (found.input, found.overwrite, found.null_values) == (("z.csv",), False, ("-",))
    assert found.output == "out/p.csv"
    assert args.beam_flags[-2:] == ["--runner", "DirectRunner"] and "--runner=DataflowRunner" not in args.beam_flags


def test_a_flag_of_the_command_line_takes_a_value_of_the_file_away(job: Path) -> None:
    found = options(job, json.dumps(FILES | {"limit": 3}), "--limit=0", "--input=", "--input_table=p.d.t",
                    "--failures_table=p.d.f", "--output=", "--output_table=p.d.o")  # fmt: skip
    assert (found.input, found.input_table, found.limit, found.output) == ((), "p.d.t", 0, "")


def test_json_is_a_file_of_flags_too(job: Path) -> None:
    assert options(job, json.dumps(FILES, indent=1)) == BatchOptions(**FILES)  # type: ignore[arg-type]


def test_a_file_without_flags(job: Path) -> None:
    flags_typed = [f"--{name}={value}" for name, value in FILES.items()]
    assert options(job, "# none yet\n", *flags_typed) == BatchOptions(**FILES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "text", "wanted"),
    [
        (
            "serve",
            "model: [a, b]\nname: [x, y]\nversions: [all, '1,2']\nlabels: {stable: 1, canary: 2}\n"
            "grpc_port: 0\ntensor_content: true\nwrong_rows: no\n",
            {"model": ["a", "b"], "name": ["x", "y"], "grpc_port": 0, "tensor_content": True, "wrong_rows": False},
        ),
        ("inspect", "model: m\njson: true\n", {"model": "m", "json": True}),
        ("simulate", "topic: projects/p/topics/t\nrate: 7.5\n", {"topic": "projects/p/topics/t", "rate": 7.5}),
        ("streaming", "model: m\nmap: {a: b}\n", {"model": "m", "map": (("a", "b"),)}),
        ("batch", "model: m\nverbose: true\n", {"verbose": True}),
        # A value of --set is JSON, and an endpoint a URI: a comma is part of them.
        ("replay", "to: t\nset: {tags: '[1,2]', n: 3}\n", {"set": (("tags", "[1,2]"), ("n", "3"))}),
        ("replay", "to: t\nset: ['tags=[1,2]', n=3]\n", {"set": (("tags", "[1,2]"), ("n", "3"))}),
        ("compare", "endpoint: ['grpc://h:1/a,b', 'rest://h:2']\n", {"endpoint": ("grpc://h:1/a,b", "rest://h:2")}),
    ],
)
def test_other_commands(command: str, text: str, wanted: dict[str, object], job: Path) -> None:
    args = parsed(job, text, command=command)
    assert {name: getattr(args, name) for name in wanted} == wanted
    if command == "serve":
        assert args.labels == [{"stable": 1, "canary": 2}] and len(args.versions) == 2


def test_a_comparison_takes_flags_of_its_jobs_from_a_file(job: Path) -> None:
    text = "input: i.csv\nexclude_columns: [x, y]\nnull_values: [NA, 'a,b']\nmap: {a: b}\nwarm_up: false\n"
    args = parsed(job, text, command="compare")
    assert args.input == ("i.csv",) and "--warm_up=false" in args.beam_flags
    jobs, _ = parsers()[1]["batch"].parse_known_args([*args.beam_flags, "--model=m"])
    assert (jobs.exclude_columns, jobs.null_values, jobs.map) == (("x", "y"), ("NA", "a,b"), (("a", "b"),))


BAD = [
    ("- a\n", "it holds no flags; give one a line, as NAME: VALUE"),
    ("model", "it holds no flags"),
    ("model: m\nmodel: n\n", "line 2: model is there twice; give one, with a list for several values"),
    ("model:\n", "line 1: model has no value; leave it out, or write ''"),
    ("\nmodel: null\n", "line 2: model has no value"),
    ("--model: m\n", "line 1: '--model' is no name of a flag; write it without dashes"),
    ("model: [m, n]\n", "line 1: model takes one value, and 2 are given in a list"),
    ("model: {m: n}\n", "line 1: model takes no names with values; give URI"),
    ("columns: {m: n}\n", "line 1: columns takes no names with values; give A,B,..."),
    ("map: {a: [b]}\n", "line 1: a text or number is expected, found a sequence within another"),
    ("map: {a: b, a: c}\n", "line 1: a name is there twice"),
    ("[1]: m\n", "line 1: a text or number is expected"),
    ("config: other.yaml\n", "line 1: 'config' is no flag for a file of sluice batch"),
    ("help: true\n", "line 1: 'help' is no flag for a file"),
    ("verbose: maybe\n", "line 1: verbose: expected true or false, found 'maybe'"),
    ("use_public_ips: false\n", "line 1: use_public_ips: false: flags of Beam's are given or left out"),
    ("dataflow_options: {a: b}\n", "line 1: dataflow_options is a flag of Beam's; write its value as one text"),
    ("model: 'm\n", "this is not YAML"),
    ("a: b: c\n", "line 1: this is not YAML: mapping values are not allowed here"),
    ("--- {a: b}\n--- {c: d}\n", "line 2: this is not YAML"),
    ("a: \x00", "this is not YAML"),
    ("rpc_headers: ['a=s3cret, x']\n", "line 1: rpc_headers: a value has a comma; give it by @FILE"),
    ("rpc_headers: {a: 's3cret,x'}\n", "line 1: rpc_headers: a value has a comma; give it by @FILE"),
    ("rpc_headers: s3cret: x\n", "line 1: this is not YAML"),
    ("rpc_headers: [[s3cret]]\n", "line 1: a text or number is expected, found a sequence"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_what_is_no_file_of_flags(text: str, words: str, job: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(job, text)
    told = str(caught.value)
    assert str(job) in told and words in told and "s3cret" not in told


def told_by(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    try:
        code: object = cli.main([*typed])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "usage:" not in told
    return told


@pytest.mark.parametrize(
    ("command", "text", "words"),
    [
        ("batch", "modle: m\n", ["required: --model", "--modle: did you mean --model?", "(--modle is in "]),
        ("serve", "modle: m\n", ["'modle' is no flag for a file of sluice serve; --modle: did you mean --model?"]),
        ("batch", "max_batch_size: many\nmodel: m\n", ["invalid int value: 'many'", "(--max_batch_size is in "]),
        ("batch", json.dumps(FILES | {"max_failure_rate": 2}), ["--max_failure_rate 2:", "(--max_failure_rate is in "]),
        ("batch", json.dumps(FILES | {"input_format": "cvs"}), ["did you mean csv?", "(--input_format is in "]),
        ("replay", "to: t\n", ["--to t: a topic is expected", "(--to is in "]),
    ],
)
def test_an_error_says_that_the_flag_is_in_the_file(
    command: str, text: str, words: list[str], job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job.write_text(text)
    told = told_by(capsys, command, f"--config={job}")
    assert [each for each in words if each not in told] == [] and "job.yaml" in told


def test_a_flag_that_nobody_has(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job.write_text(json.dumps(FILES | {"colums": "a", "progress": "none"}))
    assert cli.main(["batch", "--config", str(job)]) == 2
    told = capsys.readouterr().err
    assert f"neither Sluice nor Beam has such a flag; did you mean --columns? (--colums is in {job})" in told


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.yaml"
    assert f"--config {path} cannot be read: No such file" in told_by(capsys, "batch", f"--config={path}")
    path.write_bytes(b"model: \xff")
    assert "it is not a text file in UTF-8" in told_by(capsys, "batch", f"--config={path}")
    assert "--config is given 2 times" in told_by(capsys, "batch", f"--config={path}", "--config", str(path))
    assert "--config: expected one argument" in told_by(capsys, "batch", "--config")


def test_a_mark_of_the_byte_order_is_no_name(job: Path) -> None:
    job.write_bytes(b"\xef\xbb\xbfmodel: m\r\n")
    assert [(each.name, each.value) for each in read_settings(str(job))] == [("model", "m")]


# By type of a flag: values that a command line can give.
_NAMES = st.text(st.sampled_from("ab,= .é'\"#:{}[]-~&*!|>%@`1"), min_size=1, max_size=5).map(str.strip)
_NAMES = _NAMES.filter(lambda name: name not in ("", "--"))  # argparse takes "--" for none of its own
_VALUES = {
    "columns": st.none() | st.lists(_NAMES, max_size=3).map(tuple),
    "null_values": st.lists(_NAMES, max_size=3).map(tuple),
    "allowed_batch_sizes": st.lists(st.integers(1, 9), max_size=3).map(lambda sizes: tuple(sorted(sizes))),
    "column_defaults": st.lists(st.tuples(_NAMES.filter(lambda name: "=" not in name), _NAMES), max_size=3).map(tuple),
    "input": st.lists(_NAMES, min_size=1, max_size=3).map(tuple),
    "output_prefix": st.text(st.sampled_from("a :#'\"-{}[]é\t\\%@"), max_size=5).filter(lambda text: text != "--"),
    "overwrite": st.booleans(),
    "warm_up": st.booleans(),
    "max_failure_rate": st.floats(0, 1),
    "rpc_timeout_secs": st.none() | st.floats(1e-6, 1e4),
    "limit": st.integers(0, 2**40),
}


@examples(10)
@given(values=st.fixed_dictionaries({}, optional=_VALUES))
def test_options_come_back_from_their_file(tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]) -> None:
    made = BatchOptions(**FILES | values)  # type: ignore[arg-type]
    path = tmp_path_factory.getbasetemp() / "job.yaml"
    assert options(path, config_text(used_options(made))) == made
    assert options(path, json.dumps(used_options(made))) == made


def test_secrets_are_not_recorded() -> None:
    made = BatchOptions(**FILES, rpc_headers=(("authorization", "s3cret"),))  # type: ignore[arg-type]
    assert "s3cret" not in json.dumps(used_options(made))
    secret = {field.name for job in (BatchOptions, StreamingOptions) for field in dataclasses.fields(job)
              if field.metadata["secret"]}  # fmt: skip
    assert secret <= set(SECRETS)


def test_lists_are_known_by_their_form() -> None:
    """What --help shows for a flag's value tells whether a file may give a list of them."""
    lists = (flags.parse_names, flags.parse_sizes, flags.parse_pairs, flags.parse_map, flags.parse_headers)
    for name in ("batch", "streaming", "replay"):
        parser = parsers()[1][name]
        for action in parser._actions:
            form = str(action.metavar or "")
            assert (action.type in lists) == ("," in form and not form.startswith("{")), action.option_strings


def test_words_for_a_flag_of_ours_are_quoted_by_nobody(job: Path) -> None:
    job.write_text("output_prefix: '  $HOME \"x\" '\n")
    (setting,) = read_settings(str(job))
    assert words_of(setting, parsers()[1]["batch"]) == ['--output_prefix=  $HOME "x" ']


def test_the_example_in_the_docs_is_a_file_of_flags(job: Path) -> None:
    text = fence("docs/batch.md", "sluice batch --config job.yaml")
    example = text.split("<<'END'\n", 1)[1].split("END\n", 1)[0]
    found = options(job, example)
    assert (found.model, found.limit) == ("work/model", 0)

"""The file that --write_config writes gives a job the flags that were compared."""

import functools
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.pipelines import cli
from sluice.pipelines.compare.result import config_of
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.config import read_settings, with_config
from sluice.pipelines.options.flags import from_namespace
from sluice.pipelines.options.parser import Parser
from tests.support.sizes import examples

ENDS = ["--input=i.csv", "--output=o.csv"]
_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=6)
_NAME = st.sampled_from(["a", "b", "Age of person", "x,y"]).map(lambda name: name.replace(",", "\\,"))
_FLAGS = st.one_of(
    st.builds("--null_values={}".format, st.lists(_NAME, max_size=3).map(",".join)),
    st.builds("--exclude_columns={}".format, st.lists(_NAME, max_size=3).map(",".join)),
    st.builds("--map={}={},c=d".format, _NAME, _NAME),
    st.builds("--column_defaults={}={}".format, _NAME, _TEXT.map(lambda text: text.replace(",", "\\,"))),
    st.builds("--output_prefix={}".format, _TEXT),
    st.builds("--signature={}".format, st.sampled_from(["", "null", "~", "no", "010", "# x", "a: b", "it's", "- a"])),
    st.builds("--max_batch_size={}".format, st.integers(1, 9999)),
    st.builds("--max_failure_rate={}".format, st.sampled_from(["0.5", "1e-7", "1"])),
    st.sampled_from(["--overwrite", "--warm_up=no", "--overwrite=false", "--csv_delimiter=\t", "--csv_delimiter=,"]),
)


@functools.cache
def parsers() -> tuple[Parser, dict[str, Parser]]:
    return cli._parsers()


def run_with(path: Path, text: str) -> BatchOptions:
    """The options of a job with such a file."""
    path.write_text(text, encoding="utf-8")
    parser, commands = parsers()
    args, rest = parser.parse_known_args(with_config(["batch", f"--config={path}", *ENDS], commands, ("batch",)))
    assert not rest
    return from_namespace(BatchOptions, args)


def run_by_hand(flags: list[str]) -> BatchOptions:
    args, rest = parsers()[0].parse_known_args(["batch", "--model=m", *flags, *ENDS])
    assert not rest
    return from_namespace(BatchOptions, args)


@examples(30)
@given(flags=st.lists(_FLAGS, max_size=5))
def test_a_job_with_the_file_has_the_flags(tmp_path_factory: pytest.TempPathFactory, flags: list[str]) -> None:
    """Also those that are given several times, and values with commas."""
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    assert run_with(path, config_of("m", flags)) == run_by_hand(flags), shlex.join(flags)


def test_secrets_are_left_out_and_named(tmp_path: Path) -> None:
    text = config_of("grpc://h:8500/m", ["--rpc_headers=authorization=Bearer s3cret,x=y", "--signature=s"])
    assert "s3cret" not in text and text.startswith("# --rpc_headers is left out: its value may be a secret.")
    assert run_with(tmp_path / "job.yaml", text).rpc_headers == ()


def test_a_file_of_secrets_is_named_as_it_was_given(tmp_path: Path) -> None:
    headers = tmp_path / "a,b.txt"
    headers.write_text("authorization: Bearer s3cret, really\n")
    text = config_of("grpc://h:8500/m", [f"--rpc_headers=@{headers}"])
    assert "s3cret" not in text and "left out" not in text
    (tmp_path / "job.yaml").write_text(text)
    assert [setting.name for setting in read_settings(str(tmp_path / "job.yaml"))] == ["model", "rpc_headers"]
    assert run_with(tmp_path / "job.yaml", text).rpc_headers == (("authorization", "Bearer s3cret, really"),)

"""Options of a job server: which flags are passed on, and in which form."""

import logging

import pytest
from apache_beam.portability.api import beam_job_api_pb2 as api

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.runner import beam_options, used_beam_options
from sluice.pipelines.portable.declared import FLINK_ON, FLINK_OPTIONS, inverted, kinds_of, pass_on

_FLINK = ["--runner=FlinkRunner"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--checkpointing_interval=3000"], ["--checkpointing_interval=3000"]),
        (["--checkpointing_interval", "3000"], ["--checkpointing_interval=3000"]),
        (["--object_reuse"], ["--object_reuse"]),
        (["--object_reuse=true"], ["--object_reuse"]),
        (["--object_reuse", "true"], ["--object_reuse"]),
        (["--object_reuse=false"], []),
        (["--operator_chaining=false"], ["--operator_chaining"]),  # Beam turns it off so
        (["--operator_chaining"], []),
        (["--files_to_stage=a", "--files_to_stage=b"], ["--files_to_stage=a", "--files_to_stage=b"]),
    ],
)
def test_an_option_takes_beam_s_form(flags: list[str], expected: list[str]) -> None:
    others = ["--runner", "FlinkRunner", "--labels=a=b"]
    assert pass_on([*others, *flags], FLINK_OPTIONS, FLINK_ON) == (others, expected)


def test_an_option_that_beam_passes_on_as_text_is_written_out() -> None:
    flags = ["--object_reuse", "--operator_chaining=no", "--max_bundle_size=7"]
    written = ["--object_reuse=true", "--operator_chaining=false", "--max_bundle_size=7"]
    assert pass_on(flags, FLINK_OPTIONS, FLINK_ON, written_out=True) == ([], written)


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--checkpointing_interval: invalid int value: '3s'"):
        beam_options([*_FLINK, "--checkpointing_interval=3s"])
    with pytest.raises(UsageError, match=r"--object_reuse: expected true or false"):
        beam_options([*_FLINK, "--object_reuse=perhaps"])


def test_a_job_server_says_what_its_options_hold() -> None:
    declared = [
        api.PipelineOptionDescriptor(name="a", type=api.PipelineOptionType.BOOLEAN, default_value="true"),
        api.PipelineOptionDescriptor(name="b", type=api.PipelineOptionType.BOOLEAN, default_value="false"),
        api.PipelineOptionDescriptor(name="c", type=api.PipelineOptionType.INTEGER),
        api.PipelineOptionDescriptor(name="d", type=api.PipelineOptionType.ARRAY),
        api.PipelineOptionDescriptor(name="e", type=api.PipelineOptionType.STRING),
        api.PipelineOptionDescriptor(name="f", type=api.PipelineOptionType.OBJECT),
    ]
    kinds = {"a": "switch", "b": "switch", "c": "number", "d": "list", "e": "text", "f": "text"}
    assert (kinds_of(declared), inverted(declared)) == (kinds, {"a"})


def test_flink_has_its_options_where_no_job_server_can_be_asked(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        options = beam_options([*_FLINK, "--checkpointing_interval=3000", "--finish_bundle_before_checkpointing"])
        used = used_beam_options(options)
    assert used["checkpointing_interval"] == "3000" and used["finish_bundle_before_checkpointing"] is True
    assert not caplog.records, "Beam says that it discards them"


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        ([*_FLINK, "--checkpointing_intervall=3000"], "did you mean --checkpointing_interval?"),
        ([*_FLINK, "--paralellism=2"], "did you mean --parallelism?"),
        (["--runner=PrismRunner", "--checkpointing_interval=3000"], "neither Sluice nor Beam has such a flag"),
        (["--checkpointing_interval=3000"], "neither Sluice nor Beam has such a flag"),
        ([*_FLINK, "stray.csv"], "'stray.csv' is no flag"),
    ],
)
def test_a_flag_that_nobody_has_is_refused(flags: list[str], hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        beam_options(flags)
    assert hint in str(refused.value)

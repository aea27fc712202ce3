"""Which portable runners may run streams, and with which flags."""

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.runner import beam_options, check_streams
from sluice.pipelines.portable.streams import stream_flags

NEEDED = ["--checkpointing_interval=3000", "--max_bundle_time_mills=100", "--finish_bundle_before_checkpointing"]


@pytest.mark.parametrize(
    ("flags", "readers", "added", "secs"),
    [
        ([], 1, NEEDED, 3.0),
        ([], 4, [*NEEDED, "--parallelism=4"], 3.0),
        (["--parallelism=2"], 4, NEEDED, 3.0),
        (["--checkpointing_interval", "500"], 1, NEEDED[1:], 0.5),
        (["--max_bundle_time_mills=20", "--finish_bundle_before_checkpointing=true"], 1, NEEDED[:1], 3.0),
        (["--finish_bundle_before_checkpointing", "--streaming"], 1, NEEDED[:2], 3.0),
    ],
)
def test_what_a_stream_needs_is_added(flags: list[str], readers: int, added: list[str], secs: float) -> None:
    found = stream_flags(flags, readers)
    assert found.flags == [*flags, *added]
    assert found.checkpoint_secs == secs


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--checkpointing_interval=-1"], "acknowledges messages after a checkpoint"),
        (["--checkpointing_interval=often"], "invalid int value"),
        (["--finish_bundle_before_checkpointing=false"], "never begin to read"),
    ],
)
def test_what_forbids_a_stream_is_refused(flags: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        stream_flags(flags, 1)


def test_the_options_reach_flinks_job_server() -> None:
    flags = stream_flags(["--runner=FlinkRunner"], 3).flags
    options = beam_options(flags)
    check_streams(options)
    found = options.get_all_options(retain_unknown_options=True)
    assert found["checkpointing_interval"] in (3000, "3000")
    assert found["finish_bundle_before_checkpointing"] is True
    assert found["parallelism"] == 3


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--runner=PrismRunner"], "Prism loses messages behind a shuffle when a worker is killed"),
        (["--runner=SparkRunner"], "before their predictions are written"),
        (["--runner=PortableRunner", "--job_endpoint=embed"], "this is no job server of Flink"),
    ],
)
def test_other_engines_are_refused(flags: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        check_streams(beam_options(flags))

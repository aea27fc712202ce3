"""Options that only a job server declares, such as Flink's --checkpointing_interval. Beam's own parser drops them."""

import argparse
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from apache_beam.portability.api import beam_job_api_pb2 as api

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import parse_bool

# What an option holds: text, a whole number, true or false, or a list, for which the flag may be repeated.
TEXT, NUMBER, SWITCH, LIST = "text", "number", "switch", "list"
_KINDS = {
    api.PipelineOptionType.BOOLEAN: SWITCH,
    api.PipelineOptionType.INTEGER: NUMBER,
    api.PipelineOptionType.ARRAY: LIST,
}

# Of Flink's job server of Beam 2.77: https://beam.apache.org/documentation/runners/flink/ lists them. They count where
# no job server runs yet that could be asked: Beam starts one, or packs the job into a jar.
FLINK_OPTIONS: Mapping[str, str] = {
    "allow_non_restored_state": SWITCH,
    "attached_mode": SWITCH,
    "auto_balance_write_files_sharding_enabled": SWITCH,
    "auto_watermark_interval": NUMBER,
    "checkpoint_timeout_millis": NUMBER,
    "checkpointing_interval": NUMBER,
    "checkpointing_mode": TEXT,
    "disable_metrics": SWITCH,
    "enable_stable_input_drain": SWITCH,
    "execution_mode_for_batch": TEXT,
    "execution_retry_delay": NUMBER,
    "externalized_checkpoints_enabled": SWITCH,
    "fail_on_checkpointing_errors": SWITCH,
    "faster_copy": SWITCH,
    "files_to_stage": LIST,
    "finish_bundle_before_checkpointing": SWITCH,
    "flink_conf_dir": TEXT,
    "force_unaligned_checkpoint_enabled": SWITCH,
    "job_check_interval_in_secs": NUMBER,
    "latency_tracking_interval": NUMBER,
    "max_bundle_size": NUMBER,
    "max_bundle_time_mills": NUMBER,
    "min_pause_between_checkpoints": NUMBER,
    "num_concurrent_checkpoints": NUMBER,
    "number_of_execution_retries": NUMBER,
    "object_reuse": SWITCH,
    "operator_chaining": SWITCH,
    "re_iterable_group_by_key_result": SWITCH,
    "report_checkpoint_duration": TEXT,
    "retain_externalized_checkpoints_on_cancellation": SWITCH,
    "savepoint_path": TEXT,
    "shutdown_sources_after_idle_ms": NUMBER,
    "state_backend": TEXT,
    "state_backend_storage_path": TEXT,
    "unaligned_checkpoint_enabled": SWITCH,
}
# Of these, the switches that are on by default.
FLINK_ON = frozenset({"attached_mode", "fail_on_checkpointing_errors", "operator_chaining"})


def kinds_of(declared: Iterable[api.PipelineOptionDescriptor]) -> dict[str, str]:
    """Returns what each option holds that a job server says it has, by name."""
    return {each.name: _KINDS.get(each.type, TEXT) for each in declared}


def inverted(declared: Iterable[api.PipelineOptionDescriptor]) -> frozenset[str]:
    """Returns the switches that are on unless their flag is given: Beam turns such a one off by it."""
    return frozenset(each.name for each in declared if _KINDS.get(each.type) == SWITCH and each.default_value == "true")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def pass_on(
    flags: Sequence[str], kinds: Mapping[str, str], on: frozenset[str] = frozenset(), written_out: bool = False
) -> tuple[list[str], list[str]]:
    """Returns the flags that are none of these options, and those that are, in the form in which Beam takes them.

    Args:
      kinds: what each option holds, by name.
      on: switches that are on by default.
      written_out: Beam passes on the text of a flag. Otherwise it asks the job server and then takes a switch as a bare
        flag only, which inverts the default; `--flag=true` would end the process.

    Raises:
      UsageError: a value is invalid.
    """
    parser = _Parser(allow_abbrev=False, add_help=False, argument_default=argparse.SUPPRESS)
    for name, kind in kinds.items():
        if kind == SWITCH:
            parser.add_argument(f"--{name}", type=parse_bool, nargs="?", const=True)
        elif kind == LIST:
            parser.add_argument(f"--{name}", action="append")
        else:
            parser.add_argument(f"--{name}", type=int if kind == NUMBER else str)
    given, rest = parser.parse_known_args(list(flags))
    passed: list[str] = []
    for name, value in vars(given).items():
        if kinds[name] != SWITCH:
            passed += [f"--{name}={each}" for each in (value if isinstance(value, list) else [value])]
        elif written_out:
            passed.append(f"--{name}={str(value).lower()}")
        elif value != (name in on):
            passed.append(f"--{name}")
    return rest, passed


class _Untrue(logging.Filter):
    """Drops Beam's warnings about flags that it does not know: the job server gets them all the same."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(("Discarding unparseable args", "Unparseable argument"))


_UNTRUE = _Untrue()


def quieten() -> None:
    """Keeps Beam from warning about flags that are passed on."""
    logging.getLogger("apache_beam.options.pipeline_options").addFilter(_UNTRUE)

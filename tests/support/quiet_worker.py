"""Makes a worker of pytest-xdist send one message for a test that passes, instead of five.

The process that hands out the tests spends more than a millisecond of CPU on the five, and the worker half of one.
"""

from typing import Any

import pytest


def send_less(config: pytest.Config) -> None:
    """Leaves out what nobody asks for; with --durations or --junitxml, nothing. In other processes it does nothing."""
    if config.getoption("durations") or config.getoption("xmlpath", None):
        return
    for worker in config.pluginmanager.get_plugins():
        if type(worker).__name__ == "WorkerInteractor":
            worker.sendevent = _less(worker.sendevent)


def _less(send: Any) -> Any:
    def send_event(name: str, **arguments: Any) -> None:
        if not _is_dull(name, arguments):
            send(name, **arguments)

    return send_event


def _is_dull(name: str, arguments: dict[str, Any]) -> bool:
    """Whether an event says that a test begins, that it ends, or that its fixtures came and went well."""
    if name != "testreport":
        return name in ("logstart", "logfinish")
    report = arguments["data"]
    report["keywords"] = {}  # the names and markers of the test, half of the bytes; nothing reads them here
    return bool(report["when"] != "call" and report["outcome"] == "passed")

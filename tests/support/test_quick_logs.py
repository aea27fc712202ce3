"""pytest's handlers still hear the loggers that do not propagate, and go when a test ends."""

import logging

from _pytest.logging import LogCaptureHandler, catching_logs

from tests.support.quick_logs import remember_loggers


def test_loggers_that_do_not_propagate_are_heard_while_the_block_runs() -> None:
    remember_loggers()
    assert catching_logs.__enter__.__module__ == "tests.support.quick_logs"
    root, apart, handler = logging.getLogger(), logging.getLogger("tests.quick_logs.apart"), LogCaptureHandler()
    apart.propagate, level = False, root.level
    with catching_logs(handler, logging.DEBUG):
        apart.debug("apart")
        logging.getLogger("tests.quick_logs.joined").debug("joined")
        assert root.level == handler.level == logging.DEBUG
    apart.error("after it")
    assert [record.getMessage() for record in handler.records] == ["apart", "joined"]
    assert handler not in root.handlers + apart.handlers and root.level == level


def test_a_logger_that_ceases_to_propagate_is_heard_from_the_next_block_on() -> None:
    later, handler = logging.getLogger("tests.quick_logs.later"), LogCaptureHandler()
    for propagates in (True, False):
        later.propagate = propagates
        with catching_logs(handler):
            later.error("once")
    assert len(handler.records) == 2

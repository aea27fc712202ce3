"""What is logged of an answer that fails."""

import logging
import ssl

import pytest

from sluice.models.http_faults import log_fault


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (KeyError("x"), "ERROR"),
        (FileNotFoundError("figures"), "ERROR"),
        (ConnectionResetError(), "DEBUG"),
        (BrokenPipeError(), "DEBUG"),
        (TimeoutError("timed out"), "DEBUG"),
        (ssl.SSLError("http request"), "DEBUG"),
    ],
)
def test_a_client_that_has_gone_is_no_fault_of_the_server(
    error: Exception, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "sluice"):
        try:
            raise error
        except Exception:  # noqa: BLE001  as socketserver does
            log_fault(logging.getLogger("sluice"), "The health port")
    (record,) = caplog.records
    assert record.levelname == level and record.exc_info and record.exc_info[1] is error
    assert record.getMessage() == f"The health port could not answer a request: {type(error).__name__}: {error}"

"""What a server tells of an answer that failed: one rule for every HTTP server here."""

import logging
import ssl
import sys

# The client has gone, has ceased to wait, or speaks no TLS.
_OF_CLIENT = (ConnectionError, TimeoutError, ssl.SSLError)


def log_fault(log: logging.Logger, server: str) -> None:
    """Logs what the handler of a request raises, for `socketserver.BaseServer.handle_error`, which would print it.

    A fault of the server is an error, with its traceback; that the client has gone is of use only in search of another.

    Args:
      server: begins the line.
    """
    error = sys.exception()
    level = logging.DEBUG if isinstance(error, _OF_CLIENT) else logging.ERROR
    log.log(level, "%s could not answer a request: %s: %s", server, type(error).__name__, error, exc_info=error)

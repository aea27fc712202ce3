"""The certificates that a client trusts, for TLS."""

import ssl

from sluice.models.errors import UsageError


def ssl_context(ca_certificates: str) -> ssl.SSLContext:
    """Returns a client's TLS context.

    Args:
      ca_certificates: the certificates to trust, as PEM text; empty: those that the machine trusts.

    Raises:
      UsageError: the text holds no certificates.
    """
    try:
        return ssl.create_default_context(cadata=ca_certificates or None)
    except (ssl.SSLError, ValueError, TypeError) as error:  # TypeError: the text is not ASCII
        raise UsageError(f"--rpc_ca_file holds no PEM certificates: {error}; give a file that does") from error

"""A TLS certificate for the servers that tests run."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


class Certificate:
    """A key and its self-signed certificate, for 127.0.0.1 and valid today.

    Attributes:
      text: the certificate, PEM.
      key: PEM.
    """

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sluice's tests")])
        today = datetime.datetime.now(datetime.UTC)
        host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([host]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.text = certificate.public_bytes(_PEM).decode()
        self.key = key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()  # fmt: skip

    @property
    def grpc_credentials(self) -> grpc.ServerCredentials:
        """The credentials of a gRPC server."""
        return grpc.ssl_server_credentials([(self.key.encode(), self.text.encode())])

    def server_context(self, directory: Path) -> ssl.SSLContext:
        """Returns the TLS context of a server; `ssl` reads certificates from files only."""
        path = directory / "server.pem"
        path.write_text(self.key + self.text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

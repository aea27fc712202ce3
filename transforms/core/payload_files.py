"""Payloads that are too large for a message or a table's row: each is a file, whose URI the failure carries."""

import contextlib
import hashlib
import os
import pathlib
import urllib.parse
import uuid

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import HIDDEN, open_binary

# No base64, which a payload otherwise is, holds a colon.
_MARK = "://"
_LOCAL = "file://"


def store_payload(directory: str, payload: bytes) -> str:
    """Writes a payload to the file that its SHA-256 names; returns the file's URI, file://... on a local disk.

    The same payload is the same file, however often it is written. The file is whole once it has its name.

    Raises:
      SluiceError: it cannot be written.
    """
    name = hashlib.sha256(payload).hexdigest()
    try:
        if _MARK in directory:
            path = f"{directory.rstrip('/')}/{name}"
            with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                file.write(payload)
            return path
        return _store_locally(os.path.abspath(directory), name, payload)
    except Exception as error:
        raise SluiceError(f"a payload of {len(payload)} bytes cannot be written to {directory}: {error}") from error


def _store_locally(directory: str, name: str, payload: bytes) -> str:
    os.makedirs(directory, exist_ok=True)
    path, hidden = os.path.join(directory, name), os.path.join(directory, f"{HIDDEN}{uuid.uuid4().hex}.tmp")
    try:
        with open(hidden, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(hidden)
    return pathlib.Path(path).as_uri()


def is_payload_uri(shown: str) -> bool:
    """Whether what a failure shows as its payload is the URI of a file."""
    return _MARK in shown


def load_payload(uri: str) -> bytes:
    """Returns a payload that `store_payload` wrote.

    Raises:
      SluiceError: the file is another one.
      Exception: of the storage.
    """
    path = urllib.parse.unquote(uri.removeprefix(_LOCAL)) if uri.startswith(_LOCAL) else uri
    with open_binary(path) as file:
        payload = file.read()
    if hashlib.sha256(payload).hexdigest() != path.rsplit("/", 1)[-1]:
        raise SluiceError(f"{uri} does not hold the payload that it is named after")
    return payload

"""Google's gcloud, run by tests without credentials and without Google."""

import contextlib
import email
import email.policy
import json
import os
import shutil
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers import require
from tests.support.serving.local_server import Handler, LocalServer

_NO_GCLOUD = "gcloud is not installed: see https://cloud.google.com/sdk/docs/install"
# Where packages install gcloud, if it is not on PATH.
_PLACES = ("/usr/lib/google-cloud-sdk/bin", "/usr/local/google-cloud-sdk/bin", "/snap/bin")


def gcloud_directory() -> str:
    """Returns the directory of gcloud; without gcloud, skips the test, or fails it where REQUIRE_SERVERS=1."""
    path = shutil.which("gcloud") or shutil.which("gcloud", path=os.pathsep.join(_PLACES))
    return os.path.dirname(require(path, _NO_GCLOUD) or "")


def gcloud_environment(config: Path, dataflow: str = "", storage: str = "") -> dict[str, str]:
    """Returns environment variables that send gcloud to these servers.

    Args:
      config: an empty directory that replaces the user's configuration.
      dataflow, storage: http://HOST:PORT; "": no server, so that a call fails at once.
    """
    nowhere = "http://127.0.0.1:9"  # the port of "discard", where nothing listens
    return {
        "PATH": os.pathsep.join((gcloud_directory(), os.environ["PATH"])),
        "HOME": str(config),
        "CLOUDSDK_CONFIG": str(config),
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW": f"{dataflow or nowhere}/",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{storage or nowhere}/storage/v1/",
    }


class Uploads(LocalServer):
    """A GCS on 127.0.0.1 that accepts gcloud's uploads in one request, which gcp-storage-emulator does not understand.

    Attributes:
      url: http://127.0.0.1:PORT.
      objects: the uploads, by gs:// path.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        super().__init__(_handler(self.objects))


def _handler(objects: dict[str, bytes]) -> type[Handler]:
    class Answers(Handler):
        def do_POST(self) -> None:
            """https://cloud.google.com/storage/docs/json_api/v1/objects/insert, uploadType=multipart."""
            url = urllib.parse.urlsplit(self.path)
            bucket = url.path.removeprefix("/upload/storage/v1/b/").removesuffix("/o")
            name = urllib.parse.parse_qs(url.query)["name"][0]
            kind = self.headers["Content-Type"].replace("'", '"')  # gcloud quotes the boundary in its own way
            head = f"Content-Type: {kind}\r\n\r\n".encode()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            _, content = email.message_from_bytes(head + body, policy=email.policy.HTTP).iter_parts()
            payload = content.get_payload(decode=True)
            assert isinstance(payload, bytes)
            objects[f"gs://{bucket}/{name}"] = payload
            answer = json.dumps({"bucket": bucket, "name": name, "size": str(len(payload))}).encode()
            self.send_json(200, answer)

    return Answers


@contextlib.contextmanager
def uploads() -> Iterator[Uploads]:
    """Runs an Uploads while the block runs."""
    server = Uploads()
    try:
        yield server
    finally:
        server.close()

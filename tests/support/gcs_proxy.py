"""A proxy in front of the GCS emulator that heeds `ifGenerationMatch`, which the emulator does not."""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

import orjson

from tests.support.servers import Gcs, beam_uses
from tests.support.serving.local_server import Handler, LocalServer

_TIMEOUT_SECS = 60
_OWN_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}


class GenerationProxy(LocalServer):
    """Passes requests on. An upload under a condition that does not hold is answered with 412.

    Attributes:
      refused: how many uploads were refused.
    """

    def __init__(self, target: str) -> None:
        self.refused = 0
        self._target = target
        self._lock = threading.Lock()
        proxy = self

        class Answers(Handler):
            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
                status, headers, answer = proxy._answer(self.command, self.path, dict(self.headers.items()), body)
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in _OWN_HEADERS:
                        self.send_header(name, value.replace(target, proxy.url))
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _any

        super().__init__(Answers)

    def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, dict[str, str], bytes]:
        wanted = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query).get("ifGenerationMatch")
        if method != "POST" or not wanted:
            return self._pass_on(method, path, headers, body)
        with self._lock:  # looks and writes as one step
            if self._generation(path, body or b"") != wanted[0]:
                self.refused += 1
                return (
                    412,
                    {"Content-Type": "application/json"},
                    orjson.dumps({"error": {"code": 412, "message": "no"}}),
                )
            return self._pass_on(method, path, headers, body)

    def _generation(self, path: str, body: bytes) -> str:
        bucket = path.split("/b/")[1].split("/")[0]
        name = re.search(rb'"name": ?"([^"]*)"', body)
        assert name is not None
        quoted = urllib.parse.quote(name[1].decode(), safe="")
        status, _, answer = self._pass_on("GET", f"/storage/v1/b/{bucket}/o/{quoted}", {}, None)
        return str(orjson.loads(answer)["generation"]) if status == 200 else "0"

    def _pass_on(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, dict[str, str], bytes]:
        kept = {name: value for name, value in headers.items() if name.lower() not in _OWN_HEADERS}
        request = urllib.request.Request(self._target + path, body, kept, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECS) as response:
                return response.status, dict(response.headers.items()), response.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers.items()), error.read()


@contextlib.contextmanager
def strict_emulator(gcs: Gcs) -> Iterator[Gcs]:
    """Sends gs:// of this process to the emulator, by way of the proxy."""
    with contextlib.closing(GenerationProxy(gcs.url)) as proxy:
        strict = Gcs(proxy.url, gcs.bucket)
        with beam_uses(strict):
            yield strict

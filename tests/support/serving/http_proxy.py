"""An HTTP server in front of another one that answers some requests itself, as the test decides."""

from __future__ import annotations

import urllib.error
import urllib.request

import orjson

from tests.support.serving.local_server import Handler, LocalServer

_TIMEOUT_SECS = 30


class Proxy(LocalServer):
    """Passes requests on, except those it has answers for. No connection outlives its request.

    Args:
      target: http://HOST:PORT of the other server.

    Attributes:
      url: http://127.0.0.1:PORT of this server.
      answers: to the next POST requests, in order: a status and a JSON body.
      posted: the JSON of every POST request, those it answered itself included.
    """

    def __init__(self, target: str) -> None:
        self.answers: list[tuple[int, object]] = []
        self.posted: list[dict] = []
        self._target = target
        proxy = self

        class Answers(Handler):
            def do_GET(self) -> None:
                self.send_json(*proxy._pass_on(self.path, None))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                proxy.posted.append(orjson.loads(body))
                if proxy.answers:
                    status, answer = proxy.answers.pop(0)
                    self.send_json(status, orjson.dumps(answer))
                else:
                    self.send_json(*proxy._pass_on(self.path, body))

        super().__init__(Answers)

    def _pass_on(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        request = urllib.request.Request(self._target + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECS) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

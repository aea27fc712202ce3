"""A headless Chromium, driven by the DevTools protocol: https://chromedevtools.github.io/devtools-protocol/."""

import asyncio
import base64
import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.fakes import PATIENCE_SECS
from tests.support.servers import require, running

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-port=0",
)
_PORT_FILE = "DevToolsActivePort"
_PHONE_WIDTH = 640

Json = Mapping[str, Any]


@dataclasses.dataclass
class Visit:
    """What came of opening a page.

    Attributes:
      errors: of the console and of the page.
      requests: the URLs that were asked for, the page's own first.
    """

    errors: list[str] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)


class Browser:
    """One tab of a browser that runs.

    Args:
      url: of the browser's DevTools, ws://...
    """

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._session = ""
        self._last = 0
        self._events: list[Json] = []
        self._client, self._socket = self._run(_connect(url))
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def close(self) -> None:
        """Ends the connection."""
        self._run(self._client.close())
        self._loop.close()

    def visit(self, url: str, width: int = 1200, dark: bool = False) -> Visit:
        """Opens a page on a screen; returns what came of it when it was loaded."""
        mobile = width <= _PHONE_WIDTH
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self._send("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._run(self._receive())
        self.value("0")  # what the page has said comes before this answer
        return _visit_of(self._events)

    def value(self, expression: str) -> Any:
        """Returns the value of an expression of JavaScript in the page."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def pdf(self) -> bytes:
        """Returns the page as it is printed."""
        return base64.b64decode(self._send("Page.printToPDF", preferCSSPageSize=True)["data"])

    def screenshot(self, path: Path) -> None:
        """Writes a picture of the whole page."""
        shot = self._send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _run(self, work: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(work, PATIENCE_SECS))

    def _send(self, method: str, **params: object) -> Json:
        self._last += 1
        session = {"sessionId": self._session} if self._session else {}
        self._run(self._socket.send_json({"id": self._last, "method": method, "params": params} | session))
        while True:
            answer = self._run(self._receive())
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer)
                result: Json = answer["result"]
                return result

    async def _receive(self) -> Json:
        message: Json = await self._socket.receive_json()
        if "method" in message:
            self._events.append(message)
        return message


async def _connect(url: str) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    client = aiohttp.ClientSession()
    return client, await client.ws_connect(url, max_msg_size=0)


def _visit_of(events: list[Json]) -> Visit:
    visit = Visit()
    for event in events:
        method, params = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            visit.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            visit.errors.append(params["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled":
            visit.errors.append(f"{params['type']}: {params['args']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            visit.errors.append(params["entry"]["text"])
    return visit


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Starts a browser, or skips the test where there is none (fails it where REQUIRE_SERVERS=1)."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    require(path, "no browser is found: install the Debian package chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        port_file = Path(directory, _PORT_FILE)
        command = [str(path), *_FLAGS, f"--user-data-dir={directory}", "about:blank"]
        with running(command, lambda: port_file.exists() and len(port_file.read_text().split()) == 2):
            port, target = port_file.read_text().split()
            tab = Browser(f"ws://127.0.0.1:{port}{target}")
            try:
                yield tab
            finally:
                tab.close()

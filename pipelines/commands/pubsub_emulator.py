"""Finds and runs Google's Pub/Sub emulator, which is part of the gcloud SDK.

https://cloud.google.com/pubsub/docs/emulator
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Names the path of the emulator's jar, if it is not in the SDK of `gcloud`.
JAR_VARIABLE = "PUBSUB_EMULATOR_JAR"
MISSING = (
    "the Pub/Sub emulator is not installed: it needs java on PATH, and `gcloud components install pubsub-emulator` "
    f"(or apt-get install google-cloud-cli-pubsub-emulator), or its jar's path in {JAR_VARIABLE}"
)

_JARS = "platform/pubsub-emulator/lib/*.jar"
_START_SECS = 30.0
_POLL_SECS = 0.05
_STOP_SECS = 10.0


def find_emulator() -> list[str] | None:
    """Returns the command that runs the emulator, without --host and --port; None without its jar or java."""
    java, jar = shutil.which("java"), _find_jar()
    return [java, "-jar", jar] if java and jar else None


@contextlib.contextmanager
def running_emulator() -> Iterator[str]:
    """Runs the emulator on a free port of 127.0.0.1 while the block runs; yields HOST:PORT for PUBSUB_EMULATOR_HOST.

    Raises:
      RuntimeError: it is not installed, it ended, or it does not answer in time; the text includes its output.
    """
    command = find_emulator()
    if not command:
        raise RuntimeError(MISSING)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--host=127.0.0.1", f"--port={port}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            if not _comes_up(process, port):
                log.seek(0)
                raise RuntimeError(f"the Pub/Sub emulator does not answer: {log.read().decode(errors='replace')}")
            yield f"127.0.0.1:{port}"
        finally:
            _stop(process)


def _find_jar() -> str | None:
    named = os.environ.get(JAR_VARIABLE)
    if named:
        return named if os.path.isfile(named) else None
    gcloud = shutil.which("gcloud")
    if not gcloud:
        return None
    return _jar_under(Path(gcloud).resolve().parent.parent) or _jar_under(_stated_root(gcloud))


def _jar_under(root: Path) -> str | None:
    return max(map(str, root.glob(_JARS)), default=None)


def _stated_root(gcloud: str) -> Path:
    """Returns the SDK's root as gcloud states it, which takes a second: for a `gcloud` that is not a plain link."""
    stated = subprocess.run(
        [gcloud, "info", "--format=value(installation.sdk_root)"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_START_SECS,
        check=False,
    )
    return Path(stated.stdout.strip() or os.devnull)


def _comes_up(process: "subprocess.Popen[bytes]", port: int) -> bool:
    for _ in range(int(_START_SECS / _POLL_SECS)):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=_POLL_SECS).close()
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECS)
            return False
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

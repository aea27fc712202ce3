"""What gRPC says, in words."""

import re

import grpc

from sluice.models.errors import SluiceError

_WORDS = {
    grpc.StatusCode.UNAVAILABLE: "it does not answer, or has ended",
    grpc.StatusCode.DEADLINE_EXCEEDED: "it did not answer in time",
    grpc.StatusCode.UNIMPLEMENTED: "it does not know the call",
    grpc.StatusCode.CANCELLED: "the call was cancelled",
    grpc.StatusCode.NOT_FOUND: "it does not know the job",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the message is too large, or it has no room left",
    grpc.StatusCode.UNAUTHENTICATED: "it asks for credentials",
    grpc.StatusCode.PERMISSION_DENIED: "it does not permit the call",
}
# The last line of what Beam's runners of Python and of Java say of a worker whose connection has ended.
_WORKER_LOST = re.compile(r"^grpc\.RpcError\s*\Z|io\.grpc\.Status(Runtime)?Exception: (CANCELLED|UNAVAILABLE)\b", re.M)
# What a stack trace begins each of its lines with.
_FRAME = re.compile(r"\s+at |\s*File \"|\s*\.\.\. \d+ more")


def grpc_words(error: grpc.RpcError) -> str:
    """Returns what a failed call means, with the server's own first line."""
    code = error.code() if hasattr(error, "code") else None
    details = (error.details() or "") if hasattr(error, "details") else str(error)
    lines = [line.strip() for line in details.splitlines() if line.strip() and not _FRAME.match(line)]
    said = lines[0] if lines else ""
    name = code.name if code else "gRPC"
    words = _WORDS.get(code, "it failed") if code else "it failed"
    return f"{words} ({name}: {said})" if said else f"{words} ({name})"


def in_words(error: BaseException) -> BaseException:
    """Returns an error in words where it is gRPC's, here or between a runner and a worker; others as they are."""
    if isinstance(error, grpc.FutureTimeoutError):
        told = SluiceError("the job server does not answer")
    elif isinstance(error, grpc.RpcError):
        told = SluiceError(f"the job server failed: {grpc_words(error)}")
    elif isinstance(error, RuntimeError) and _WORKER_LOST.search(str(error)):
        told = SluiceError("a worker has died, or cannot be reached any more; its log, or the machine's, says why")
    else:
        return error
    told.__cause__ = error
    return told

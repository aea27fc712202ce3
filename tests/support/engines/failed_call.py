"""A call of gRPC that failed."""

import grpc


class FailedCall(grpc.RpcError):
    """A call that failed, as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, details: str | None = "") -> None:
        super().__init__("<_InactiveRpcError of RPC that terminated with:\n\tdebug_error_string = ...\n>")
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

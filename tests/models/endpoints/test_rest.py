"""The REST client: what it asks for, what it sends, and what it makes of the answers."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.endpoints import rest
from sluice.models.endpoints.rest import fetch_signatures, serving_text
from sluice.models.errors import (
    BadInput,
    BadOutput,
    BatchTooLarge,
    CallError,
    MessageTooLarge,
    ModelFault,
    ModelNotFound,
    OutOfMemory,
    Overloaded,
    Refused,
    ServerFault,
    SignatureChanged,
    SignatureError,
    TimedOut,
    Unavailable,
    UsageError,
)
from sluice.models.interface import EndpointOptions
from sluice.models.signature import Signature, TensorSpec
from sluice.models.uri import parse_model_uri
from tests.support.certificates import Certificate
from tests.support.fakes import PATIENCE_SECS, X_TO_Y, connected, x_feeds
from tests.support.servers import free_port
from tests.support.serving.light_client import check_light_client
from tests.support.serving.rest_servers import (
    HeldReader,
    Reply,
    Request,
    Server,
    assert_doubles,
    described,
    doubled,
    opened,
    serving,
    serving_model,
    trickling,
)

SOON_SECS = 0.1


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


def fetch(uri: str, secs: float = PATIENCE_SECS, **endpoint: Any) -> Any:
    return fetch_signatures(parse_model_uri(uri), EndpointOptions(**endpoint), secs)


def error(status: int, text: str) -> Reply:
    """A refusal as TF Serving gives it."""
    return Reply(status, json.dumps({"error": text}).encode(), {"Content-Type": "application/json"})


def escaped(status: int, text: str) -> Reply:
    """The same where the text has what C escapes in other ways than JSON."""
    return Reply(status, f'{{ "error": "{text}" }}'.encode(), {"Content-Type": "application/json"})


def test_signatures_and_version(serve: Any) -> None:
    other = Signature("other", "m", (TensorSpec("s", "string", (None,), ("s:0",)),), X_TO_Y.outputs)
    server = serve(lambda _: described(X_TO_Y, other, version=12))
    assert fetch(server.uri()) == ({"serving_default": X_TO_Y, "other": other}, 12)
    assert [(request.method, request.path) for request in server.requests] == [("GET", "/v1/models/m/metadata")]


def test_metadata_in_all_forms_that_its_fields_may_have(serve: Any) -> None:
    metadata = described(X_TO_Y)
    definition = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    definition["field of a newer server"] = 1
    definition["inputs"]["x"]["tensor_shape"] = {"dim": [{"size": -1}, {"size": 3}]}
    definition["outputs"]["y"]["tensor_shape"] = {"unknown_rank": True}
    definition["outputs"]["text"] = {
        "coo_sparse": {"values_tensor_name": "v:0", "indices_tensor_name": "i:0", "dense_shape_tensor_name": "d:0"},
        "dtype": "DT_STRING",
        "tensor_shape": {"dim": [{"size": "-1"}, {"size": "-1"}]},
    }
    del metadata["model_spec"]["version"]
    signatures, version = fetch(serve(lambda _: metadata).uri())
    signature = signatures["serving_default"]
    assert version is None
    assert signature.inputs[0].shape == (None, 3)
    assert {spec.name: (spec.shape, spec.kind) for spec in signature.outputs} == {
        "text": ((None, None), "unserved"),
        "y": (None, "dense"),
    }


@pytest.mark.parametrize(
    ("path", "version", "asked"),
    [
        ("/v1/models/m", None, "/v1/models/m"),
        ("/v1/models/m:predict", None, "/v1/models/m"),
        ("/v1/models/m/versions/3", 3, "/v1/models/m/versions/3"),
        ("/v1/models/m/versions/0", 0, "/v1/models/m/versions/0"),
        ("/v1/models/m/labels/stable", None, "/v1/models/m/labels/stable"),
        ("/a%20b/c/v1/models/m", None, "/a%20b/c/v1/models/m"),
        ("/v1/models/a%2Fb%3A%3F%25%C3%A9", None, "/v1/models/a%2Fb%3A%3F%25%C3%A9"),
        ("/v1/models/m/labels/a%2Fb%20c", None, "/v1/models/m/labels/a%2Fb%20c"),
    ],
)
def test_the_model_that_is_asked_for(serve: Any, path: str, version: int | None, asked: str) -> None:
    server = serve(serving_model)
    model = opened(server.uri(path), signature=None)
    assert (model.remote, model.uri, model.version) == (True, server.uri(path), version)
    assert_doubles(model)
    assert model.call(x_feeds(1)).version == version
    paths = [(request.method, request.path) for request in server.requests]
    assert paths == [("GET", f"{asked}/metadata"), *[("POST", f"{asked}:predict")] * 2]


def test_the_signature_and_outputs_that_are_asked_for(serve: Any) -> None:
    server = serve(serving_model)
    model = opened(server.uri(), None, {"outputs": ("y",)})
    assert [spec.name for spec in model.signature.outputs] == ["y"]
    assert list(model.call(x_feeds(1)).arrays) == ["y"]
    with pytest.raises(SignatureError, match="the model has no signature 'other'; it has serving_default"):
        opened(server.uri(), None, {"signature": "other"})
    with pytest.raises(SignatureError, match="nothing"):
        opened(server.uri(), None, {"outputs": ("nothing",)})


def test_a_given_signature_is_not_asked_for(serve: Any) -> None:
    server = serve(serving_model)
    assert opened(server.uri()).signature is X_TO_Y
    assert not server.requests


def test_rows_are_bound_with_defaults(serve: Any) -> None:
    model = opened(serve(serving_model).uri(), options={"defaults": (("x", 5),)})
    bound = model.bind(pa.record_batch({"x": [1, None]}))
    assert not bound.errors
    assert model.call(bound.groups[0].feeds).arrays["y"].tolist() == [2, 10]


@pytest.mark.parametrize("rest_format", ["columns", "rows"])
@pytest.mark.parametrize("rest_gzip", [False, True])
def test_what_is_sent(serve: Any, rest_format: str, rest_gzip: bool) -> None:
    server = serve(serving_model)
    model = opened(
        server.uri(), rest_format=rest_format, rest_gzip=rest_gzip, headers=(("X-Api-Key", "k"), ("Host", "a.example"))
    )
    assert_doubles(model)
    (request,) = server.requests
    assert request.json == {
        "signature_name": "serving_default",
        **({"instances": [{"x": 1}, {"x": 2}]} if rest_format == "rows" else {"inputs": {"x": [1, 2]}}),
    }
    headers = {
        "content-type": "application/json",
        "accept-encoding": "gzip",
        "x-api-key": "k",
        "host": "a.example",
        "content-length": str(len(request.body)),
    }
    assert {name: request.headers.get(name) for name in headers} == headers
    assert request.headers.get("content-encoding") == ("gzip" if rest_gzip else None)


def test_calls_are_cut_to_what_a_server_unpacks(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF Serving takes a larger body for an empty one, which would look like bad rows."""
    most = 1000
    monkeypatch.setattr(rest, "_MAX_UNPACKED", most)

    def answer(request: Request) -> Any:
        if len(gzip.decompress(request.body)) > most:
            return error(400, "JSON Parse error: The document is empty")
        return doubled(request)

    server = serve(answer)
    model = opened(server.uri(), rest_gzip=True)
    with pytest.raises(
        MessageTooLarge, match=r"has \d+ bytes of JSON, and TF Serving unpacks at most 1000 .*--rest_gzip"
    ) as raised:
        model.call(x_feeds(*range(1000)))
    assert raised.value.is_unsent
    scheduler = Scheduler(model, SchedulerOptions())
    prediction = scheduler.submit(x_feeds(*range(500))).future.result(PATIENCE_SECS)
    scheduler.close()
    assert prediction.failures == {}
    sizes = [len(gzip.decompress(request.body)) for request in server.requests]
    assert sizes and max(sizes) <= most, "nothing is sent that the server would refuse"
    assert_doubles(opened(server.uri(), rest_gzip=True))


def test_the_most_bytes_are_for_compressed_requests_only(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(serving_model)
    sent = opened(server.uri(), rest_gzip=True)
    assert_doubles(sent)
    size = len(gzip.decompress(server.requests[0].body))
    monkeypatch.setattr(rest, "_MAX_UNPACKED", size)
    assert_doubles(sent)
    monkeypatch.setattr(rest, "_MAX_UNPACKED", size - 1)
    with pytest.raises(MessageTooLarge):
        assert_doubles(sent)
    assert_doubles(opened(server.uri()))


def test_a_token_is_read_again_when_it_changes(serve: Any, tmp_path: Path) -> None:
    server = serve(serving_model)
    token = tmp_path / "token"
    token.write_text("first")
    model = opened(server.uri(), signature=None, token_file=str(token))
    model.call(x_feeds(1))
    token.write_text("second")
    model.call(x_feeds(1))
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer first", "Bearer first", "Bearer second"]


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (error(400, "Expecting tensor size: 2 but got: 3"), BadInput, "^Expecting tensor size: 2 but got: 3$"),
        (error(400, "Task size 9 is larger than maximum input batch size 8"), BatchTooLarge, "larger than maximum"),
        (error(400, 'Serving signature key "a" not found.'), SignatureChanged, "another signature"),
        (error(400, "Table not initialized."), Unavailable, "INVALID_ARGUMENT: Table not initialized"),
        (escaped(400, r"\'x\' is no \"y\": \303\244\n"), BadInput, "^'x' is no \"y\": ä$"),
        (escaped(400, "Missing named input: z in \\'inputs\\' object."), SignatureChanged, "z in 'inputs' object"),
        (error(401, "no token"), Refused, "{address}: UNAUTHENTICATED: no token"),
        (error(403, "not you"), Refused, "{address}: PERMISSION_DENIED: not you"),
        (error(404, "Servable not found for request: Latest(m)"), Unavailable, "{address} does not serve the model"),
        (error(404, "Table holds no key 7"), ModelFault, "^NOT_FOUND: Table holds no key 7$"),
        (escaped(404, r"Key \'7\' not found"), ModelFault, "^NOT_FOUND: Key '7' not found$"),
        (escaped(404, r"\777\x"), Refused, "HTTP 404"),
        (Reply(404, b'{"error": "Not Found", "path": "/v1"}'), Refused, "UNIMPLEMENTED: HTTP 404: .*Not Found"),
        (Reply(404), Refused, "UNIMPLEMENTED: HTTP 404: $"),
        (error(408, "slow"), TimedOut, "DEADLINE_EXCEEDED: slow"),
        (error(409, "again"), Unavailable, "ABORTED: again"),
        (error(413, "too much"), MessageTooLarge, "{address}: HTTP 413: too much"),
        (Reply(413, b"<html>Too  Large"), MessageTooLarge, "{address}: HTTP 413: <html>Too Large$"),
        (error(429, "busy"), Overloaded, "{address}: RESOURCE_EXHAUSTED: busy"),
        (error(429, "OOM when allocating tensor"), OutOfMemory, "OOM when"),
        (error(429, "request rate is too large"), Overloaded, "rate is too large"),
        (Reply(429), Overloaded, "{address}: RESOURCE_EXHAUSTED: HTTP 429"),
        (error(499, "gone"), Unavailable, "CANCELLED: gone"),
        (error(500, "a bug"), ServerFault, "{address}: INTERNAL: a bug"),
        (Reply(500, b"upstream connect error"), Unavailable, "INTERNAL: HTTP 500: upstream connect error"),
        (error(501, "Conversion to type: half"), Refused, "UNIMPLEMENTED: Conversion to type: half"),
        (Reply(502, b"bad gateway"), Unavailable, "UNAVAILABLE: HTTP 502: bad gateway"),
        (error(503, "The batch scheduling queue to which this task was submitted is full"), Overloaded, "is full"),
        (Reply(503, b""), Unavailable, "{address}: UNAVAILABLE: HTTP 503: $"),
        (error(504, "Timed out waiting for notification"), TimedOut, "DEADLINE_EXCEEDED: Timed out"),
        (Reply(520, b"?"), ServerFault, "{address}: INTERNAL: HTTP 520: [?]"),
        (Reply(301, b"", {"Location": "https://a/"}), Refused, "{address}: UNIMPLEMENTED: HTTP 301 to https://a/: "),
        (Reply(404, b"<html>" + b"x" * 300), Refused, "UNIMPLEMENTED: HTTP 404: <html>x+[.][.][.]$"),
        (Reply(405, b"[1]"), Refused, r"HTTP 405: \[1\]"),
        (Reply(400, b'{"error": {"code": 400}}'), BadInput, '^HTTP 400: {{"error": {{"code": 400}}}}$'),
        (Reply(500, b'\xff{"error":'), ServerFault, "HTTP 500"),
        (Reply(204), Refused, "HTTP 204"),
        (Reply(200, b"<html>Hello"), BadOutput, "not JSON"),
        (Reply(200, b'{"outputs": {"y": [2]}}'), BadOutput, "lacks output 'text'"),
        (Reply(200, b'{"outputs": {"y": [2.5], "text": ["1"]}}'), BadOutput, "output 'y', row 0: 2.5"),
    ],
)
def test_what_the_answer_means(serve: Any, reply: Reply, kind: type[CallError], text: str) -> None:
    server = serve(lambda _: reply)
    with pytest.raises(CallError, match=text.format(address=f"127.0.0.1:{server.server_port}")) as raised:
        opened(server.uri()).call(x_feeds(1))
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (
            error(404, "Servable not found for request: Latest(m)"),
            "does not serve what --model .*/m names: Servable .*",
        ),
        (
            error(404, "Could not find version 7 of model m"),
            "does not serve .*; check the name, and the version or label",
        ),
        (error(400, "Unrecognized servable version label: x"), "does not serve .* names: Unrecognized"),
        (
            Reply(404, b"<html>Not Found"),
            "answers, but is not TF Serving: HTTP 404: <html>Not Found; give --model .*8501",
        ),
        (Reply(301, b"", {"Location": "https://a/"}), "answers, but is not TF Serving: HTTP 301 to https://a/"),
        (Reply(401, b"who?"), "refuses the credentials: HTTP 401: who[?]; give .*--rpc_token_file"),
        (error(403, "not you"), "refuses the credentials: HTTP 403: not you; give"),
        (error(400, "odd"), "does not say what model 'm' is: HTTP 400: odd"),
        (error(500, "a bug"), "does not say what model 'm' is: HTTP 500: a bug"),
        (Reply(503, b"no backend"), "does not say what model 'm' is: HTTP 503: no backend"),
        (Reply(200, b"<html>Hello"), "answers, but not with TF Serving.s metadata: <html>Hello; give --model .*8501"),
        (Reply(200, b"\xff"), "not with TF Serving.s metadata"),
        (Reply(200, b"[]"), "not with TF Serving.s metadata"),
        (Reply(200, b"{}"), "not with TF Serving.s metadata"),
        (Reply(200, b'{"model_spec": null, "metadata": {"signature_def": {}}}'), "not with TF Serving.s metadata"),
        (
            Reply(200, b'{"model_spec": {"version": "v1"}, "metadata": {"signature_def": {}}}'),
            "not with TF Serving.s metadata",
        ),
        (
            Reply(200, b'{"model_spec": {}, "metadata": {"signature_def": {"signature_def": 3}}}'),
            "not with TF Serving.s metadata",
        ),
        (Reply(200, b"hello", {"Content-Encoding": "gzip"}), "cannot be decompressed"),
    ],
)
def test_no_model_at_launch(serve: Any, reply: Reply, text: str) -> None:
    server = serve(lambda _: reply)
    with pytest.raises(ModelNotFound, match=f"^127.0.0.1:{server.server_port}:? .*{text}"):
        fetch(server.uri())
    with pytest.raises(ModelNotFound, match=text):
        opened(server.uri(), signature=None)


def test_nobody_listens() -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}/v1/models/m"
    with pytest.raises(
        ModelNotFound, match=f"127.0.0.1:{port} cannot be reached: .*refused; check that .*8501.*https://"
    ):
        fetch(uri)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port} cannot be reached: "):
        opened(uri).call(x_feeds(1))


def test_deadlines(serve: Any) -> None:
    server = serve(lambda _: trickling(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", server.stopping))
    with pytest.raises(ModelNotFound, match=r"gave no answer within 0.1 s; give --model .*8501"):
        connected(lambda: fetch(server.uri(), SOON_SECS))
    with pytest.raises(ModelNotFound, match=r"gave no answer within 0.1 s"):
        connected(lambda: opened(server.uri(), signature=None, rpc_timeout_secs=SOON_SECS))
    model = opened(server.uri(), rpc_timeout_secs=SOON_SECS)
    with pytest.raises(TimedOut, match=r"gave no answer within 0.1 s"):
        connected(lambda: model.call(x_feeds(1)))


def test_a_token_is_not_sent_unencrypted(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with pytest.raises(UsageError, match="unencrypted"):
        fetch("http://a.example:8501/v1/models/m", token_file=str(tmp_path / "token"))


def test_connections_are_kept_and_shared(serve: Any) -> None:
    server = serve(serving_model)
    model = opened(server.uri())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda x: model.call(x_feeds(x, x + 1)).arrays["y"].tolist(), range(200)))
    assert answers == [[2 * x, 2 * x + 2] for x in range(200)]
    assert server.connections <= 8
    model.close()
    with pytest.raises(Unavailable, match="closed"):
        model.call(x_feeds(1))


def test_tls(serve: Any, tmp_path: Path) -> None:
    certificate, other = Certificate(), Certificate()
    server = serve(serving_model, tls=certificate.server_context(tmp_path))
    token = tmp_path / "token"
    token.write_text("secret")
    model = opened(server.uri(), None, ca_certificates=certificate.text, token_file=str(token))
    assert_doubles(model)
    assert_doubles(model)
    assert [request.number for request in server.requests] == [0, 0, 1]
    large = np.arange(200_000)
    assert model.call({"x": large}).arrays["y"].tolist() == (2 * large).tolist()
    for trusted in ("", other.text):
        with pytest.raises(
            ModelNotFound, match=r"connection failed: .*CERTIFICATE_VERIFY_FAILED.*; check .*--rpc_ca_file"
        ):
            fetch(server.uri(), ca_certificates=trusted)
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            opened(server.uri(), ca_certificates=trusted).call(x_feeds(1))
    with pytest.raises(ModelNotFound, match=r"a server with TLS needs https://"):
        fetch(server.uri().replace("https", "http"))
    with pytest.raises(ModelNotFound, match=r"Hostname mismatch"):
        fetch(server.uri().replace("127.0.0.1", "localhost"), ca_certificates=certificate.text)


def test_tls_to_a_server_without_it(serve: Any) -> None:
    with pytest.raises(ModelNotFound, match=r"connection failed: .*; check that .* a server without TLS needs http://"):
        fetch(serve(serving_model).uri().replace("http", "https"))


def test_deadlines_over_tls(serve: Any, tmp_path: Path) -> None:
    certificate = Certificate()
    server = serve(
        lambda _: trickling(b"HTTP/1.1 200 OK\r\n\r\n", server.stopping), tls=certificate.server_context(tmp_path)
    )
    model = opened(server.uri(), ca_certificates=certificate.text, rpc_timeout_secs=SOON_SECS)
    with pytest.raises(TimedOut):
        connected(lambda: model.call(x_feeds(1)))
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(Unavailable, match=r"cannot be reached: no connection within 0.1 s"),
    ):
        uri = f"https://127.0.0.1:{silent.getsockname()[1]}/v1/models/m"
        opened(uri, rpc_timeout_secs=SOON_SECS).call(x_feeds(1))


def test_a_server_that_reads_slowly_over_tls(tmp_path: Path) -> None:
    certificate = Certificate()
    context = certificate.server_context(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        reader = HeldReader(listening, context)
        reading = pool.submit(reader.count)
        uri = f"https://127.0.0.1:{listening.getsockname()[1]}/v1/models/m"
        model = opened(uri, ca_certificates=certificate.text, rpc_timeout_secs=SOON_SECS)
        feeds = {"x": np.full(2_000_000, 10**8)}
        while not reader.begun.is_set():
            with pytest.raises(TimedOut):
                connected(lambda: model.call(feeds))
        reader.go_on.set()
        assert 0 < reading.result(PATIENCE_SECS) < 10 * 2_000_000


def test_certificates_that_are_none() -> None:
    with pytest.raises(UsageError, match="--rpc_ca_file holds no PEM certificates: "):
        fetch("https://127.0.0.1:1/v1/models/m", ca_certificates="hello")


def test_a_client_does_without_tensorflow(serve: Any) -> None:
    without = ("tensorflow", "tensorflow_serving", "apache_beam", "grpc")
    check_light_client(serve(serving_model).uri(), without=without)


def test_answers_in_the_form_of_the_request(serve: Any) -> None:
    """One output comes without its name."""

    def answer(request: Request) -> Any:
        outputs = doubled(request)
        if "outputs" in outputs:
            return {"outputs": outputs["outputs"]["y"]}
        return {"predictions": [row["y"] for row in outputs["predictions"]]}

    server = serve(answer)
    for rest_format in ("columns", "rows"):
        model = opened(server.uri(), X_TO_Y.with_outputs(("y",)), rest_format=rest_format)
        assert model.call(x_feeds(3, 4)).arrays["y"].tolist() == [6, 8]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{\n    "error": "no such key: \xff\xfe"\n}', "no such key: \ufffd\ufffd"),
        (b'{ "error": "it\\\'s \\377" }', "it's \ufffd"),
        (b'{"error": "plain"}', "plain"),
        (b'{"error": "a", "code": 5}', None),
        (b"\xff", None),
    ],
)
def test_the_text_of_an_error_may_hold_any_bytes(body: bytes, text: str | None) -> None:
    assert serving_text(body) == text


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_may_say_when_to_come_again(serve: Any, status: int) -> None:
    server = serve(lambda _: Reply(status, b"", {"Retry-After": "7"}))
    with pytest.raises(Overloaded) as error:
        opened(server.uri()).call(x_feeds(1))
    assert error.value.retry_after_secs == 7.0

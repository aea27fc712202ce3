"""Online calls: predict, rawPredict, and the form without TLS that peered endpoints have."""

import dataclasses
import json
import math
import threading
from typing import Any

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from sluice.models.server.predict import Predictor
from sluice.models.server.rest_response import render as render_container
from sluice.models.server.rest_server import predict_json
from sluice.models.server.status import StatusError, invalid
from sluice.models.server.store import Spec
from sluice.models.server.vertex.faults import FaultGate
from sluice.models.server.vertex.limits import DEDICATED_BYTES
from sluice.models.server.vertex.resources import Deployed, Resources
from sluice.models.server.vertex.wire import Reply, Request, loads, parse, render

# Documented as headers of rawPredict's answers only.
ENDPOINT_ID, DEPLOYED_MODEL_ID = "X-Vertex-AI-Endpoint-Id", "X-Vertex-AI-Deployed-Model-Id"
_INT64 = 2.0**63


@dataclasses.dataclass(frozen=True)
class Online:
    """Answers online calls by the containers of deployed models, which are TF Serving's."""

    predictor: Predictor
    resources: Resources
    gate: FaultGate

    def predict(self, request: Request, endpoint: str) -> Reply:
        """Answers predict: all numbers are doubles on their way, there and back.

        Raises:
          StatusError: the call fails.
        """
        limit = self._check_request(request, self.resources.limit(endpoint))
        message = parse(types.PredictRequest, request.body)
        if not message.instances:
            raise invalid("The request has no instances.")
        deployed = self.resources.choose(endpoint)
        answer = loads(self._container(deployed, _container_body(message)), "The answer of the model is not JSON:")
        reply = render(self._response(deployed, answer), request)
        plain = json.loads(reply.body, parse_float=_whole)
        body = json.dumps(plain, ensure_ascii=False).encode("utf-8", "surrogateescape")
        return Reply(200, self._check_answer(body, limit, endpoint, deployed))

    def raw_predict(self, request: Request, endpoint: str) -> Reply:
        """Answers rawPredict: the container's own body, there and back.

        Raises:
          StatusError: the call fails.
        """
        limit = self._check_request(request, self.resources.limit(endpoint))
        deployed = self.resources.choose(endpoint)
        headers = {ENDPOINT_ID: endpoint, DEPLOYED_MODEL_ID: deployed.id}
        faults = self.gate.faults
        try:
            body = self._container(deployed, request.body)
        except StatusError as error:
            if not faults.raw_errors:
                raise
            return Reply(error.http_status, error.message.encode("utf-8", "surrogateescape"), headers)
        body = self._check_answer(body, limit, endpoint, deployed)
        return Reply(200, body, {} if faults.without_headers else headers)

    def peering(self, request: Request, deployed_id: str) -> Reply:
        """Answers a call straight to the container of a deployed model, as within a peered network.

        Raises:
          StatusError: the call fails.
        """
        limit = self._check_request(request, DEDICATED_BYTES)
        deployed = self.resources.find_deployed(deployed_id)
        try:
            body = self._container(deployed, request.body)
        except StatusError as error:
            return Reply(error.http_status, error.message.encode("utf-8", "surrogateescape"))
        return Reply(200, self._check_answer(body, limit, "", deployed))

    def _check_request(self, request: Request, limit: int) -> int:
        most = self.gate.faults.max_request_bytes or limit
        if len(request.body) > most:
            raise invalid(f"Request payload size exceeds the limit: {most} bytes.")
        return limit

    def _check_answer(self, body: bytes, limit: int, endpoint: str, deployed: Deployed) -> bytes:
        most = self.gate.faults.max_answer_bytes or limit
        if len(body) > most:  # the text: python-aiplatform#190
            raise invalid(
                f"Failed to handle request. endpoint_id: {endpoint}, deployed_model_id: {deployed.id} with error: "
                f"`Response size too large. Received at least {len(body)} bytes; max is {most}.`"
            )
        return body

    def _container(self, deployed: Deployed, body: bytes) -> bytes:
        """Returns the body of the container's answer.

        Raises:
          StatusError: with the body of the container's error as its text.
        """
        with self.predictor.call(threading.Event()) as call:
            try:
                return predict_json(call, deployed.spec, body)
            except StatusError as error:
                text = render_container({"error": error.message}).decode("utf-8", "surrogateescape")
                raise StatusError(error.code, text) from error

    def _response(self, deployed: Deployed, answer: Any) -> types.PredictResponse:
        model_id = self.resources.model_name(deployed.spec.name).rpartition("/")[2]
        response = types.PredictResponse(
            deployed_model_id=deployed.id,
            model=f"{self.resources.parent}/models/{model_id}",
            model_version_id=_version(deployed.spec),
            model_display_name=deployed.spec.name,
        )
        # An answer without "predictions" cannot come from a request with "instances".
        json_format.ParseDict({"predictions": answer["predictions"]}, types.PredictResponse.pb(response))
        return response


def _version(spec: Spec) -> str:
    return str(spec.version)


def _container_body(message: types.PredictRequest) -> bytes:
    """Returns what the service sends to the container: what was a whole number is one again."""
    plain = json_format.MessageToDict(types.PredictRequest.pb(message))
    sent = {key: plain[key] for key in ("instances", "parameters") if key in plain}
    text = json.dumps(sent)
    return json.dumps(json.loads(text, parse_float=_whole)).encode()


def _whole(text: str) -> int | float:
    """Reads a double; as a whole number where it is one that fits into 64 bits."""
    number = float(text)
    is_negative_zero = not number and math.copysign(1.0, number) < 0
    return int(number) if number.is_integer() and abs(number) < _INT64 and not is_negative_zero else number

"""`sluice serve`: the command, its ready line, its ends."""

import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from sluice.pipelines.cli import main
from sluice.pipelines.commands.serve import DESCRIPTION
from tests.support.pubsub.streams import wait_until
from tests.support.servers import free_port
from tests.support.serving.model_servers import GrpcClient, RestClient, arrays, served
from tests.support.vertex.clients import write_lines


@pytest.mark.job
def test_it_serves_until_it_is_told_to_end_and_comes_back_on_its_ports(cases: Callable[[str], str]) -> None:
    x = {"x": np.array([4.0, 9.0], np.float32)}
    models = {"picky": cases("picky"), "other": cases("no_variables")}
    with served(models, "--labels", "stable=1", "--max_rows", "2", "--poll_secs", "0.1") as server:
        assert server.ready == (
            f"serving on grpc 127.0.0.1:{server.grpc_port}, rest http://127.0.0.1:{server.rest_port}: "
            "picky versions 1, other versions 1\n"
        )
        client = GrpcClient(server.grpc_port)
        assert arrays(client.predict("picky", x, label="stable"))["root"].tolist() == [2.0, 3.0]
        server.kill()
        with pytest.raises(grpc.RpcError) as error:
            client.predict("picky", x)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        client.close()

        server.start()
        rest = RestClient(server.rest_port)
        assert rest.predict("other", {"inputs": [0.0]}) == (200, {"outputs": [32.0]})
        status, answer = rest.predict("picky", {"inputs": [0, 1, 4]})
        assert (status, answer["error"]) == (400, "Task size 3 is larger than maximum input batch size 2")
        assert server.stop() == 0
        rest.close()


def test_the_help_says_what_it_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--help"])
    printed = capsys.readouterr().out
    assert DESCRIPTION in printed
    assert "It is NOT TF Serving" in DESCRIPTION
    for flag in ("grpc_port", "rest_port", "latency_ms", "error_rate", "error_code", "hang_rate", "max_rows", "seed"):
        assert re.search(rf"^  --{flag} ", printed, re.MULTILINE), flag


MODEL = ["--model", "nothing", "--name", "m"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (MODEL, "there is nothing at this path"),
        ([*MODEL, "--name", "n"], "1 --model and 2 different --name; each model needs its own name"),
        ([*MODEL, *MODEL], "2 --model and 1 different --name"),
        ([*MODEL, "--versions", "1", "--versions", "2"], "--versions is given 2 times for 1 models"),
        ([*MODEL, "--error_rate", "2"], "--error_rate is 2.0"),
        ([*MODEL, "--grpc_port", "70000"], "--grpc_port is 70000; a port is from 0 to 65535"),
        ([*MODEL, "--poll_secs", "-1"], "--poll_secs is -1.0; it cannot be negative"),
    ],
)
def test_what_cannot_be_served_is_said(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["serve", *arguments]) == 2
    assert text in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--versions", "newest"], "'newest' is not the number of a version"),
        (["--labels", "stable"], "'stable' is not LABEL=VERSION,..."),
        (["--labels", "stable=x"], "'x' is not the number of a version"),
        (["--port", "1"], "unrecognized arguments: --port 1"),
    ],
)
def test_flags_that_do_not_parse(flags: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", *MODEL, *flags])
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["grpc_port", "rest_port"])
def test_a_port_in_use_is_said_before_anything_is_loaded(
    flag: str, cases: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"grpc_port": "--rest_port", "rest_port": "--grpc_port"}[flag]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ["--model", cases("picky"), "--name", "m", f"--{flag}", str(port), other, "0"]
        assert main(["serve", *arguments]) == 2
    assert f"--{flag} {port}: Address already in use; give another port" in capsys.readouterr().err


@pytest.mark.job
def test_it_offers_a_local_vertex_ai(cases: Callable[[str], str], tmp_path: Path) -> None:
    port = free_port()
    with served({"picky": cases("picky")}, "--vertex", "--vertex_port", str(port)) as server:
        assert server.ready.startswith("serving on grpc ")
        lines = [server.stdout.readline().strip() for _ in range(3)]
        parent = "vertex://projects/local/locations/us-central1"
        assert lines == [
            f"serving Vertex AI's API: --vertex_endpoint http://127.0.0.1:{port}",
            f"--model {parent}/endpoints/picky",
            f"--model {parent}/models/picky",
        ]
        rest = RestClient(port)
        path = "/v1/projects/local/locations/us-central1"
        response = rest.request("POST", f"{path}/endpoints/picky:rawPredict", {"instances": [4.0]})
        assert (response.status, json.loads(response.data)) == (200, {"predictions": [2.0]})
        job = {
            "displayName": "a job",
            "model": f"{path.removeprefix('/v1/')}/models/picky",
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [write_lines(tmp_path / "in", [4.0])]}},
            "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": str(tmp_path)}},
            "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-4"}},
        }
        made = rest.request("POST", f"{path}/batchPredictionJobs", job)
        url = f"/v1/{json.loads(made.data)['name']}"
        wait_until(lambda: "endTime" in json.loads(rest.request("GET", url).data))
        assert json.loads(rest.request("GET", url).data)["state"] == "JOB_STATE_SUCCEEDED"
        rest.close()

"""Calls about models and jobs, by the real generated clients, of the local service."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials, Credentials

from sluice.models.errors import Overloaded, ServerFault, SluiceError, Unavailable, UsageError
from sluice.pipelines.managed.client import JobClient
from sluice.pipelines.managed.errors import NoSuchResource
from sluice.pipelines.managed.job import State, Stats
from tests.support.servers import free_port
from tests.support.serving.local_server import Handler, LocalServer
from tests.support.vertex.jobs import Pauses, client_of, ended, plus_two, request_of, states
from tests.support.vertex.service import VertexService, vertex_service

CALLS = ("getModel", "createJob", "listJobs", "getJob", "cancelJob")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[VertexService]:
    with vertex_service({"m": plus_two([-1]).write(tmp_path / "model" / "3")}, methods=CALLS) as running:
        yield running


def test_a_model_with_its_version(service: VertexService) -> None:
    name = service.model_uri("m").removeprefix("vertex://")
    model = client_of(service).model(f"{name}@default")
    assert (model.version, model.display_name) == ("3", "m")
    assert model.versioned_name.endswith("@3") and "@" not in model.name
    assert "jsonl" in model.input_formats and model.artifact_uri.endswith("/3")


def test_a_job_from_its_creation_to_its_end(service: VertexService, tmp_path: Path) -> None:
    client = client_of(service)
    made = client.create(request_of(service, tmp_path))
    assert (made.state, made.label, made.attempt) == (State.QUEUED, "s1", 1)
    assert made.token and made.created and made.inputs == (str(tmp_path / "rows.jsonl"),)
    done = ended(client, made)
    assert (done.state, done.stats) == (State.SUCCEEDED, Stats(10, 0, 0))
    lines = [line for path in Path(done.output_directory).glob("prediction.results-*") for line in path.open()]
    assert sorted(json.loads(line)["prediction"] for line in lines) == [x / 2 + 2 for x in range(10)]
    assert client.find("s1") == [done]


def test_a_cancelled_job(service: VertexService, tmp_path: Path) -> None:
    service.faults.hold_jobs = True
    client = client_of(service)
    made = client.create(request_of(service, tmp_path))
    client.cancel(made.name)
    assert client.find("s1")[0].state is State.CANCELLING
    assert ended(client, made).state is State.CANCELLED


def test_jobs_of_a_label_over_several_pages(service: VertexService, tmp_path: Path) -> None:
    client = client_of(service, page_size=2)
    mine = [client.create(request_of(service, tmp_path, attempt=number)) for number in range(1, 6)]
    client.create(request_of(service, tmp_path, label="s12"))
    service.calls.clear()
    assert [job.name for job in client.find("s1")] == [job.name for job in mine]
    assert service.calls.count("listJobs") == 3
    assert client.find("s99") == []


@pytest.mark.parametrize("lost", ["createJob", "cancelJob", "getJob", "listJobs", "getModel"])
def test_an_answer_that_is_lost_is_asked_for_again(service: VertexService, tmp_path: Path, lost: str) -> None:
    service.faults.hold_jobs = True
    service.faults.lost_answers += [lost]
    pauses = Pauses()
    client = client_of(service, pauses)
    client.model(service.model_uri("m").removeprefix("vertex://"))
    job = client.create(request_of(service, tmp_path))
    client.get(job.name)
    client.find("s1")
    client.cancel(job.name)
    assert not service.faults.lost_answers and len(pauses.slept) == 1
    assert len(states(service)) == 1


def test_a_create_call_without_an_answer_makes_one_job(service: VertexService, tmp_path: Path) -> None:
    service.faults.lost_answers += ["createJob", "listJobs"]
    job = client_of(service).create(request_of(service, tmp_path))
    assert [message.name for message in service.jobs.messages()] == [job.name]
    assert service.calls.count("createJob") == 1


def test_a_create_call_that_did_not_arrive_is_repeated(service: VertexService, tmp_path: Path) -> None:
    service.faults.next_errors += ["UNAVAILABLE", "INTERNAL"]
    client_of(service).create(request_of(service, tmp_path))
    assert len(states(service)) == 1


def test_a_job_of_another_command_is_not_taken_for_the_lost_one(service: VertexService, tmp_path: Path) -> None:
    other = client_of(service).create(request_of(service, tmp_path))
    service.faults.next_errors += ["UNAVAILABLE"]
    mine = client_of(service).create(request_of(service, tmp_path))
    assert mine.name != other.name and mine.token != other.token


@pytest.mark.parametrize(
    "code,kind,tries",
    [("RESOURCE_EXHAUSTED", Overloaded, 6), ("UNAVAILABLE", Unavailable, 6), ("INTERNAL", ServerFault, 4)],
)
def test_errors_that_do_not_pass(service: VertexService, code: str, kind: type[SluiceError], tries: int) -> None:
    service.faults.next_errors += [code] * 20
    pauses = Pauses()
    with pytest.raises(kind, match="cannot list batch prediction jobs: projects/p/locations/l: "):
        client_of(service, pauses, retry_secs=60).find("s1")
    assert service.calls.count("listJobs") == tries
    assert pauses.slept == [1, 2, 4, 8, 16][: tries - 1]  # the next pause would end after 60 s


def test_the_server_says_how_long_to_wait(service: VertexService) -> None:
    service.faults.next_errors += ["RESOURCE_EXHAUSTED", "UNAVAILABLE"]
    service.faults.retry_after = "17"
    pauses = Pauses()
    assert client_of(service, pauses).find("s1") == []
    assert pauses.slept == [17, 17]


def test_a_server_that_is_gone_for_a_while(service: VertexService) -> None:
    pauses = Pauses()
    client = client_of(service, pauses)
    with service.gone():
        with pytest.raises(Unavailable, match="cannot list batch prediction jobs"):
            client_of(service, retry_secs=10).find("s1")
        stopped = len(service.calls.all())
    assert client.find("s1") == [] and len(service.calls.all()) == stopped + 1


@pytest.mark.parametrize(
    "code,words",
    [
        (
            "PERMISSION_DENIED",
            "needs the permission aiplatform.batchPredictionJobs.create, and iam.serviceAccounts.act",
        ),
        ("INVALID_ARGUMENT", "cannot create a batch prediction job: projects/p/locations/l: an error that"),
        ("UNAUTHENTICATED", "--vertex_endpoint is sent none"),
    ],
)
def test_errors_that_need_the_user(service: VertexService, tmp_path: Path, code: str, words: str) -> None:
    service.faults.next_errors += [code]
    with pytest.raises(UsageError, match=words):
        client_of(service).create(request_of(service, tmp_path))
    assert states(service) == []


PERMISSIONS = {
    "model": "aiplatform.models.get",
    "find": "aiplatform.batchPredictionJobs.list",
    "get": "aiplatform.batchPredictionJobs.get",
    "cancel": "aiplatform.batchPredictionJobs.cancel",
}


@pytest.mark.parametrize("method,permission", PERMISSIONS.items())
def test_each_call_names_its_permission(service: VertexService, method: str, permission: str) -> None:
    service.faults.next_errors += ["PERMISSION_DENIED"]
    client = client_of(service)
    name = {"find": "s1", "model": f"{client.parent}/models/m"}.get(method, f"{client.parent}/batchPredictionJobs/1")
    with pytest.raises(UsageError, match=f"The caller needs the permission {permission}; roles/aiplatform.user has"):
        getattr(client, method)(name)


def test_what_does_not_exist(service: VertexService) -> None:
    client = client_of(service)
    with pytest.raises(NoSuchResource, match=r"models/99 does not exist: .*; check project, location and ID"):
        client.model(f"{client.parent}/models/99")
    with pytest.raises(NoSuchResource, match="batchPredictionJobs/99 does not exist"):
        client.get(f"{client.parent}/batchPredictionJobs/99")
    with pytest.raises(UsageError, match="cannot list batch prediction jobs: projects/other/locations/l"):
        JobClient("other", "l", service.url).find("s1")


def test_errors_in_a_list_are_read_as_well(service: VertexService) -> None:
    service.faults.errors_as_array = True
    service.faults.next_errors += ["INVALID_ARGUMENT"]
    with pytest.raises(UsageError, match="an error that the local service was told to return"):
        client_of(service).find("s1")


def test_no_token_goes_to_a_server_without_tls(service: VertexService) -> None:
    client_of(service).find("s1")
    assert {call.authorization for call in service.calls.all()} == {""}


class _Token(Credentials):  # type: ignore[misc]
    """A token, as google.auth's credentials have it."""

    def refresh(self, request: Any) -> None:
        self.token = "t0k3n"


def test_the_token_of_credentials_is_sent(service: VertexService) -> None:
    JobClient("p", "l", service.url, _Token()).find("s1")
    assert {call.authorization for call in service.calls.all()} == {"Bearer t0k3n"}


def test_what_is_no_json_is_an_error_of_the_server() -> None:
    class Page(Handler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")

    with (
        contextlib.closing(LocalServer(Page)) as page,
        pytest.raises(ServerFault, match="cannot list batch prediction jobs"),
    ):
        pauses = Pauses()
        JobClient("p", "l", page.url, AnonymousCredentials(), sleep=pauses.sleep, clock=pauses.clock).find("s1")


def test_nobody_listens() -> None:
    pauses = Pauses()
    client = JobClient(
        "p", "l", f"http://127.0.0.1:{free_port()}", retry_secs=5, sleep=pauses.sleep, clock=pauses.clock
    )
    with pytest.raises(Unavailable, match=r"cannot list batch prediction jobs: projects/p/locations/l: .*refused"):
        client.find("s1")
    assert pauses.slept == [1, 2]


def test_the_generated_client_is_imported_when_a_call_is_made() -> None:
    code = (
        "import sys; from sluice.pipelines.managed.client import JobClient; "
        "JobClient('p', 'l', 'http://127.0.0.1:1'); assert 'google.cloud.aiplatform_v1' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

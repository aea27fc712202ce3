"""Which ways are compared."""

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.compare.ways import find_ways

VERTEX = "vertex://projects/p/locations/l/endpoints/e"
JOB = "vertex://projects/p/locations/l/models/m"


def names(*arguments: object) -> list[tuple[str, str]]:
    return [(way.name, way.model) for way in find_ways("m", *arguments)]  # type: ignore[arg-type]


def test_without_endpoints_the_reference_server_is_compared() -> None:
    assert names(()) == [("worker", "m"), ("grpc", ""), ("rest", "")]
    assert [way.is_reference for way in find_ways("m", ())] == [False, True, True]


def test_given_endpoints_take_its_place() -> None:
    given = ("grpc://h:8500/n", "https://h/v1/models/n", "grpc://other:8500/n")
    assert names(given) == [("worker", "m"), ("grpc", given[0]), ("rest", given[1]), ("grpc-2", given[2])]
    assert names((VERTEX,), "", True) == [("worker", "m"), ("vertex", VERTEX)]


def test_a_managed_job_is_compared_last_and_beside_the_reference_server() -> None:
    assert names((JOB,), "", True) == [("worker", "m"), ("grpc", ""), ("rest", ""), ("vertex_job", JOB)]
    assert names((JOB, "grpc://h:8500/n"), "", True) == [
        ("worker", "m"),
        ("grpc", "grpc://h:8500/n"),
        ("vertex_job", JOB),
    ]
    assert names((JOB,), "vertex_job", True) == [("vertex_job", JOB)]


def test_one_way_only() -> None:
    assert names((), "worker") == [("worker", "m")]
    assert names(("grpc://h:8500/n",), "grpc") == [("grpc", "grpc://h:8500/n")]


@pytest.mark.parametrize(
    ("model", "endpoints", "only", "said"),
    [
        ("grpc://h:8500/n", (), "", "give the SavedModel, and its servers by --endpoint"),
        ("vertex://projects/p/locations/l/models/m", (), "", "give the SavedModel"),
        ("m", ("/a/directory",), "", "--endpoint /a/directory: it is no server's"),
        ("m", ("grpc://h:8500/n",), "rest", "--only rest: give an --endpoint of this kind"),
        ("m", (), "vertex", "give an --endpoint"),
        ("m", (VERTEX,), "", "calls and jobs of Vertex AI cost money; --measure_managed runs them"),
        ("m", ("grpc://h:8500/n", JOB), "", f"--endpoint {JOB}: calls and jobs"),
    ],
)
def test_what_is_no_way_is_refused(model: str, endpoints: tuple[str, ...], only: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_ways(model, endpoints, only)


def test_what_is_to_be_measured_has_to_be_named() -> None:
    with pytest.raises(UsageError, match="--measure_managed: name what is to be measured by --endpoint"):
        find_ways("m", ("grpc://h:8500/n",), managed=True)


def test_what_is_pasted_for_the_reference_server_is_a_servers_form() -> None:
    assert [way.uri for way in find_ways("m", ())] == ["m", "grpc://HOST:8500/NAME", "http://HOST:8501/v1/models/NAME"]

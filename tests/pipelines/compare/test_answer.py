"""The answer to measurements that are given: ranks, ties, recommendations, costs, claims, text, JSON, config."""

import dataclasses
import json
from collections.abc import Sequence

import pytest

from sluice.pipelines.compare.answer import Answer, Goals, answer
from sluice.pipelines.compare.claims import FAILS, HOLDS, PARTLY, TIED, UNKNOWN, claims
from sluice.pipelines.compare.costing import Use, per_million
from sluice.pipelines.compare.costs import Cost
from sluice.pipelines.compare.found import Found, Job, Stream, to_stream
from sluice.pipelines.compare.managed import managed_ways
from sluice.pipelines.compare.prices import read_prices
from sluice.pipelines.compare.result import Result, to_json
from sluice.pipelines.compare.stream import Answered, Load, schedule
from sluice.pipelines.compare.subject import Loaded, Point
from sluice.pipelines.compare.text import render
from sluice.pipelines.compare.ways import find_ways

WORKER, GRPC, REST = find_ways("model", ())
PRICES = read_prices()
MILLION = 1_000_000


def measured(way: object, secs: Sequence[float], cpu: float, server: float | None = None, **more: object) -> Found:
    """A way whose jobs of a million rows took so many seconds, after a start of 3 s."""
    one = Job(0, Cost(3.0, 4.0, 500), None if server is None else 1.0)
    many = [Job(MILLION, Cost(3.0 + each, 4.0 + cpu, 800), None if server is None else 1.0 + server) for each in secs]
    loaded = Loaded(0.5, 60.0, 1000, 0, 1000, 4096, 1)
    found = Found(way, loaded, starts=[one] * len(many), jobs=many)  # type: ignore[arg-type]
    found.server_mb = None if server is None else 600.0
    return dataclasses.replace(found, **more)  # type: ignore[arg-type]


def stream(rate: float, p50: float, mini_batches: bool = True, complete: bool = True) -> Stream:
    return Stream(Load(rate, 1000, mini_batches), 1000, complete, p50, 2 * p50, 3 * p50, (2.5 * p50, 3.5 * p50))


def found_of(worker: Sequence[float] = (5, 5.2), grpc: Sequence[float] = (9, 9.5), **more: object) -> list[Found]:
    return [
        measured(WORKER, worker, cpu=8.0, **more),
        measured(GRPC, grpc, cpu=5.0, server=9.0),
        measured(REST, (14, 14.5), cpu=7.0, server=12.0),
    ]


def answered(found: list[Found], **goals: float) -> Answer:
    return answer(found, PRICES, Goals(**goals), cores=2)  # type: ignore[arg-type]


def test_ways_are_ranked_by_rows_a_second() -> None:
    found = answered(found_of()[::-1])
    assert [(line.found.way, line.rank, line.tied) for line in found.lines] == [
        (WORKER, 1, False), (GRPC, 2, False), (REST, 3, False)
    ]  # fmt: skip
    assert found.at_rest is found.lines[0]
    worker = found.lines[0]
    assert worker.found.rate is not None and worker.found.rate.median == pytest.approx(MILLION / 5.1, rel=0.001)
    assert worker.found.whole_rate is not None
    assert worker.found.whole_rate.median == pytest.approx(MILLION / 8.1, rel=0.001)
    assert worker.use == Use(8.0, 800, 2)
    assert found.lines[1].use == Use(5.0, 800, 2, 9.0, 600.0)


def test_ties_are_named_and_the_one_without_a_server_is_taken() -> None:
    """The server's machine is cheaper, so that gRPC would be the cheapest."""
    found = found_of(worker=(9, 11), grpc=(8.5, 9.5))
    cheap = [found[0], measured(GRPC, (8.5, 9.5), cpu=1.0, server=1.0), found[2]]
    result = answered(cheap)
    assert [(line.rank, line.tied) for line in result.lines] == [(1, True), (1, True), (3, False)]
    assert result.at_rest is not None and result.at_rest.found.way is WORKER
    apart = answered([measured(WORKER, (20, 21), cpu=30.0), cheap[1], cheap[2]])
    assert apart.at_rest is not None and apart.at_rest.found.way is GRPC


def test_goals_are_answered_with_the_workers_that_they_need() -> None:
    found = found_of(streams=[stream(500, 2), stream(1000, 3), stream(2000, 90)])
    result = answered(found, rows=1000 * MILLION, deadline_secs=3600, target_qps=2500, rows_per_month=10**9)
    worker = result.lines[0]
    assert worker.for_rows is not None and worker.for_rows.count == 2 and not worker.for_rows.measured
    assert worker.for_qps is not None and worker.for_qps.count == 3
    assert "2,500 rows/s / 1,000 rows/s" in worker.for_qps.formula
    assert worker.month is not None and worker.month > 50
    assert result.in_stream is worker
    strict = answered(found, target_qps=100, target_p99_ms=8.0)
    assert strict.lines[0].stream is not None and strict.lines[0].stream.load.rate == 500


def test_nothing_measured_is_no_answer() -> None:
    result = answered([Found(WORKER, failed="no such model"), Found(GRPC)])
    assert result.at_rest is None and result.in_stream is None and result.crossings == {}
    assert {claim.verdict for claim in claims(result)} == {UNKNOWN}
    assert "no such model" in render(as_result(result))


CASES = {
    "the worker is fastest": (found_of(), 0, PARTLY),
    "the endpoint is fastest": (found_of(worker=(20, 21)), 0, FAILS),
    "they tie": (found_of(worker=(9, 10)), 0, TIED),
    "one way only": (found_of()[:1], 0, UNKNOWN),
    "no streams": (found_of(), 1, UNKNOWN),
    "the endpoint of one's own only adds": (found_of(), 3, FAILS),
}


@pytest.mark.parametrize("name", CASES)
def test_claims_on_jobs(name: str) -> None:
    found, number, verdict = CASES[name]
    assert claims(answered(found))[number].verdict == verdict


@pytest.mark.parametrize(("worker_p50", "verdict"), [(1.0, HOLDS), (9.0, FAILS), (2.9, TIED), (3.1, TIED)])
def test_claims_on_latency_are_of_one_rate(worker_p50: float, verdict: str) -> None:
    found = found_of(streams=[stream(500, worker_p50), stream(1000, 99)])
    found[1].streams = [stream(250, 0.1), stream(500, 3.0)]
    claim = claims(answered(found))[1]
    assert claim.verdict == verdict and "at 500 messages a second" in claim.reason


@pytest.mark.parametrize(
    ("grpc_alone", "grpc_together", "verdict"), [(100, 3000, HOLDS), (400, 400, FAILS), (400, 4100, TIED)]
)
def test_the_claim_on_mini_batches_compares_the_rates_that_are_held(
    grpc_alone: float, grpc_together: float, verdict: str
) -> None:
    """The worker holds 400 alone and 4,000 together."""
    found = found_of(streams=[stream(400, 1, False), stream(4000, 1), stream(8000, 1, complete=False)])
    found[1].streams = [stream(grpc_alone, 1, False), stream(grpc_together, 1)]
    assert claims(answered(found))[2].verdict == verdict


def test_copies_that_cost_more_than_an_endpoint_are_told() -> None:
    slow = [measured(WORKER, (900, 910), cpu=1800.0), measured(GRPC, (900, 910), cpu=5.0, server=1800.0)]
    result = answered(slow)
    assert result.crossings["grpc"] is not None
    assert claims(result)[3].verdict == HOLDS and "grpc costs less than copies" in claims(result)[3].reason


def as_result(found: Answer, flags: tuple[str, ...] = (), interrupted: bool = False) -> Result:
    return Result("model", found, managed_ways(None, PRICES), PRICES, 0.0, flags, ("a note",), interrupted)


def test_the_text_has_all_of_it() -> None:
    found = found_of(streams=[stream(500, 2)], stages={"read": 1.5, "call": 4.25}, best=Point(1024, 0))
    result = as_result(answered(found, rows=10**9, deadline_secs=3600.0), ("--signature=other one",))
    text = render(result)
    for part in ("1  in the worker", "2  endpoint over gRPC", "not measured", "1,024", "1.50", "4.25", "500", "a note"):
        assert part in text, part
    assert "sluice batch --model=model '--signature=other one' --max_batch_size=1024 --input" in text
    assert "extrapolated from one worker" in text and "ceil(1,000,000,000 rows" in text
    assert text.count("Vertex AI") >= 2


def test_the_json_has_all_of_it() -> None:
    found = found_of(streams=[stream(500, 2)], searched={Point(): [1.0, 2.0], Point(64): [3.0]})
    record = json.loads(to_json(as_result(answered(found), interrupted=True)))
    assert record["interrupted"] and record["at_rest"] == "worker" and len(record["claims"]) == 4
    worker = record["ways"][0]
    assert worker["marginal_us"] == pytest.approx([5.0, 5.2]) and worker["cpu_us"] == pytest.approx([8.0, 8.0])
    assert worker["streams"][0]["p99_between_ms"] == [5.0, 7.0] and worker["streams"][0]["load"]["rate"] == 500
    assert worker["searched"][1] == {"max_batch_size": 64, "max_in_flight": 0, "rows_per_second": [3.0]}
    assert record["prices"]["batch_vcpu_hour"]["source"].startswith("https://")


def test_managed_ways_are_reckoned_from_the_reference_server() -> None:
    """3.6 s of CPU for a million rows are 0.001 h of a vCPU."""
    job, online = managed_ways(Use(1.0, 500, 2, server_us=3.6), PRICES)
    assert job.million == online.million == pytest.approx(0.001 * PRICES.vertex_node_hour / 4)
    assert online.month == pytest.approx(730 * PRICES.vertex_node_hour) and job.month == 0
    assert managed_ways(None, PRICES)[0].million is None


(MANAGED,) = find_ways("model", ("vertex://projects/p/locations/l/models/m",), "vertex_job", True)


def managed_job(secs: float) -> Found:
    """A managed job whose machine takes 600 s to start, and so long for a million rows."""
    one = Job(0, Cost(603.0, 4.0, 500), node_secs=600.0)
    return Found(MANAGED, starts=[one], jobs=[Job(MILLION, Cost(605.0 + secs, 14.0, 600), node_secs=600.0 + secs)])


def test_a_managed_job_that_was_measured_is_ranked_and_priced_by_its_machines() -> None:
    """The machine ran for 3.6 s more, which are 0.001 h; the command took 10 s of CPU to prepare and to join."""
    (line,) = answered([managed_job(3.6)], rows_per_month=10 * MILLION).lines
    client = per_million(Use(10.0, 600, 2), PRICES)
    assert line.million == pytest.approx(client + 0.001 * PRICES.vertex_node_hour)
    assert line.month == pytest.approx(10 * (line.million or 0)), "it is paid for its rows, and not around the clock"
    assert line.flags == [] and line.found.start_secs is not None and line.found.start_secs.median == 603.0


@pytest.mark.parametrize("less", [10.0, 0.0])
def test_what_start_up_hides_of_a_managed_job_is_not_known(less: float) -> None:
    """One of two machines was given back sooner after a million rows than after one: its start took longer before."""
    found = managed_job(3.6)
    sooner = dataclasses.replace(found.jobs[0], node_secs=600.0 - less)
    found = dataclasses.replace(found, starts=found.starts * 2, jobs=[*found.jobs, sooner])
    (line,) = answered([found], rows_per_month=MILLION).lines
    assert found.node_us is None and found.rate is not None
    assert (line.million, line.month) == (None, None)
    assert json.loads(to_json(as_result(answered([found]))))["ways"][0]["managed_job_us"] is None


def test_what_noise_hides_of_a_server_is_not_known() -> None:
    assert measured(GRPC, (9, 9.5), cpu=5.0, server=-0.1).server_cpu_us is None


@pytest.mark.parametrize(("secs", "verdict"), [(1.0, HOLDS), (30.0, FAILS), (3.0, TIED)])
def test_the_claim_on_the_managed_job_is_settled_by_measuring_it(secs: float, verdict: str) -> None:
    result = answered([*found_of(), managed_job(secs)])
    claim = claims(result)[0]
    assert claim.verdict == verdict and "from the managed job" in claim.reason
    assert result.crossings.keys() == {"grpc", "rest"}
    text = render(dataclasses.replace(as_result(result), managed=managed_ways(None, PRICES, {"vertex_job"})))
    assert "Vertex AI online (not measured)" in text and "Vertex AI batch job (not measured)" not in text


def test_in_a_stream_the_cheapest_way_at_the_wanted_rate_is_taken_or_else_the_highest() -> None:
    found = [measured(WORKER, (900, 910), cpu=1800.0), measured(GRPC, (900, 910), cpu=5.0, server=1800.0)]
    found[0].streams, found[1].streams = [stream(900, 1)], [stream(800, 1)]
    wanted, free = answered(found, target_qps=100_000), answered(found)
    assert wanted.in_stream is not None and wanted.in_stream.found.way is GRPC, "a server's vCPU costs less"
    assert free.in_stream is not None and free.in_stream.found.way is WORKER
    found[0].streams, found[1].streams = [stream(800, 1)], [stream(900, 1)]
    near = answered(found)
    assert near.in_stream is not None and near.in_stream.found.way is WORKER, "900 and 800 cannot be told apart"
    found[1].streams = [stream(1000, 1)]
    far = answered(found)
    assert far.in_stream is not None and far.in_stream.found.way is GRPC


def test_a_way_that_holds_little_does_not_win_a_stream_by_the_cpu_of_its_rows() -> None:
    """At rest a row of it costs least, but one worker of it holds a hundredth of what the other holds."""
    found = [measured(WORKER, (9, 9.1), cpu=20.0), measured(GRPC, (5, 5.1), cpu=1.0, server=1.0)]
    found[0].streams, found[1].streams = [stream(5000, 1)], [stream(50, 1), stream(100, 9, complete=False)]
    result = answered(found, target_qps=4000)
    assert result.in_stream is not None and result.in_stream.found.way is WORKER
    assert [line.for_qps.count for line in result.lines if line.for_qps] == [80, 1]
    text = render(as_result(result))
    assert "the wanted rate takes ceil(4,000 rows/s / 5,000 rows/s) = 1 worker (one worker like this" in text
    assert "= 80 machines like this one for workers and servers (extrapolated from one worker)" in text


def test_a_way_that_holds_no_rate_is_not_recommended_for_a_stream() -> None:
    found = [measured(WORKER, (5, 5.1), cpu=1.0), measured(GRPC, (9, 9.1), cpu=5.0, server=9.0)]
    found[0].streams, found[1].streams = [stream(50, 9)], [stream(50, 1)]
    result = answered(found, target_qps=10, target_p99_ms=5)
    assert result.in_stream is not None and result.in_stream.found.way is GRPC
    assert "in the worker: held no rate that was tried" in render(as_result(result))
    nothing = answered(found, target_qps=10, target_p99_ms=1)
    assert nothing.in_stream is None and "no way held a rate that was tried" in render(as_result(nothing))


def test_where_a_servers_cpu_is_not_known_no_cost_is_compared_with_it() -> None:
    """The job itself takes little, and what the endpoint takes nobody has counted."""
    given = find_ways("model", ("grpc://h:8500/n",))[1]
    slower = answered([measured(WORKER, (5, 5.1), cpu=8.0), measured(given, (9, 9.1), cpu=1.0)])
    assert slower.at_rest is not None and slower.at_rest.found.way is WORKER
    assert slower.lines[1].million is None and slower.lines[1].use is not None and slower.crossings == {}
    faster = answered([measured(WORKER, (9, 9.1), cpu=8.0), measured(given, (5, 5.1), cpu=1.0)])
    assert faster.at_rest is not None and faster.at_rest.found.way == given
    assert "what a server costs is not known" in render(as_result(faster))


def test_a_way_that_costs_hardly_less_does_not_beat_the_worker() -> None:
    found = [measured(WORKER, (5, 5.1), cpu=8.0), measured(GRPC, (9, 9.1), cpu=4.6, server=5.4)]
    result = answered(found)
    worker, grpc = (line.million for line in result.lines)
    assert worker is not None and grpc is not None and grpc < worker < 1.1 * grpc
    assert result.at_rest is not None and result.at_rest.found.way is WORKER
    assert "needs no server, and costs hardly more" in render(as_result(result))


def test_a_tie_behind_the_fastest_is_none_with_the_fastest() -> None:
    found = [
        measured(WORKER, (9, 9.5), cpu=8.0),
        measured(GRPC, (9.2, 9.6), cpu=5.0, server=9.0),
        measured(REST, (5, 5.1), cpu=50.0, server=60.0),
    ]
    result = answered(found)
    assert [(line.found.way, line.rank) for line in result.lines] == [(REST, 1), (WORKER, 2), (GRPC, 2)]
    assert result.at_rest is not None and result.at_rest.found.way is WORKER
    text = render(as_result(result))
    assert "At rest: in the worker, the cheapest: a row costs" in text and "ties with" not in text


def test_a_worker_that_ties_with_the_cheapest_is_not_called_hardly_dearer() -> None:
    found = [
        measured(WORKER, (9, 9.5), cpu=80.0),
        measured(GRPC, (9.2, 9.6), cpu=5.0, server=9.0),
        measured(REST, (5, 5.1), cpu=50.0, server=60.0),
    ]
    result = answered(found)
    assert result.at_rest is not None and result.at_rest.found.way is WORKER
    assert "which needs no server, and ties with the cheapest" in render(as_result(result))


def test_a_setting_that_the_user_gave_is_told_once() -> None:
    """A file for --config with a list of two would be refused."""
    result = as_result(answered(found_of(best=Point(64, 2))), ("--max_batch_size=64", "--signature=s"))
    assert result.answer.at_rest is not None
    assert result.flags(result.answer.at_rest) == ["--max_batch_size=64", "--signature=s", "--max_in_flight=2"]
    assert "--model=model --max_batch_size=64 --signature=s --max_in_flight=2 --input" in render(result)


def test_no_secret_is_in_what_is_to_be_pasted() -> None:
    flags = ("--rpc_headers=authorization=Bearer s3cret", "--rpc_headers=@headers.txt", "--signature=s")
    text = render(as_result(answered(found_of()), flags))
    assert "s3cret" not in text
    assert "--rpc_headers=... --rpc_headers=@headers.txt --signature=s" in text


def test_jobs_that_noise_has_turned_round_count_in_no_figure() -> None:
    found = measured(WORKER, (5, -1, 7), cpu=8.0)
    assert found.rate is not None and len(found.rate.values) == 2
    assert found.cpu_us is not None and len(found.cpu_us.values) == 2


def test_a_stream_that_has_fallen_behind_is_overloaded_although_all_was_answered() -> None:
    """At 165 a second the last answer came 4 s late: the next second would have been later still."""
    load = Load(165, 662, False)
    due = float(schedule(load)[-1])
    late = to_stream(load, Answered(tuple(6.0 * number for number in range(1, 663)), due + 3.9, True))
    well = to_stream(load, Answered((20.0,) * 662, due + 0.02, True))
    assert not late.complete and well.complete
    assert not to_stream(load, Answered((), 9.0, False)).complete

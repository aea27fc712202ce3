"""`Request` and `RequestQueue`: rows in one request, and requests that wait, are sent, and are sent again."""

import pyarrow as pa

from sluice.transforms.bigquery.append_requests import Part, Request, RequestQueue


def request(*sizes: int) -> Request[str]:
    """Parts of these sizes, from the sources "a", "b", ...; values are places in the request."""
    parts, start = [], 0
    for source, size in zip("abcdef", sizes, strict=False):
        values = pa.array(range(start, start + size), pa.int64())
        batch = pa.record_batch([values], names=["x"])
        parts.append(Part(batch, source, pa.array(range(10, 10 + size)).to_numpy()))
        start += size
    return Request.of(parts)


def values(requests: list[Request[str]]) -> list[list[int]]:
    return [[row for part in each.parts for row in part.batch.column("x").to_pylist()] for each in requests]


def queue_of(count: int, sent: int) -> tuple[RequestQueue[str], list[Request[str]]]:
    """A queue of requests of 1, 2, 3, ... rows, of which some are sent."""
    queue: RequestQueue[str] = RequestQueue()
    requests = [request(rows) for rows in range(1, count + 1)]
    for each in requests:
        queue.add(each)
    assert [found for found, _ in queue.send(sent)] == requests[:sent]
    return queue, requests


def drain(queue: RequestQueue[str]) -> list[tuple[Request[str], int]]:
    return list(queue.send(100))


def test_rows_are_found_and_left_out_by_their_places() -> None:
    whole = request(3, 2)
    assert list(whole.find({1, 3})) == [(1, "a", 11), (3, "b", 10)]
    assert values(whole.without({1, 3})) == [[0, 2, 4]]
    assert [part.source for each in whole.without({3, 4}) for part in each.parts] == ["a"]
    assert whole.without(set(range(5))) == []


def test_halves_keep_rows_sources_and_places() -> None:
    first, second = request(3, 2, 2).halves()
    assert values([first, second]) == [[0, 1, 2], [3, 4, 5, 6]]
    first, second = request(1, 4).halves()
    assert [(part.source, part.rows.tolist()) for part in (*first.parts, *second.parts)] == [
        ("a", [10]),
        ("b", [10]),
        ("b", [11, 12, 13]),
    ]


def test_requests_are_sent_in_order_with_the_rows_ahead_of_them() -> None:
    queue, requests = queue_of(3, sent=2)
    assert (len(queue), queue.is_idle, queue.first) == (3, False, requests[0])
    assert list(queue.send(2)) == []  # two are under way
    assert queue.accept() == requests[0]
    assert list(queue.send(2)) == [(requests[2], 2)]


def test_a_request_that_is_replaced_in_place_supersedes_those_behind_it() -> None:
    queue, requests = queue_of(4, sent=3)
    halves = requests[0].without(set()) * 2
    queue.replace(halves, in_place=True)
    assert [queue.skip_superseded() for _ in range(3)] == [True, True, False]
    assert [found for found, _ in drain(queue)] == [*halves, *requests[1:]]


def test_a_request_whose_rows_are_all_refused_leaves_no_answer_to_skip() -> None:
    queue, _ = queue_of(1, sent=1)
    queue.replace([], in_place=True)
    assert (len(queue), queue.is_idle, queue.skip_superseded()) == (0, True, False)


def test_a_request_without_a_place_goes_to_the_end() -> None:
    queue, requests = queue_of(3, sent=2)
    queue.replace([requests[0]], in_place=False)
    assert not queue.skip_superseded()
    assert queue.accept() == requests[1]  # it is still sent
    assert [found for found, _ in drain(queue)] == [requests[2], requests[0]]


def test_a_lost_connection_owes_nothing() -> None:
    queue, requests = queue_of(3, sent=2)
    queue.replace([requests[0]], in_place=True)
    drain(queue)
    queue.take_back()
    assert queue.is_idle and not queue.skip_superseded()
    assert queue.accept() == requests[0]  # it was in, as the connection said when it ended
    assert drain(queue) == [(requests[1], 0), (requests[2], 2)]

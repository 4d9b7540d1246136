"""Hostile requests over a socket, sent to the service running under gunicorn."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import Unchanged, running_master, running_service
from tests.support import hostile_requests
from tests.support.client import Api
from tests.support.faults.database import children
from tests.support.hostile_requests import (
    DEPOSIT,
    GET,
    GONE,
    HOST,
    IN_CHUNKS,
    POST,
    REFUSED,
    STALLED,
    UNUSUAL,
    Raw,
    Shape,
    Talk,
    connections,
)
from wallets.problems import CONTENT_TYPE

CLIENT_TIMEOUT_SECONDS = 3  # of the service, in these tests
ROUNDS = 5
MAX_GROWTH_BYTES = 20 * 1024 * 1024  # of a worker's memory; a leak would be far larger


@pytest.fixture(scope="module")
def master() -> Iterator[tuple[str, int]]:
    with running_master(
        KEEPALIVE=str(CLIENT_TIMEOUT_SECONDS), CLIENT_TIMEOUT=str(CLIENT_TIMEOUT_SECONDS)
    ) as started:
        yield started


@pytest.fixture(scope="module")
def contended(master: tuple[str, int]) -> str:
    return master[0]


def connect(service: str) -> Talk:
    address = urlsplit(service)
    return Talk((str(address.hostname), address.port or 80))


def converse(service: str, shape: Shape, wallet_id: str) -> list[Raw]:
    return hostile_requests.converse(connect(service), shape, wallet_id)


def exchange(service: str, *parts: bytes) -> Raw:
    """Send the parts unchanged. Return the response."""
    with connect(service) as talk:
        talk.say(*parts)
        answer = talk.hear()
    assert answer
    return answer


def assert_is_problem(answer: Raw, *codes: str) -> None:
    assert answer.headers["Content-Type"] == CONTENT_TYPE
    problem = json.loads(answer.body)
    assert problem["code"] in codes
    assert problem["status"] == answer.status
    assert problem["requestId"] == answer.headers["X-Request-ID"]


def statuses(answers: list[Raw]) -> tuple[int, ...]:
    return tuple(answer.status for answer in answers)


# --- Single requests --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.slow
def test_unusual_valid_request_is_served(contended: str, api: Api, name: str) -> None:
    shape, wallet_id = UNUSUAL[name], api.open()
    assert statuses(converse(contended, shape, wallet_id)) == shape.answers
    assert api.balance(wallet_id) == f"{shape.deposits}.00"


@pytest.mark.parametrize("name", REFUSED)
def test_ambiguous_request_is_refused_and_moves_no_money(
    contended: str, api: Api, unchanged: Unchanged, name: str
) -> None:
    shape, wallet_id = REFUSED[name], api.open()
    with unchanged(wallet_id):
        (answer,) = converse(contended, shape, wallet_id)
        assert (answer.status,) == shape.answers
        assert_is_problem(answer, "bad_request", "malformed_json", "payload_too_large")


@pytest.mark.parametrize("name", GONE)
def test_aborted_request_moves_no_money(contended: str, api: Api, unchanged: Unchanged, name: str) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        assert [answer for answer in converse(contended, GONE[name], wallet_id) if answer.status != 400] == []
        assert exchange(contended, GET + b"\r\n").status == 200


def test_stalled_clients_are_disconnected(contended: str, api: Api, unchanged: Unchanged) -> None:
    """Stall all clients at once: each takes as long as the service's timeout."""
    wallet_id = api.open()
    with unchanged(wallet_id), ThreadPoolExecutor(len(STALLED)) as pool:
        talks = {name: pool.submit(converse, contended, shape, wallet_id) for name, shape in STALLED.items()}
        assert {name: statuses(talk.result()) for name, talk in talks.items()} == {
            name: shape.answers for name, shape in STALLED.items()
        }


def test_slow_bytes_do_not_keep_a_connection_open(contended: str, api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    head, body, chunks = (
        Shape(name, sent, max_packet_bytes=1)
        for name, sent in (
            ("head", GET + b"X-A: b\r\n" * 100),
            ("body", POST + b"Content-Length: 1000\r\n\r\n" + b" " * 1000),
            ("chunks", IN_CHUNKS + b"1\r\n \r\n" * 1000),
        )
    )

    def drip(shape: Shape) -> list[int]:
        with connect(contended) as talk:
            parts = list(shape.parts(wallet_id))
            head_ends = shape.sent.index(b"\r\n\r\n") if b"\r\n\r\n" in shape.sent else 0
            talk.say(b"".join(parts[:head_ends]))
            for part in parts[head_ends:]:
                talk.say(part)
                time.sleep(0.05)
                if talk.has_something():
                    break
            return [answer.status for answer in iter(talk.hear, None)]

    with unchanged(wallet_id), ThreadPoolExecutor(3) as pool:
        assert list(pool.map(drip, (head, body, chunks))) == [[], [400], [400]]


def test_client_that_reads_no_responses_is_disconnected(master: tuple[str, int]) -> None:
    service, _ = master
    with connect(service) as talk:
        talk.socket.settimeout(0.5)  # nothing is read, so sending blocks when the buffers are full
        sent = 0
        try:
            while sent < 100_000_000:
                sent += talk.socket.send((GET.replace(b"livez", b"api/schema") + b"\r\n") * 10)
        except OSError:
            pass
        wait_until(lambda: not connections(service))


@pytest.mark.slow
def test_endless_request_does_not_block_other_clients(api: Api) -> None:
    done = threading.Event()
    with running_service(WORKERS="1") as service, ThreadPoolExecutor(1) as pool:

        def flood() -> int:
            sent = 0
            with connect(service) as talk:
                talk.say(GET + b"Transfer-Encoding: chunked\r\n\r\n")
                while not done.is_set():
                    talk.say(b"1\r\n \r\n" * 50_000)  # they cost the reader more than the sender
                    sent += 1
            return sent

        flooding = pool.submit(flood)
        try:
            for _ in range(5):
                assert exchange(service, GET + b"\r\n").status == 200
        finally:
            done.set()
        assert flooding.result() > 0


@pytest.mark.slow
def test_body_of_100_megabytes_is_refused_unread(service: str, live_api: Api, unchanged: Unchanged) -> None:
    wallet_id = live_api.open()
    head = b"".join(Shape("", POST).parts(wallet_id))
    megabyte = b" " * 1_000_000
    with unchanged(wallet_id):
        refused = exchange(service, head + b"Content-Length: 100000000\r\n\r\n", megabyte)
        sent = exchange(service, head + b"Content-Length: 100000000\r\n\r\n", *[megabyte] * 100)
        chunked = exchange(
            service, head + b"Transfer-Encoding: chunked\r\n\r\n", *[b"F4240\r\n" + megabyte + b"\r\n"] * 100
        )
        for answer in (refused, sent, chunked):
            assert answer.status == 413
            assert_is_problem(answer, "payload_too_large")


@pytest.mark.parametrize(
    "charset", [b"hex", b"rot13", b"idna", b"utf-16", b"unicode_escape", b"undefined", b"x"]
)
def test_text_is_read_as_utf_8_despite_another_charset(service: str, live_api: Api, charset: bytes) -> None:
    wallet_id = live_api.open(label="ключ")
    head = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += b"Content-Type: text/plain; charset=%s\r\n\r\n"
    for path, status in (
        (f"/api/v1/wallets/{wallet_id}?x=%41\\ud800", 200),
        ("/api/v1/wallets?limit=%31&limit=\\ud800", 400),
        ("/?x=%FF\\ud800", 200),
        ("/login?next=\\ud800", 200),
        ("/nope?" + "a&" * 1500, 404),
    ):
        assert exchange(service, head % (path.encode(), charset)).status == status
    form = b'--x\r\nContent-Disposition: form-data; name="email"\r\n\r\n\\ud800\r\n--x--\r\n'
    posted = exchange(
        service,
        b"POST /signup HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n" % len(form)
        + b"Content-Type: multipart/form-data; boundary=x; charset=%s\r\n\r\n" % charset,
        form,
    )
    assert posted.status == 403  # without the CSRF token


# --- Trusted proxies --------------------------------------------------------------------------------
@pytest.mark.slow
def test_local_client_is_not_trusted_as_a_proxy(api: Api) -> None:
    """By default, gunicorn trusts the scheme and the path prefix that a local client sends."""
    with running_service(HTTPS="on", WORKERS="1") as service:
        plain = b"GET /login HTTP/1.1\r\n" + HOST
        for claim in (b"", b"X-Forwarded-Proto: https\r\n", b"X-Forwarded-Ssl: on\r\n"):
            assert exchange(service, plain + claim + b"\r\n").status == 301
    with running_service(WORKERS="1") as service:
        file = b"GET /static/pages/icon.svg HTTP/1.1\r\n" + HOST
        assert exchange(service, file + b"SCRIPT_NAME: /static\r\n\r\n").status == 200
        assert exchange(service, file + b"\r\n").status == 200


# --- All requests repeatedly ------------------------------------------------------------------------
@pytest.mark.slow
def test_repeated_hostile_requests_leak_no_resources(
    master: tuple[str, int], api: Api, unchanged: Unchanged
) -> None:
    service, pid = master
    wallet_id = api.open()
    hostile = [*REFUSED.values(), *GONE.values(), *STALLED.values()]
    with unchanged(wallet_id), ThreadPoolExecutor(len(STALLED)) as pool:

        def everything() -> dict[int, tuple[int, int]]:
            list(pool.map(lambda shape: converse(service, shape, wallet_id), hostile))
            wait_until(lambda: not connections(service))
            return {worker: (memory(worker), files(worker)) for worker in children(pid)}

        everything()
        before = everything()
        for _ in range(ROUNDS):
            after = everything()
    assert after.keys() == before.keys()  # no worker has crashed or hung
    for worker, (bytes_before, files_before) in before.items():
        assert after[worker][0] < bytes_before + MAX_GROWTH_BYTES
        assert after[worker][1] <= files_before + len(after)  # the pool may have one more connection
    (served,) = converse(service, Shape("good", DEPOSIT), wallet_id)
    assert served.status == 201


def memory(pid: int) -> int:
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return resident * 4096


def files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)

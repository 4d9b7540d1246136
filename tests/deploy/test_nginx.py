"""The service behind the proxy of deploy/nginx, where clients reach it, slow and hostile ones too."""

import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.conf import settings

from local.postgres import free_port
from tests.conftest import running_service
from tests.support import hostile_requests
from tests.support.client import Api, OverHttp
from tests.support.hostile_requests import (
    DEPOSIT,
    GET,
    GONE,
    HOST,
    POST,
    REFUSED,
    SOCKET_TIMEOUT_SECONDS,
    UNUSUAL,
    Raw,
    Shape,
    Talk,
    connections,
)
from tests.support.nginx import CONFIG, Nginx
from wallets import problems
from wallets.problems import CONTENT_TYPE

pytestmark = pytest.mark.brokers

SLOW = 500  # clients
AT_ONCE = int(re.search(r"limit_conn walletsvc (\d+);", CONFIG.read_text())[1])  # type: ignore[index]
OTHER = "127.0.0.2"  # another client's address
BARE = "HTTP/0.9"  # nginx speaks it, and answers with the body alone
MENDED = {  # one request all the same: nginx leaves away what the service would refuse
    "expects something else",
    "chunk extension: NUL",
    "trailer: a host",
    "trailer: a length",
    "trailer: no colon",
}
MISDIRECTED = "another's full address"  # nginx hands its host on, and the service refuses it


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with running_service(
        HTTPS="on",
        TRUST_PROXY="on",
        KEEPALIVE="75",
        METRICS="on",
        RATE_LIMIT_ADDRESS="1000000/1d",  # for what it tells of the address
        WORKER_CONNECTIONS=str(AT_ONCE * 3 // 4),  # fewer than there are slow clients
    ) as address:
        yield address


@pytest.fixture(scope="module")
def proxy(service: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("nginx"), urlsplit(service).port or 0).running() as nginx:
        yield nginx


class OverTls(OverHttp):
    def __init__(self, proxy: Nginx, source: str = "127.0.0.1") -> None:
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1",
            proxy.port,
            timeout=SOCKET_TIMEOUT_SECONDS,
            context=trusting(proxy),
            source_address=(source, 0),
        )


def trusting(proxy: Nginx) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(proxy.certificate))


def connect(proxy: Nginx, source: str = "127.0.0.1") -> Talk:
    def wrap(plain: socket.socket) -> socket.socket:
        return trusting(proxy).wrap_socket(plain, server_hostname="127.0.0.1")

    return Talk(("127.0.0.1", proxy.port), wrap, source)


def exchange(proxy: Nginx, sent: bytes, source: str = "127.0.0.1") -> Raw:
    with connect(proxy, source) as talk:
        talk.say(sent)
        answer = talk.hear()
    assert answer
    return answer


@pytest.fixture
def api(proxy: Nginx) -> Iterator[Api]:
    sender = OverTls(proxy, OTHER)
    yield Api(sender)
    sender.connection.close()


def assert_is_problem(answer: Raw, kind: type[problems.Problem]) -> None:
    assert (answer.status, answer.headers["Content-Type"]) == (kind.status, CONTENT_TYPE)
    problem = json.loads(answer.body)
    assert problem.keys() == kind().as_json("").keys()
    assert (problem["code"], problem["status"], problem["type"]) == (kind.code, kind.status, "about:blank")
    assert problem["requestId"] == answer.headers["X-Request-ID"]
    assert answer.headers["Retry-After"] == kind.headers.get("Retry-After")


# --- What clients see -------------------------------------------------------------------------------
def test_the_api_is_as_it_is_without(api: Api) -> None:
    wallet_id = api.open("10.00")
    assert api.deposit(wallet_id, "1.00", key="k").status == 201
    assert api.deposit(wallet_id, "1.00", key="k").headers["idempotent-replayed"] == "true"
    read = api.get(f"/wallets/{wallet_id}", X_Request_ID="mine")
    assert (read.json["balance"], read.headers["x-request-id"]) == ("11.00", "mine")
    assert api.get(f"/wallets/{wallet_id}", If_None_Match=read.headers["etag"]).status == 304
    assert api.withdraw(wallet_id, "12.00").code == "insufficient_funds"
    assert "max-age" in read.headers["strict-transport-security"]


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"/login", b"127.0.0.1", 200),
        (b"/login", b"127.0.0.1:1", 200),
        (b"https://127.0.0.1/login", b"127.0.0.1", 200),
        (b"/login", b"evil.example", 400),
        # To RFC 9112 the host of the request line is the one that counts.
        (b"https://evil.example/login", b"127.0.0.1", 400),
        (b"https://127.0.0.1/login", b"evil.example", 200),
    ],
)
def test_the_service_reads_the_host_that_nginx_read(
    proxy: Nginx, target: bytes, host: bytes, status: int
) -> None:
    answer = exchange(proxy, b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, host))
    assert answer.status == status
    assert b"evil.example" not in answer.body


def test_plain_http_is_sent_to_https(proxy: Nginx) -> None:
    with Talk(("127.0.0.1", proxy.plain)) as talk:
        talk.say(GET.replace(b"livez", b"login") + b"\r\n")
        answer = talk.hear()
    assert answer
    assert answer.status == 301
    assert answer.headers["Location"].startswith("https://127.0.0.1")


def test_a_client_is_known_by_the_address_that_it_has_and_not_by_what_it_says(proxy: Nginx) -> None:
    used = count()
    for source in ("127.0.0.11", "127.0.0.12"):
        left = []
        for claim in (
            b"",
            b"X-Forwarded-For: 10.1.1.%d\r\n" % next(used),
            b"X-Forwarded-For: 127.0.0.99, ::1\r\n",
        ):
            answer = exchange(
                proxy, b"GET /api/v1/wallets?limit=1 HTTP/1.1\r\n" + HOST + claim + b"\r\n", source
            )
            left.append(int(re.findall(r"r=(\d+)", answer.headers["RateLimit"])[0]))
        assert left == [999_999, 999_998, 999_997]


def test_it_says_itself_whether_a_client_came_by_https(proxy: Nginx) -> None:
    with Talk(("127.0.0.1", proxy.plain)) as talk:
        talk.say(GET.replace(b"livez", b"login") + b"X-Forwarded-Proto: https\r\n\r\n")
        answer = talk.hear()
    assert answer
    assert answer.status == 301


def test_events_arrive_as_they_happen(proxy: Nginx, api: Api) -> None:
    wallet_id = api.open()
    with connect(proxy) as talk:
        talk.say(
            b"GET /api/v1/wallets/%s/events?seconds=60 HTTP/1.1\r\n" % wallet_id.encode() + HOST + b"\r\n"
        )
        assert talk.hear_until(b": hello\n\n")
        assert api.deposit(wallet_id, "1.00").status == 201
        assert talk.hear_until(b"data: {")


@pytest.mark.parametrize(
    "path", ["/metrics", "//metrics", "/./metrics", "/x/../metrics", "/%6detrics", "/metrics?x=1"]
)
def test_metrics_are_for_inside(proxy: Nginx, service: str, path: str) -> None:
    answer = exchange(proxy, b"GET %s HTTP/1.1\r\n" % path.encode() + HOST + b"\r\n")
    assert answer.status == 404
    assert json.loads(answer.body)["code"] == "not_found"
    sender = OverHttp(service)
    assert sender.send("GET", "/metrics", headers={"X-Forwarded-Proto": "https"}).status in (200, 401)
    sender.connection.close()


def test_a_body_may_be_as_long_as_the_service_takes_it(proxy: Nginx, api: Api) -> None:
    assert f"client_max_body_size {settings.MAX_BODY_BYTES};" in CONFIG.read_text()
    wallet_id = api.open()
    # A bulk may be as long as MAX_BODY_BYTES; other endpoints have a smaller limit of their own.
    deposit = b'{"walletId": "%s", "operationType": "DEPOSIT", "amount": "1.00"}' % wallet_id.encode()
    longest = (b'{"operations": [%s]}' % deposit).ljust(settings.MAX_BODY_BYTES)
    for headers, send in (
        (b"Content-Length: %d\r\n\r\n", lambda content: content),
        (
            b"Transfer-Encoding: chunked\r\n\r\n",
            lambda content: hostile_requests.chunk(content) + b"0\r\n\r\n",
        ),
    ):
        head = POST.replace(hostile_requests.PATH, b"/api/v1/operations") + headers
        for content, status in ((longest, 200), (longest + b" ", 413)):
            whole = (head % len(content) if b"%d" in head else head) + send(content)
            answer = exchange(proxy, whole)
            assert answer.status == status
            if status == 413:
                assert_is_problem(answer, problems.PayloadTooLarge)
    assert api.balance(wallet_id) == "2.00"


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"nonsense\r\n\r\n", problems.BadRequest),
        (b"GET /livez HTTP/1.1\r\n\r\n", problems.BadRequest),
        (GET + b"X: " + b"a" * 40_000 + b"\r\n\r\n", problems.BadRequest),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", problems.BadRequest),
        (GET + b"Transfer-Encoding: nonsense\r\n\r\n", problems.BadRequest),
        (b"TRACE /livez HTTP/1.1\r\n" + HOST + b"\r\n", problems.MethodNotAllowed),
        (GET.replace(b"livez", b"metrics") + b"\r\n", problems.NotFound),
    ],
    ids=["nonsense", "no host", "long field", "long target", "unknown coding", "TRACE", "metrics"],
)
def test_what_nginx_refuses_is_a_problem_as_of_the_service(
    proxy: Nginx, sent: bytes, kind: type[problems.Problem]
) -> None:
    assert_is_problem(exchange(proxy, sent), kind)


def test_a_service_that_restarts_is_unavailable_for_a_while(tmp_path: Path) -> None:
    port = free_port()
    environment = {"BIND": f"127.0.0.1:{port}", "HTTPS": "on", "TRUST_PROXY": "on"}
    with Nginx(tmp_path, port).running() as proxy:
        for _ in range(2):
            assert_is_problem(exchange(proxy, DEPOSIT), problems.Unavailable)
            with running_service(**environment):
                assert exchange(proxy, GET + b"\r\n").status == 200


# --- Those who mean ill -----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [UNUSUAL, REFUSED, GONE], ids=["unusual", "refused", "gone"])
def test_nobody_is_given_the_answer_to_what_another_has_smuggled(
    proxy: Nginx, api: Api, kind: dict[str, Shape]
) -> None:
    wallets = {name: api.open() for name in kind if name != BARE}
    done = threading.Event()

    def ask_on() -> int:
        """As somebody whose requests go over the same connections to the service."""
        asked = 0
        sender = OverTls(proxy, OTHER)
        while not done.is_set():
            request_id = str(uuid4())
            answer = sender.send("GET", "/api/v1/wallets?limit=1", headers={"X-Request-ID": request_id})
            assert (answer.status, answer.headers["x-request-id"]) == (200, request_id)
            asked += 1
        sender.connection.close()
        return asked

    def converse(name: str) -> list[int]:
        heard = hostile_requests.converse(connect(proxy), kind[name], wallets[name])
        return [answer.status for answer in heard]

    with ThreadPoolExecutor(12) as pool:
        others = [pool.submit(ask_on) for _ in range(4)]
        try:
            answers = dict(zip(wallets, pool.map(converse, wallets), strict=True))
        finally:
            done.set()
        assert all(other.result() for other in others)
    assert [name for name, heard in answers.items() if max(heard, default=0) >= 500] == []
    moved = {name: api.balance(wallet_id) for name, wallet_id in wallets.items()}
    assert moved == {
        name: "1.00" if name in MENDED else f"{0 if name == MISDIRECTED else shape.deposits}.00"
        for name, shape in kind.items()
        if name in wallets
    }


def test_slow_clients_leave_the_others_served(proxy: Nginx, service: str, api: Api) -> None:
    """More bodies than the service could be connected with, of addresses that each may have so many."""
    wallet_id = api.open()
    body = POST + b"Content-Length: 1000\r\n\r\n{"
    kinds = (GET[:9], body, body, body)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(proxy, f"127.0.0.{21 + at % 5}")) for at in range(SLOW)]
        for at, talk in enumerate(slow):
            talk.say(kinds[at % len(kinds)])
        for _ in range(10):
            for talk in slow:
                talk.say(b" ")
            assert connections(service) < SLOW // 10  # none of them has got through
            for _ in range(5):
                assert api.deposit(wallet_id, "1.00").status == 201
    assert api.balance(wallet_id) == "50.00"


def test_nobody_has_more_than_their_share_of_the_service(proxy: Nginx, api: Api) -> None:
    wallet_id = api.open()
    with ExitStack() as stack:
        flood = [stack.enter_context(connect(proxy)) for _ in range(AT_ONCE + 20)]
        for talk in flood:
            talk.say(
                b"GET /api/v1/wallets/%s/events?seconds=60 HTTP/1.1\r\n" % wallet_id.encode() + HOST + b"\r\n"
            )
        refused = 0
        for talk in flood:
            if not talk.hear_until(b"\r\n").startswith(b"HTTP/1.1 200"):
                refused += 1
        assert refused == 20
        assert_is_problem(exchange(proxy, GET + b"\r\n"), problems.TooManyRequests)
        for _ in range(20):
            assert api.deposit(wallet_id, "1.00").status == 201


def test_a_flood_of_connections_leaves_the_others_served(proxy: Nginx, api: Api) -> None:
    wallet_id = api.open()
    done = threading.Event()

    def flood() -> int:
        made = 0
        while not done.is_set():
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", proxy.port), timeout=SOCKET_TIMEOUT_SECONDS),
            ):
                made += 1
        return made

    with ThreadPoolExecutor(4) as pool:
        floods = [pool.submit(flood) for _ in range(4)]
        try:
            for _ in range(30):
                sender = OverTls(proxy, OTHER)
                assert Api(sender).deposit(wallet_id, "1.00").status == 201
                sender.connection.close()
        finally:
            done.set()
        assert all(each.result() for each in floods)
    assert api.balance(wallet_id) == "30.00"

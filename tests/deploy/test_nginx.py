"""The service behind the proxy of deploy/nginx, with normal, slow and hostile clients."""

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

SLOW_CLIENTS = 500
MAX_CONCURRENT_REQUESTS = int(re.search(r"limit_conn walletsvc (\d+);", CONFIG.read_text())[1])  # type: ignore[index]
OTHER_ADDRESS = "127.0.0.2"  # the address of another client
HTTP_0_9 = "HTTP/0.9"  # nginx accepts it, and responds with only the body
REPAIRED = {  # nginx removes the part that the service would refuse, so the request is served
    "expects something else",
    "chunk extension: NUL",
    "trailer: a host",
    "trailer: a length",
    "trailer: no colon",
}
MISDIRECTED = "another's full address"  # nginx passes on its host, which the service refuses


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with running_service(
        HTTPS="on",
        TRUST_PROXY="on",
        KEEPALIVE="75",
        METRICS="on",
        RATE_LIMIT_ADDRESS="1000000/1d",  # so the RateLimit header shows requests per address
        WORKER_CONNECTIONS=str(MAX_CONCURRENT_REQUESTS * 3 // 4),  # fewer than there are slow clients
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
    sender = OverTls(proxy, OTHER_ADDRESS)
    yield Api(sender)
    sender.connection.close()


def assert_is_problem(answer: Raw, kind: type[problems.Problem]) -> None:
    assert (answer.status, answer.headers["Content-Type"]) == (kind.status, CONTENT_TYPE)
    problem = json.loads(answer.body)
    assert problem.keys() == kind().as_json("").keys()
    named = {name: problem[name] for name in ("type", "code", "status", "title")}
    assert named == {name: kind().as_json("")[name] for name in named}
    assert problem["requestId"] == answer.headers["X-Request-ID"]
    assert answer.headers["Retry-After"] == kind.headers.get("Retry-After")


# --- Normal clients ---------------------------------------------------------------------------------
def test_api_through_nginx_is_unchanged(api: Api) -> None:
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
        # By RFC 9112, the host of the request line overrides the header.
        (b"https://evil.example/login", b"127.0.0.1", 400),
        (b"https://127.0.0.1/login", b"evil.example", 200),
    ],
)
def test_service_gets_the_host_that_nginx_read(proxy: Nginx, target: bytes, host: bytes, status: int) -> None:
    answer = exchange(proxy, b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, host))
    assert answer.status == status
    assert b"evil.example" not in answer.body


def test_plain_http_is_redirected_to_https(proxy: Nginx) -> None:
    with Talk(("127.0.0.1", proxy.plain)) as talk:
        talk.say(GET.replace(b"livez", b"login") + b"\r\n")
        answer = talk.hear()
    assert answer
    assert answer.status == 301
    assert answer.headers["Location"].startswith("https://127.0.0.1")


def test_client_address_cannot_be_forged(proxy: Nginx) -> None:
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


def test_forwarded_proto_cannot_be_forged(proxy: Nginx) -> None:
    with Talk(("127.0.0.1", proxy.plain)) as talk:
        talk.say(GET.replace(b"livez", b"login") + b"X-Forwarded-Proto: https\r\n\r\n")
        answer = talk.hear()
    assert answer
    assert answer.status == 301


def test_event_stream_is_not_buffered(proxy: Nginx, api: Api) -> None:
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
def test_metrics_are_not_public(proxy: Nginx, service: str, path: str) -> None:
    answer = exchange(proxy, b"GET %s HTTP/1.1\r\n" % path.encode() + HOST + b"\r\n")
    assert answer.status == 404
    assert json.loads(answer.body)["code"] == "not_found"
    sender = OverHttp(service)
    assert sender.send("GET", "/metrics", headers={"X-Forwarded-Proto": "https"}).status in (200, 401)
    sender.connection.close()


def test_body_limit_equals_that_of_the_service(proxy: Nginx, api: Api) -> None:
    assert f"client_max_body_size {settings.MAX_BODY_BYTES};" in CONFIG.read_text()
    wallet_id = api.open()
    # A bulk may have MAX_BODY_BYTES; other endpoints have smaller limits.
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
def test_refusals_of_nginx_are_problem_documents(
    proxy: Nginx, sent: bytes, kind: type[problems.Problem]
) -> None:
    assert_is_problem(exchange(proxy, sent), kind)


def test_restarting_service_is_unavailable_then_served(tmp_path: Path) -> None:
    port = free_port()
    environment = {"BIND": f"127.0.0.1:{port}", "HTTPS": "on", "TRUST_PROXY": "on"}
    with Nginx(tmp_path, port).running() as proxy:
        for _ in range(2):
            assert_is_problem(exchange(proxy, DEPOSIT), problems.Unavailable)
            with running_service(**environment):
                assert exchange(proxy, GET + b"\r\n").status == 200


# --- Hostile clients --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [UNUSUAL, REFUSED, GONE], ids=["unusual", "refused", "gone"])
def test_smuggled_request_reaches_no_other_client(proxy: Nginx, api: Api, kind: dict[str, Shape]) -> None:
    wallets = {name: api.open() for name in kind if name != HTTP_0_9}
    done = threading.Event()

    def keep_requesting() -> int:
        """Send requests over the connections that nginx shares with the attacker."""
        asked = 0
        sender = OverTls(proxy, OTHER_ADDRESS)
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
        others = [pool.submit(keep_requesting) for _ in range(4)]
        try:
            answers = dict(zip(wallets, pool.map(converse, wallets), strict=True))
        finally:
            done.set()
        assert all(other.result() for other in others)
    assert [name for name, heard in answers.items() if max(heard, default=0) >= 500] == []
    moved = {name: api.balance(wallet_id) for name, wallet_id in wallets.items()}
    assert moved == {
        name: "1.00" if name in REPAIRED else f"{0 if name == MISDIRECTED else shape.deposits}.00"
        for name, shape in kind.items()
        if name in wallets
    }


def test_slow_clients_do_not_block_others(proxy: Nginx, service: str, api: Api) -> None:
    """The slow bodies exceed the service's connections; each address stays below its own limit."""
    wallet_id = api.open()
    body = POST + b"Content-Length: 1000\r\n\r\n{"
    kinds = (GET[:9], body, body, body)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(proxy, f"127.0.0.{21 + at % 5}")) for at in range(SLOW_CLIENTS)]
        for at, talk in enumerate(slow):
            talk.say(kinds[at % len(kinds)])
        for _ in range(10):
            for talk in slow:
                talk.say(b" ")
            assert connections(service) < SLOW_CLIENTS // 10  # nginx has passed on none of them
            for _ in range(5):
                assert api.deposit(wallet_id, "1.00").status == 201
    assert api.balance(wallet_id) == "50.00"


def test_connections_per_address_are_limited(proxy: Nginx, api: Api) -> None:
    wallet_id = api.open()
    with ExitStack() as stack:
        flood = [stack.enter_context(connect(proxy)) for _ in range(MAX_CONCURRENT_REQUESTS + 20)]
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


def test_connection_flood_does_not_block_others(proxy: Nginx, api: Api) -> None:
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
                sender = OverTls(proxy, OTHER_ADDRESS)
                assert Api(sender).deposit(wallet_id, "1.00").status == 201
                sender.connection.close()
        finally:
            done.set()
        assert all(each.result() for each in floods)
    assert api.balance(wallet_id) == "30.00"

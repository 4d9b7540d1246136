"""`make request-costs`: measures the most expensive known request of each endpoint, as a Markdown table.

The service runs with one worker and its own database. Each request is sent a few times on the loopback
interface, one after the other. Its cost is the CPU time of the worker (utime and stime of /proc, with native
threads), divided by the number of requests, without the CPU time of the database.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.cookies import SimpleCookie
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import orjson

from loadtest import machine
from loadtest.hostile import (
    ADMIN,
    API,
    ENDING_SESSION,
    ENDPOINTS,
    FORM,
    SESSION,
    STRANGER,
    Fields,
    HostileEndpoint,
    HostileRequest,
)
from loadtest.servers import Server, ServerKind, running, scratch_cluster
from local import STATE, LocalError
from local.files import plain_errors
from local.postgres import Cluster
from local.service import Address, environment, manage

FOLDER: Final = STATE / "request-costs"
MAX_CPU_MS: Final = 50.0
MAX_RESPONSE_BYTES: Final = 1_000_000
REQUESTS_PER_KIND: Final = 5  # because the kernel counts CPU time in hundredths of a second
OPERATIONS = 2000  # of the wallet that requests name
HOLDS = 500
WALLETS = 500
ITEMS_PER_BULK: Final = 50  # a bulk has at most 30,000 values
METADATA: Final = {f"{number:x}": number for number in range(400)}  # nearly the maximum
PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - of accounts that are created here
ATTEMPTS: Final = "1000000/1h"
SERVICE: Final = ServerKind(
    "walletsvc/gunicorn.py",
    "walletsvc.wsgi",
    (
        *(("API_ACCESS", "key"), ("WORKERS", "1"), ("LOGIN_LOCKOUT", "off"), ("RATE_LIMIT_KEY", ATTEMPTS)),
        *(("RATE_LIMIT_USER", ATTEMPTS), ("RATE_LIMIT_LOGIN", ATTEMPTS), ("RATE_LIMIT_SIGNUP", ATTEMPTS)),
        *(("RATE_LIMIT_RESET", ATTEMPTS), ("RATE_LIMIT_ADDRESS", ATTEMPTS)),
    ),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one request of a kind, and the size of its largest response."""

    endpoint: str
    request: HostileRequest
    status: int
    cpu_ms: float
    answer_bytes: int

    @property
    def is_beyond(self) -> bool:
        return self.cpu_ms > MAX_CPU_MS or self.answer_bytes > MAX_RESPONSE_BYTES


# --- Data -------------------------------------------------------------------------------------------
@dataclass
class Seed:
    """The values for the placeholders of requests, and the headers of each kind of sender."""

    names: dict[str, str]
    senders: dict[str, Fields]

    def fill(self, request: HostileRequest) -> HostileRequest:
        """Return the request with values in place of `{…}`; `{name}` becomes a new name."""
        token = dict(self.senders[request.sender]).get("X-CSRFToken", self.names["token"])
        values = self.names | {"name": f"n-{uuid4()}", "token": token}
        path, body = request.path, request.body
        for name, value in values.items():
            path = path.replace(f"{{{name}}}", value)
            body = body.replace(f"{{{name}}}".encode(), value.encode())
        return replace(request, path=path, body=body)

    def fields(self, request: HostileRequest) -> Fields:
        is_form = request.sender == STRANGER and request.content_type == FORM
        token = (("Cookie", f"csrftoken={self.names['token']}"),) if is_form else ()
        return (*self.senders[request.sender], *token, *request.fields)


def seed(server: Server, cluster: Cluster) -> Seed:
    """Create a wallet with a history, an empty one, a user, a webhook, and a key for each scope."""
    scopes = {request.sender for endpoint in API for request in endpoint.requests} - {
        STRANGER,
        SESSION,
        ENDING_SESSION,
    }
    keys = {scope: create_key(cluster, scope) for scope in sorted(scopes)}
    bearer = {scope: (("Authorization", f"Bearer {key}"),) for scope, key in keys.items()}

    def post(path: str, **body: Any) -> dict[str, Any]:
        answer = send(
            server, HostileRequest("", f"/api/v1{path}", "POST", body=orjson.dumps(body)), bearer[ADMIN]
        )
        if answer.status >= 300:  # noqa: PLR2004
            raise LocalError(f"{path} was answered {answer.status}: {answer.content[:500]!r}")
        found: dict[str, Any] = orjson.loads(answer.content)
        return found

    wallet, other = (post("/wallets", metadata=METADATA)["id"] for _ in range(2))
    for _ in range(WALLETS):
        post("/wallets", metadata=METADATA)
    deposit = {"walletId": wallet, "operationType": "DEPOSIT", "amount": "10", "metadata": METADATA}
    for _ in range(0, OPERATIONS, ITEMS_PER_BULK):
        post("/operations", operations=[deposit] * ITEMS_PER_BULK)
    for _ in range(HOLDS):
        hold = post(f"/wallets/{wallet}/holds", amount="1")["id"]
    transfer = post("/transfers", sourceWalletId=wallet, targetWalletId=other, amount="1")["id"]
    operation = post(f"/wallets/{wallet}/operation", operationType="DEPOSIT", amount="1000")["id"]
    webhook = post("/webhooks", name="one", url="http://127.0.0.1:9/")["id"]
    (session, own), (leaving, _) = sign_up(server), sign_up(server)
    post("/transfers", sourceWalletId=wallet, targetWalletId=own, amount="500")
    names = {
        **{"wallet": wallet, "other": other, "own": own, "hold": hold, "transfer": transfer},
        **{"operation": operation, "webhook": webhook, "nothing": str(uuid4()), "password": quote(PASSWORD)},
        **{"token": token_of(server), "statement": f"/api/v1/wallets/{wallet}/statement"},
    }
    return Seed(names, {STRANGER: (), SESSION: session, ENDING_SESSION: leaving} | bearer)


def create_key(cluster: Cluster, scope: str) -> str:
    env = environment(cluster.url(), Address("127.0.0.1", 1))
    return manage(env, "create_api_key", "--name", scope, "--scope", scope).strip()


def sign_up(server: Server) -> tuple[Fields, str]:
    """Return the headers of a session with its CSRF token, and the user's wallet."""
    body = {"name": "Anna", "email": f"n-{uuid4()}@example.com", "password": PASSWORD}
    answer = send(server, HostileRequest("", "/api/v1/signup", "POST", body=orjson.dumps(body)), ())
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in answer.cookies.items())
    token = answer.cookies["csrftoken"].value
    return (("Cookie", cookies), ("X-CSRFToken", token)), orjson.loads(answer.content)["walletId"]


def token_of(server: Server) -> str:
    return send(server, HostileRequest("", "/login"), ()).cookies["csrftoken"].value


# --- Requests ---------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: bytes
    cookies: "SimpleCookie"


def send(server: Server, request: HostileRequest, fields: Fields) -> Answer:
    """Send a request on a new connection. The status is 0 if the service closes it without a response."""
    connection = HTTPConnection(server.address.bind, timeout=120)
    with closing(connection):
        connection.putrequest(request.method, request.path, skip_accept_encoding=True)
        for name, value in fields:
            connection.putheader(name, value)
        if request.method != "GET":
            connection.putheader("Content-Type", request.content_type)
            connection.putheader("Content-Length", str(len(request.body)))
        try:
            connection.endheaders(request.body)
            response = connection.getresponse()
            return Answer(response.status, response.read(), _cookies(response))
        except (HTTPException, OSError):
            return Answer(0, b"", SimpleCookie())


def _cookies(response: HTTPResponse) -> "SimpleCookie":
    cookies: SimpleCookie = SimpleCookie()
    for cookie in response.headers.get_all("Set-Cookie", []):
        cookies.load(cookie)
    return cookies


def measure(server: Server, seed: Seed, endpoint: str, request: HostileRequest, times: int) -> Cost:
    fields = seed.fields(request)
    filled = [seed.fill(request) for _ in range(times)]
    before = machine.cpu_seconds(server.process.pid)
    answers = [send(server, each, fields) for each in filled]
    spent = (machine.cpu_seconds(server.process.pid) - before) / times * 1000
    return Cost(endpoint, request, answers[0].status, spent, max(len(answer.content) for answer in answers))


# --- Command ----------------------------------------------------------------------------------------
def costs(endpoints: Sequence[HostileEndpoint], times: int) -> Iterator[list[Cost]]:
    """Yield the costs of each endpoint's requests, the most expensive first."""
    with ExitStack() as stack:
        cluster = stack.enter_context(scratch_cluster(FOLDER / "postgres"))
        server = stack.enter_context(running(SERVICE, cluster.url()))
        seeded = seed(server, cluster)
        for endpoint in endpoints:
            yield sorted(
                (measure(server, seeded, endpoint.name, request, times) for request in endpoint.requests),
                key=lambda cost: (cost.is_beyond, cost.cpu_ms),
                reverse=True,
            )


def line(cost: Cost) -> str:
    size = f"{cost.answer_bytes:,}"
    mark = "**beyond**" if cost.is_beyond else ""
    return (
        f"| {cost.endpoint} | {cost.request.attack} | {cost.status} | {cost.cpu_ms:.0f} | {size} | {mark} |"
    )


HEAD: Final = (
    "| endpoint | most expensive request | status | CPU, ms | answer, bytes | |",
    "|---|---|---|---|---|---|",
)


def main() -> None:
    options = parse(sys.argv[1:])
    chosen = [each for each in ENDPOINTS if not options.endpoints or each.name in options.endpoints]
    try:
        with plain_errors():
            print(*HEAD, sep="\n", flush=True)
            for found in costs(chosen, options.times):
                print(*map(line, found if options.all else found[:1]), sep="\n", flush=True)
    except LocalError as error:
        sys.exit(f"request-costs: {error}")
    except KeyboardInterrupt:
        sys.exit("request-costs: stopped")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="request-costs", description=__doc__)
    names = [endpoint.name for endpoint in ENDPOINTS]
    parser.add_argument("endpoints", nargs="*", metavar="ENDPOINT", help=f"some of: {', '.join(names)}")
    parser.add_argument("--times", type=int, default=REQUESTS_PER_KIND, help="how often each request is sent")
    parser.add_argument(
        "--all", action="store_true", help="print all requests, not only the most expensive one"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.endpoints if name not in names]:
        parser.error(f"unknown endpoint {', '.join(unknown)}")
    return options


if __name__ == "__main__":
    main()

"""The Python client repeats requests with the same key, and says if the outcome is unknown."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from local.postgres import free_port
from tests.support.receivers import Behaviour, Receiver, Request, answering, hanging, receiver, saying
from walletsvc_client import (
    AsyncClient,
    Client,
    InternalError,
    NoResponse,
    Retries,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedResponse,
    WalletFrozen,
    WalletsvcError,
)

WALLET = uuid4()
QUICK = Retries(attempts=3, first_pause_seconds=0.001)
OPERATION = {
    "id": str(uuid4()),
    "walletId": str(WALLET),
    "sequence": 1,
    "operationType": "DEPOSIT",
    "amount": "1.00",
    "currency": "EUR",
    "status": "COMPLETED",
    "reason": None,
    "balance": "1.00",
    "transferId": None,
    "counterpartyWalletId": None,
    "holdId": None,
    "reversesId": None,
    "idempotencyKey": None,
    "reference": "",
    "description": "",
    "metadata": {},
    "createdAt": "2026-11-21T09:30:00.000000Z",
}


def with_json(status: int, content: Any, *headers: str) -> Behaviour:
    return answering(status, json.dumps(content).encode(), "Content-Type: application/json", *headers)


def problem(status: int, code: str, *headers: str, **fields: str) -> Behaviour:
    content = {"type": f"/errors/{code}", "title": code, "status": status, "detail": "", "code": code}
    return with_json(status, {**content, "requestId": "r1", **fields}, *headers)


DONE = with_json(201, OPERATION)
LOST = saying(b"")
UNAVAILABLE = problem(503, "unavailable", "Retry-After: 0")
BUSY = problem(429, "too_many_requests", "Retry-After: 0")
HTML = answering(502, b"<h1>Bad gateway</h1>")


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


def behaving(*behaviours: Behaviour) -> Behaviour:
    """Behave differently for each request; the last one repeats."""
    remaining = list(behaviours)

    def behave(connection: socket.socket, request: Request) -> bool:
        return (remaining.pop(0) if len(remaining) > 1 else remaining[0])(connection, request)

    return behave


def client_of(server: Receiver, retries: Retries = QUICK, timeout_seconds: float = 30) -> Client:
    return Client(server.url(""), retries=retries, timeout_seconds=timeout_seconds)


def error_of(call: Callable[[], object]) -> WalletsvcError:
    with pytest.raises(WalletsvcError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("failure", [LOST, UNAVAILABLE, BUSY, HTML])
def test_failed_request_is_repeated_with_its_key(server: Receiver, failure: Behaviour) -> None:
    server.behave = behaving(failure, failure, DONE)
    with client_of(server) as client:
        assert client.deposit(WALLET, "1").balance == 1
    assert len(server.requests) == 3
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
    assert len({request.body for request in server.requests}) == 1


def test_async_client_repeats_with_the_same_key(server: Receiver) -> None:
    server.behave = behaving(LOST, UNAVAILABLE, DONE)

    async def deposit() -> None:
        async with AsyncClient(server.url(""), retries=QUICK) as client:
            assert (await client.deposit(WALLET, "1")).balance == 1

    asyncio.run(deposit())
    assert len(server.requests) == 3
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


def test_timeout_is_repeated(server: Receiver) -> None:
    server.behave = behaving(hanging, DONE)
    with client_of(server, timeout_seconds=0.2) as client:
        assert client.deposit(WALLET, "1").balance == 1
    assert len(server.requests) == 2


def test_attempts_are_bounded(server: Receiver) -> None:
    server.behave = UNAVAILABLE
    with client_of(server) as client:
        error = error_of(lambda: client.deposit(WALLET, "1", idempotency_key="order-7"))
    assert isinstance(error, Unavailable)
    assert (len(server.requests), error.idempotency_key, error.outcome_is_unknown) == (3, "order-7", True)


@pytest.mark.parametrize("retry_after", [30, 10**400])
def test_no_retry_begins_after_the_total_time(server: Receiver, retry_after: int) -> None:
    server.behave = problem(429, "too_many_requests", f"Retry-After: {retry_after}")
    with client_of(server, Retries(total_seconds=20)) as client:
        error = error_of(lambda: client.deposit(WALLET, "1"))
    assert isinstance(error, TooManyRequests)
    assert (len(server.requests), error.outcome_is_unknown) == (1, False)


def test_retry_after_is_a_lower_bound() -> None:
    from walletsvc_client._retries import Attempts

    busy = httpx.Response(429, headers={"Retry-After": "7"})
    assert Attempts(Retries(), True).pause_after(busy) == 7
    dated = httpx.Response(429, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"})
    assert 0.1 <= (Attempts(Retries(), True).pause_after(dated) or 0) <= 0.2


def test_pauses_double_up_to_the_maximum() -> None:
    retries = Retries(first_pause_seconds=1, max_pause_seconds=5)
    for attempt, longest in ((1, 1), (2, 2), (3, 4), (4, 5), (5000, 5)):
        pauses = [retries.pause(attempt) for _ in range(50)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500])
def test_other_statuses_are_not_repeated(server: Receiver, status: int) -> None:
    server.behave = problem(status, "wallet_frozen")
    with client_of(server) as client:
        error = error_of(lambda: client.deposit(WALLET, "1"))
    assert (type(error), error.status, len(server.requests)) == (WalletFrozen, status, 1)
    assert error.outcome_is_unknown == (status == 500)


def test_connection_that_is_never_made_leaves_no_doubt() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", retries=QUICK) as client:
        error = error_of(lambda: client.deposit(WALLET, "1"))
    assert isinstance(error, NoResponse)
    assert (error.status, error.outcome_is_unknown) == (None, False)
    assert "ConnectError" in error.detail


@pytest.mark.parametrize(
    ("behaviours", "kind", "is_unknown"),
    [
        ([LOST], NoResponse, True),
        ([LOST, BUSY], TooManyRequests, True),
        ([UNAVAILABLE, problem(401, "unauthorized")], Unauthorized, True),
        ([LOST, problem(409, "wallet_frozen")], WalletFrozen, False),
        ([BUSY], TooManyRequests, False),
        ([problem(500, "internal_error")], InternalError, True),
        ([HTML], UnexpectedResponse, True),
        ([answering(201, b"<h1>Welcome</h1>")], UnexpectedResponse, True),
        ([answering(404, b'{"code": 7}')], UnexpectedResponse, False),
        ([problem(409, "insufficient_funds", remaining="ten")], UnexpectedResponse, False),
    ],
)
def test_error_says_if_the_outcome_is_unknown(
    server: Receiver, behaviours: list[Behaviour], kind: type[WalletsvcError], is_unknown: bool
) -> None:
    server.behave = behaving(*behaviours)
    with client_of(server) as client:
        error = error_of(lambda: client.deposit(WALLET, "1"))
    assert (type(error), error.outcome_is_unknown) == (kind, is_unknown)


def test_change_without_a_key_is_not_repeated(server: Receiver) -> None:
    server.behave = UNAVAILABLE
    with client_of(server) as client:
        error_of(lambda: client.update_wallet(WALLET, label="till"))
        assert len(server.requests) == 1
        server.behave = LOST
        error_of(lambda: client.update_wallet(WALLET, label="till"))
        assert len(server.requests) == 2
        server.behave = BUSY
        error_of(lambda: client.update_wallet(WALLET, label="till"))
        assert len(server.requests) == 5


def test_own_httpx_client_is_used(server: Receiver) -> None:
    server.behave = DONE
    http = httpx.Client(headers={"X-Tenant": "shop"})
    with Client(server.url("/wallets/"), "wk_1", http=http) as client:
        client.deposit(WALLET, "1")
    (request,) = server.requests
    assert request.path == f"/wallets/api/v1/wallets/{WALLET}/operation"
    assert (request.headers["x-tenant"], request.headers["authorization"]) == ("shop", "Bearer wk_1")
    assert http.is_closed

"""Random programs against the real service, judged by the model of the rules in tests/support/histories.

A program is a list of rounds; the requests of a round are sent together. The checker decides whether the
answers and the committed ledger are one history, so whether the service is linearizable. Hypothesis shrinks a
program that fails.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.cluster import cluster
from tests.support.histories.checker import check
from tests.support.histories.journal import Call, Connection, History, Request, call
from tests.support.histories.ledger import read
from wallets.ledger.inbox import drain
from wallets.ledger.verify import verify

CLIENTS = 4
HOLD_SECONDS = 0.15  # until some of the holds expire
PROGRAMS = int(os.environ.get("MODEL_PROGRAMS", "40"))
WALLETS: tuple[dict[str, str], ...] = (
    {},
    {"overdraftLimit": "100"},
    {"maxBalance": "400"},
    {"currency": "JPY"},
)


# --- Programs ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Ask:
    """A request. Wallets, holds and operations are numbers: the answers name the ids."""

    kind: str
    wallet: int = 0
    other: int = 1  # a transfer's target; the number of a hold or of an operation
    amount: str | None = None
    key: str | None = None
    is_async: bool = False
    expires: bool = False
    status: str = "ACTIVE"
    items: tuple["Ask", ...] = ()


DRAIN = [Ask("drain")]  # no request: the inbox is carried out

keys = st.sampled_from([None, None, "a", "b"])
# Few wallets and few amounts, which fill and empty them exactly: so the limits are met all the time.
amounts = st.sampled_from(["50", "100", "100.0", "200", "200.50", "300"])
wallets = st.sampled_from([0, 0, 0, 1, 1, 2, 2, 3])
numbers = st.integers(0, 6)
parts = st.none() | amounts
flags = st.booleans()
statuses = st.sampled_from(["ACTIVE", "ACTIVE", "FROZEN", "CLOSED"])
moves = st.builds(Ask, st.sampled_from(["DEPOSIT", "WITHDRAW"]), wallets, amount=amounts, key=keys)
sends = st.builds(Ask, st.just("transfer"), wallets, wallets, amounts, keys).map(
    lambda ask: ask if ask.other != ask.wallet else replace(ask, other=(ask.wallet + 1) % len(WALLETS))
)
asks = st.one_of(
    moves,
    moves.map(lambda ask: replace(ask, is_async=True)),
    sends,
    st.builds(Ask, st.just("hold"), wallets, amount=amounts, key=keys, expires=flags),
    st.builds(Ask, st.just("capture"), other=numbers, amount=parts, key=keys),
    st.builds(Ask, st.just("void"), other=numbers, key=keys),
    st.builds(Ask, st.just("reversal"), other=numbers, amount=parts, key=keys),
    st.builds(
        Ask, st.just("change"), wallets, status=st.sampled_from(["ACTIVE", "ACTIVE", "FROZEN", "CLOSED"])
    ),
    st.builds(Ask, st.just("wallet"), wallets),
    st.builds(Ask, st.just("bulk"), items=st.lists(moves | sends, min_size=1, max_size=4).map(tuple)),
)
rounds = st.lists(asks, min_size=1, max_size=CLIENTS) | st.just(DRAIN)
programs = st.lists(rounds, min_size=1, max_size=16)


# --- Running ----------------------------------------------------------------------------------------
class Run:
    """One program against wallets of its own, by several clients."""

    def __init__(self, clients: Sequence[Connection]) -> None:
        self.clients = clients
        self.pool = ThreadPoolExecutor(len(clients))
        self.calls: list[Call] = []
        self.holds: list[str] = []
        self.operations: list[str] = []
        self.wallet_ids = [str(uuid4()) for _ in WALLETS]
        for wallet_id, limits in zip(self.wallet_ids, WALLETS, strict=True):
            self.send([Request("POST", "/wallets", {"id": wallet_id, **limits})])
        self.round([Ask("DEPOSIT", wallet, amount="200") for wallet in range(len(WALLETS))])

    def round(self, asks: Sequence[Ask]) -> None:
        if asks == DRAIN:
            while drain(100):
                pass
            return
        self.send([request for ask in asks if (request := self.request(ask))])

    def send(self, requests: Sequence[Request]) -> None:
        """All at once. Of what the answers name, later requests can speak."""
        done = list(self.pool.map(call, self.clients, range(len(requests)), requests))
        self.calls += done
        for made in done:
            assert made.answer, made
            body = made.answer.json
            if made.outcome == 201 and made.request.path.endswith("/holds"):
                self.holds.append(body["id"])
            sides = [body[side]["id"] for side in ("source", "target") if body.get(side)]
            if made.request.method == "POST" and made.request.path != "/wallets":
                self.operations += sides or [id for id in (body.get("operationId", body.get("id")),) if id]

    def request(self, ask: Ask) -> Request | None:
        """The request in HTTP; None if there is nothing yet that it could refer to."""
        request = self._request(ask)
        return request and replace(request, key=ask.key, is_async=ask.is_async)

    def _request(self, ask: Ask) -> Request | None:
        wallet = f"/wallets/{self.wallet_ids[ask.wallet]}"
        amount = {} if ask.amount is None else {"amount": ask.amount}
        match ask.kind:
            case "DEPOSIT" | "WITHDRAW":
                return Request("POST", f"{wallet}/operation", {"operationType": ask.kind, **amount})
            case "transfer":
                return Request("POST", "/transfers", self._item(replace(ask, key=None)))
            case "hold":
                expiry = datetime.now(UTC) + timedelta(seconds=HOLD_SECONDS)
                expires = {"expiresAt": expiry.isoformat()} if ask.expires else {}
                return Request("POST", f"{wallet}/holds", amount | expires)
            case "capture" | "void" if self.holds:
                return Request("POST", f"/holds/{self.holds[ask.other % len(self.holds)]}/{ask.kind}", amount)
            case "reversal" if self.operations:
                operation = self.operations[ask.other % len(self.operations)]
                return Request("POST", f"/operations/{operation}/reversal", amount)
            case "change":
                # A label of its own: the checker finds the change again by it.
                return Request("PATCH", wallet, {"status": ask.status, "label": str(uuid4())})
            case "wallet":
                return Request("GET", wallet)
            case "bulk":
                items = [self._item(item) for item in ask.items]
                return Request("POST", "/operations", {"operations": items, "atomic": True})
        return None

    def _item(self, ask: Ask) -> dict[str, Any]:
        wallet, other = self.wallet_ids[ask.wallet], self.wallet_ids[ask.other]
        key = {} if ask.key is None else {"idempotencyKey": ask.key}
        if ask.kind == "transfer":
            return {"sourceWalletId": wallet, "targetWalletId": other, "amount": ask.amount, **key}
        return {"walletId": wallet, "operationType": ask.kind, "amount": ask.amount, **key}

    def check(self) -> None:
        """All that was told is one history with the ledger, and the books agree with themselves."""
        self.round(DRAIN)
        time.sleep(
            HOLD_SECONDS if any("expiresAt" in (made.request.body or {}) for made in self.calls) else 0
        )
        for path in (*(f"/wallets/{id}" for id in self.wallet_ids), *(f"/holds/{id}" for id in self.holds)):
            self.send([Request("GET", path)])
        history = History(self.calls, self.wallet_ids, time.time() - time.monotonic())
        found = check(history, read(cluster.url(), self.wallet_ids))
        assert not found, "\n".join(map(str, [*found, "", *self.calls]))
        assert verify([UUID(wallet_id) for wallet_id in self.wallet_ids]) == []


@pytest.fixture(scope="module")
def clients(service: str) -> Iterator[list[Connection]]:
    url = urlsplit(service)
    assert url.hostname
    assert url.port
    opened = [Connection((url.hostname, url.port)) for _ in range(CLIENTS)]
    yield opened
    for connection in opened:
        connection.close()


# Programs that failed once, or that would have.
ALL_OF_A_HOLD = [[Ask("hold", amount="50")], [Ask("capture", other=0)]]
WHAT_IS_LEFT = [[Ask("reversal", other=0, amount=amount) for amount in ("50", None, "50")]]
LATER_AND_AT_ONCE = [
    [Ask("DEPOSIT", 3, amount="50", key="a", is_async=True)],
    DRAIN,
    [Ask("DEPOSIT", 3, amount="50", key="a"), Ask("WITHDRAW", 3, amount="250")],
]
MORE_THAN_IS_LEFT = [
    [Ask("DEPOSIT", amount="300")],
    [Ask("reversal", other=0, amount="100")],
    [Ask("reversal", other=0, amount="200")],
    [Ask("reversal", other=0, amount="100")],
]
FROZEN_MOVES_NOTHING = [
    [Ask("change", status="FROZEN")],
    [Ask("DEPOSIT", amount="50"), Ask("WITHDRAW", amount="50"), Ask("transfer", amount="50")],
]
FULL_TO_THE_MAXIMUM = [[Ask("DEPOSIT", 2, amount="200")], [Ask("DEPOSIT", 2, amount="50")]]
REFUSED_ALONE_AND_IN_BULK = [
    [Ask("transfer", amount="300", key="a")],
    [Ask("bulk", items=(Ask("transfer", amount="300", key="a"),))],
]
KEY_OF_ANOTHER_REQUEST = [[Ask(kind, amount="50", key="a")] for kind in ("DEPOSIT", "WITHDRAW")]
HELD_IS_NOT_AVAILABLE = [[Ask("hold", amount="100")], [Ask("WITHDRAW", amount="200")]]
HELD_COUNTS_FOR_THE_MAXIMUM = [[Ask("hold", 2, amount="200")], [Ask("DEPOSIT", 2, amount="300")]]
EMPTY_BEFORE_IT_IS_CLOSED = [
    [Ask("change", status="CLOSED")],
    [Ask("WITHDRAW", amount="200")],
    [Ask("change", status="CLOSED")],
    [Ask("change"), Ask("DEPOSIT", amount="50")],
]


@settings(
    max_examples=PROGRAMS,
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
    ],
)
@example(program=ALL_OF_A_HOLD)
@example(program=WHAT_IS_LEFT)
@example(program=LATER_AND_AT_ONCE)
@example(program=MORE_THAN_IS_LEFT)
@example(program=FROZEN_MOVES_NOTHING)
@example(program=FULL_TO_THE_MAXIMUM)
@example(program=KEY_OF_ANOTHER_REQUEST)
@example(program=REFUSED_ALONE_AND_IN_BULK)
@example(program=HELD_IS_NOT_AVAILABLE)
@example(program=HELD_COUNTS_FOR_THE_MAXIMUM)
@example(program=EMPTY_BEFORE_IT_IS_CLOSED)
@given(program=programs)
@pytest.mark.slow
def test_concurrent_requests_are_linearizable(clients: list[Connection], program: list[list[Ask]]) -> None:
    run = Run(clients)
    for asks in program:
        run.round(asks)
    run.check()

"""Random programs run against the service and are judged by the rules in tests/support/histories.

A program is a list of rounds; the requests of a round are sent together. The checker decides whether the
responses and the committed ledger are one history, that is, whether the service is linearizable. Hypothesis
shrinks a failing program.
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
from tests.support.histories.journal import ApiRequest, Call, Connection, History, call
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
class Instruction:
    """A request. Wallets, holds and operations are numbers; the responses give the ids."""

    kind: str
    wallet: int = 0
    other: int = 1  # a transfer's target; the number of a hold or of an operation
    amount: str | None = None
    key: str | None = None
    is_async: bool = False
    expires: bool = False
    status: str = "ACTIVE"
    items: tuple["Instruction", ...] = ()


DRAIN = [Instruction("drain")]  # no request: the inbox is carried out

keys = st.sampled_from([None, None, "a", "b"])
# Few wallets and few amounts, which fill and empty the wallets exactly: the limits are often reached.
amounts = st.sampled_from(["50", "100", "100.0", "200", "200.50", "300"])
wallets = st.sampled_from([0, 0, 0, 1, 1, 2, 2, 3])
numbers = st.integers(0, 6)
parts = st.none() | amounts
flags = st.booleans()
statuses = st.sampled_from(["ACTIVE", "ACTIVE", "FROZEN", "CLOSED"])
moves = st.builds(Instruction, st.sampled_from(["DEPOSIT", "WITHDRAW"]), wallets, amount=amounts, key=keys)
sends = st.builds(Instruction, st.just("transfer"), wallets, wallets, amounts, keys).map(
    lambda instruction: (
        instruction
        if instruction.other != instruction.wallet
        else replace(instruction, other=(instruction.wallet + 1) % len(WALLETS))
    )
)
instructions = st.one_of(
    moves,
    moves.map(lambda instruction: replace(instruction, is_async=True)),
    sends,
    st.builds(Instruction, st.just("hold"), wallets, amount=amounts, key=keys, expires=flags),
    st.builds(Instruction, st.just("capture"), other=numbers, amount=parts, key=keys),
    st.builds(Instruction, st.just("void"), other=numbers, key=keys),
    st.builds(Instruction, st.just("reversal"), other=numbers, amount=parts, key=keys),
    st.builds(
        Instruction,
        st.just("change"),
        wallets,
        status=st.sampled_from(["ACTIVE", "ACTIVE", "FROZEN", "CLOSED"]),
    ),
    st.builds(Instruction, st.just("wallet"), wallets),
    st.builds(Instruction, st.just("bulk"), items=st.lists(moves | sends, min_size=1, max_size=4).map(tuple)),
)
rounds = st.lists(instructions, min_size=1, max_size=CLIENTS) | st.just(DRAIN)
programs = st.lists(rounds, min_size=1, max_size=16)


# --- Running ----------------------------------------------------------------------------------------
class ProgramRun:
    """Run one program with several clients on new wallets."""

    def __init__(self, clients: Sequence[Connection]) -> None:
        self.clients = clients
        self.pool = ThreadPoolExecutor(len(clients))
        self.calls: list[Call] = []
        self.holds: list[str] = []
        self.operations: list[str] = []
        self.wallet_ids = [str(uuid4()) for _ in WALLETS]
        for wallet_id, limits in zip(self.wallet_ids, WALLETS, strict=True):
            self.send([ApiRequest("POST", "/wallets", {"id": wallet_id, **limits})])
        self.round([Instruction("DEPOSIT", wallet, amount="200") for wallet in range(len(WALLETS))])

    def round(self, instructions: Sequence[Instruction]) -> None:
        if instructions == DRAIN:
            while drain(100):
                pass
            return
        self.send([request for instruction in instructions if (request := self.request(instruction))])

    def send(self, requests: Sequence[ApiRequest]) -> None:
        """Send the requests concurrently. Keep the ids of the responses for later requests."""
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

    def request(self, instruction: Instruction) -> ApiRequest | None:
        """Return the HTTP request, or None if it refers to a hold or operation and there is none yet."""
        request = self._request(instruction)
        return request and replace(request, key=instruction.key, is_async=instruction.is_async)

    def _request(self, instruction: Instruction) -> ApiRequest | None:
        wallet = f"/wallets/{self.wallet_ids[instruction.wallet]}"
        amount = {} if instruction.amount is None else {"amount": instruction.amount}
        match instruction.kind:
            case "DEPOSIT" | "WITHDRAW":
                return ApiRequest(
                    "POST", f"{wallet}/operation", {"operationType": instruction.kind, **amount}
                )
            case "transfer":
                return ApiRequest("POST", "/transfers", self._item(replace(instruction, key=None)))
            case "hold":
                expiry = datetime.now(UTC) + timedelta(seconds=HOLD_SECONDS)
                expires = {"expiresAt": expiry.isoformat()} if instruction.expires else {}
                return ApiRequest("POST", f"{wallet}/holds", amount | expires)
            case "capture" | "void" if self.holds:
                return ApiRequest(
                    "POST",
                    f"/holds/{self.holds[instruction.other % len(self.holds)]}/{instruction.kind}",
                    amount,
                )
            case "reversal" if self.operations:
                operation = self.operations[instruction.other % len(self.operations)]
                return ApiRequest("POST", f"/operations/{operation}/reversal", amount)
            case "change":
                # The checker finds the change by its unique label.
                return ApiRequest("PATCH", wallet, {"status": instruction.status, "label": str(uuid4())})
            case "wallet":
                return ApiRequest("GET", wallet)
            case "bulk":
                items = [self._item(item) for item in instruction.items]
                return ApiRequest("POST", "/operations", {"operations": items, "atomic": True})
        return None

    def _item(self, instruction: Instruction) -> dict[str, Any]:
        wallet, other = self.wallet_ids[instruction.wallet], self.wallet_ids[instruction.other]
        key = {} if instruction.key is None else {"idempotencyKey": instruction.key}
        if instruction.kind == "transfer":
            return {"sourceWalletId": wallet, "targetWalletId": other, "amount": instruction.amount, **key}
        return {"walletId": wallet, "operationType": instruction.kind, "amount": instruction.amount, **key}

    def check(self) -> None:
        """Assert that the responses and the ledger are one history, and that the ledger is consistent."""
        self.round(DRAIN)
        time.sleep(
            HOLD_SECONDS if any("expiresAt" in (made.request.body or {}) for made in self.calls) else 0
        )
        for path in (*(f"/wallets/{id}" for id in self.wallet_ids), *(f"/holds/{id}" for id in self.holds)):
            self.send([ApiRequest("GET", path)])
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
CAPTURE_OF_ALL = [[Instruction("hold", amount="50")], [Instruction("capture", other=0)]]
REVERSAL_OF_THE_REST = [[Instruction("reversal", other=0, amount=amount) for amount in ("50", None, "50")]]
ASYNCHRONOUS_THEN_SYNCHRONOUS = [
    [Instruction("DEPOSIT", 3, amount="50", key="a", is_async=True)],
    DRAIN,
    [Instruction("DEPOSIT", 3, amount="50", key="a"), Instruction("WITHDRAW", 3, amount="250")],
]
REVERSAL_BEYOND_THE_REST = [
    [Instruction("DEPOSIT", amount="300")],
    [Instruction("reversal", other=0, amount="100")],
    [Instruction("reversal", other=0, amount="200")],
    [Instruction("reversal", other=0, amount="100")],
]
FROZEN_MOVES_NOTHING = [
    [Instruction("change", status="FROZEN")],
    [
        Instruction("DEPOSIT", amount="50"),
        Instruction("WITHDRAW", amount="50"),
        Instruction("transfer", amount="50"),
    ],
]
FULL_TO_THE_MAXIMUM = [[Instruction("DEPOSIT", 2, amount="200")], [Instruction("DEPOSIT", 2, amount="50")]]
REFUSED_ALONE_AND_IN_BULK = [
    [Instruction("transfer", amount="300", key="a")],
    [Instruction("bulk", items=(Instruction("transfer", amount="300", key="a"),))],
]
KEY_OF_A_DIFFERENT_REQUEST = [[Instruction(kind, amount="50", key="a")] for kind in ("DEPOSIT", "WITHDRAW")]
HELD_IS_NOT_AVAILABLE = [[Instruction("hold", amount="100")], [Instruction("WITHDRAW", amount="200")]]
HELD_COUNTS_FOR_THE_MAXIMUM = [
    [Instruction("hold", 2, amount="200")],
    [Instruction("DEPOSIT", 2, amount="300")],
]
EMPTY_BEFORE_IT_IS_CLOSED = [
    [Instruction("change", status="CLOSED")],
    [Instruction("WITHDRAW", amount="200")],
    [Instruction("change", status="CLOSED")],
    [Instruction("change"), Instruction("DEPOSIT", amount="50")],
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
@example(program=CAPTURE_OF_ALL)
@example(program=REVERSAL_OF_THE_REST)
@example(program=ASYNCHRONOUS_THEN_SYNCHRONOUS)
@example(program=REVERSAL_BEYOND_THE_REST)
@example(program=FROZEN_MOVES_NOTHING)
@example(program=FULL_TO_THE_MAXIMUM)
@example(program=KEY_OF_A_DIFFERENT_REQUEST)
@example(program=REFUSED_ALONE_AND_IN_BULK)
@example(program=HELD_IS_NOT_AVAILABLE)
@example(program=HELD_COUNTS_FOR_THE_MAXIMUM)
@example(program=EMPTY_BEFORE_IT_IS_CLOSED)
@given(program=programs)
@pytest.mark.slow
def test_concurrent_requests_are_linearizable(
    clients: list[Connection], program: list[list[Instruction]]
) -> None:
    run = ProgramRun(clients)
    for instructions in program:
        run.round(instructions)
    run.check()

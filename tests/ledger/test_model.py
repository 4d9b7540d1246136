"""The real service, asked by several clients at once, against the model of tests/support/model.py.

A program is a list of rounds; the requests of a round are sent together. Their answers are right if there is
an order of the requests in which the model, asked one after the other, gives the same ones: then the service
is linearizable. What fails is shrunk and printed as curl lines.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.support.client import Answer, OverHttp
from tests.support.model import (
    Ask,
    Bulk,
    Change,
    Expire,
    Free,
    GiveBack,
    Heard,
    Look,
    Model,
    Move,
    Send,
    SetAside,
    Take,
    Wallet,
)
from wallets.ledger.inbox import drain
from wallets.ledger.verify import verify
from wallets.models import InboxEntry

CLIENTS = 4
SOON = 0.15  # seconds until some of the holds expire
PROGRAMS = int(os.environ.get("MODEL_PROGRAMS", "40"))


@dataclass(frozen=True)
class Drain:
    """What was accepted for later is carried out. Nobody asks for that either."""


Step = Ask | Drain

# --- Programs ---------------------------------------------------------------------------------------
keys = st.sampled_from([None, None, "a", "b"])
# Few wallets and few amounts, which fill and empty them exactly: so the limits are met all the time.
cents = st.sampled_from([5000, 10_000, 10_000, 20_000, 20_050, 30_000])
wallets = st.sampled_from([0, 0, 0, 1, 1, 2, 2, 3])
number = st.integers(0, 6)
part = st.none() | cents
moves = st.builds(Move, kind=st.sampled_from(["DEPOSIT", "WITHDRAW"]), wallet=wallets, cents=cents, key=keys)
sends = st.tuples(wallets, wallets, cents, keys).map(
    lambda it: Send(wallet=it[0], target=it[1] if it[1] != it[0] else (it[0] + 1) % 4, cents=it[2], key=it[3])
)
asks = st.one_of(
    moves,
    moves.map(lambda move: replace(move, later=True)),
    sends,
    st.builds(SetAside, wallet=wallets, cents=cents, key=keys, expires_at=st.sampled_from([None, "soon"])),
    st.builds(Take, hold=number, cents=part, key=keys),
    st.builds(Free, hold=number, key=keys),
    st.builds(GiveBack, operation=number, cents=part, key=keys),
    st.builds(Change, wallet=wallets, status=st.sampled_from(["ACTIVE", "ACTIVE", "FROZEN", "CLOSED"])),
    st.builds(Look, wallet=wallets),
    st.builds(Bulk, items=st.lists(moves | sends, min_size=1, max_size=4).map(tuple)),
)


def _is_clear(round: list[Ask]) -> bool:
    """Of two changes of a wallet at once nothing in their answers says which was the last."""
    changed = [ask.wallet for ask in round if isinstance(ask, Change)]
    return len(changed) == len(set(changed))


rounds = st.lists(asks, min_size=1, max_size=CLIENTS).filter(_is_clear) | st.just([Drain()])
programs = st.lists(rounds, min_size=1, max_size=16)


# --- Sending ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Call:
    """A request as it went over the wire, and its answer."""

    ask: Ask
    method: str
    path: str
    body: Any
    headers: dict[str, str]
    answer: Answer | None = None

    def __str__(self) -> str:
        headers = "".join(f" -H '{name}: {value}'" for name, value in self.headers.items())
        data = "" if self.body is None else f" -d '{json.dumps(self.body)}'"
        told = f"{self.answer.status} {self.answer.content.decode()}" if self.answer else ""
        return f"curl -X {self.method} $HOST/api/v1{self.path}{headers}{data}\n    # {self.ask}\n    # {told}"


class Clients:
    """Several connections, and the wallets of one program."""

    def __init__(self, senders: Sequence[OverHttp]) -> None:
        self.senders = senders
        self.pool = ThreadPoolExecutor(len(senders))
        self.log: list[Call] = []
        self.wallet_ids: list[str] = []

    def open(self, wallet: Wallet) -> None:
        body = {"currency": wallet.currency, "overdraftLimit": str(wallet.overdraft // 100)}
        if wallet.maximum is not None:
            body["maxBalance"] = str(wallet.maximum // 100)
        call = self._send(self.senders[0], Call(Look(wallet=0), "POST", "/wallets", body, {}))
        assert call.answer
        self.wallet_ids.append(call.answer.json["id"])
        self.log.append(call)

    def send(self, calls: Sequence[Call]) -> list[Call]:
        """All at once."""
        done = list(self.pool.map(self._send, self.senders, calls))
        self.log += done
        return done

    def _send(self, sender: OverHttp, call: Call) -> Call:
        content = None if call.body is None else json.dumps(call.body).encode()
        return replace(call, answer=sender.send(call.method, f"/api/v1{call.path}", content, call.headers))

    def call(self, ask: Ask, model: Model) -> Call:
        """The request in HTTP: numbers of the model become ids."""
        headers = {"Idempotency-Key": ask.key} if ask.key is not None else {}
        if isinstance(ask, Move) and ask.later:
            headers["Prefer"] = "respond-async"
        method = {Look: "GET", Change: "PATCH"}.get(type(ask), "POST")
        path, body = self._request(ask, model)
        return Call(ask, method, path, body, headers)

    def _request(self, ask: Ask, model: Model) -> tuple[str, Any]:
        match ask:
            case Move():
                body = {"operationType": ask.kind, "amount": _amount(ask.cents)}
                return f"/wallets/{self.wallet_ids[ask.wallet]}/operation", body
            case Send():
                return "/transfers", self._item(replace(ask, key=None))
            case SetAside():
                expiry = {"expiresAt": ask.expires_at} if ask.expires_at else {}
                body = {"amount": _amount(ask.cents), **expiry}
                return f"/wallets/{self.wallet_ids[ask.wallet]}/holds", body
            case Take():
                hold = model.operations[model.holds[ask.hold].operation].id
                return f"/holds/{hold}/capture", _part(ask.cents)
            case Free():
                return f"/holds/{model.operations[model.holds[ask.hold].operation].id}/void", None
            case GiveBack():
                return f"/operations/{model.operations[ask.operation].id}/reversal", _part(ask.cents)
            case Change():
                return f"/wallets/{self.wallet_ids[ask.wallet]}", {"status": ask.status}
            case Look():
                return f"/wallets/{self.wallet_ids[ask.wallet]}", None
            case Bulk():
                return "/operations", {"operations": [self._item(item) for item in ask.items], "atomic": True}
        raise AssertionError(ask)

    def _item(self, item: Move | Send) -> dict[str, Any]:
        ids = self.wallet_ids
        key = {} if item.key is None else {"idempotencyKey": item.key}
        amount = _amount(item.cents)
        if isinstance(item, Move):
            return {"walletId": ids[item.wallet], "operationType": item.kind, "amount": amount, **key}
        return {
            "sourceWalletId": ids[item.wallet],
            "targetWalletId": ids[item.target],
            "amount": amount,
            **key,
        }


def _amount(cents: int) -> str:
    """However it is spelled, it is the same amount: 1, 1.0, 2.5, 2.50."""
    whole, rest = divmod(cents, 100)
    return f"{whole}" if not rest else f"{whole}.{rest:02}".rstrip("0" if cents % 3 else "")


def _expires(ask: Ask) -> str | None:
    return ask.expires_at if isinstance(ask, SetAside) else None


def _part(cents: int | None) -> Any:
    return None if cents is None else {"amount": _amount(cents)}


# --- Judging ----------------------------------------------------------------------------------------
def explain(model: Model, events: list[tuple[Ask, Answer | None]]) -> Model | None:
    """The model after the events in some order in which it hears what the clients heard; None if none is."""
    if not events:
        return model
    for at, (ask, answer) in enumerate(events):
        if math.inf > place_in_inbox(answer) > min(place_in_inbox(other) for _, other in events):
            continue
        after = deepcopy(model)
        heard = after.hear(ask)
        if answer is None or is_heard(after, heard, answer):
            rest = explain(after, events[:at] + events[at + 1 :])
            if rest is not None:
                return rest
    return None


def place_in_inbox(answer: Answer | None) -> float:
    """What was accepted for later has an order that its answer does not tell."""
    if answer is None or answer.status != HTTPStatus.ACCEPTED:
        return math.inf
    places = InboxEntry.objects.filter(id=answer.json["id"]).values_list("position", flat=True)
    return places.first() or 0


def is_heard(model: Model, heard: Heard, answer: Answer) -> bool:
    """Whether the answer is what the model foretold. Binds the ids that it is the first to name."""
    body = dict(answer.json)
    if (
        answer.status != heard.status
        or (answer.headers.get("idempotent-replayed") == "true") != heard.replayed
    ):
        return False
    expected = dict(heard.fields)
    if "at" in expected:
        places = body["errors"][0]["field"].split(".")
        if places[:2] != ["operations", str(expected.pop("at"))]:
            return False
    if not is_part(expected, body):
        return False
    named = body.get("operationId") if heard.status >= HTTPStatus.BAD_REQUEST else body.get("id")
    if heard.operation is None:
        return heard.status < HTTPStatus.BAD_REQUEST or named is None
    return bind(model, heard.operation, named, body)


def is_part(expected: Any, found: Any) -> bool:
    if isinstance(expected, dict):
        return all(name in found and is_part(value, found[name]) for name, value in expected.items())
    if isinstance(expected, list):
        return len(expected) == len(found) and all(map(is_part, expected, found))
    return bool(expected == found)


def bind(model: Model, operation: int, found: str | None, body: dict[str, Any]) -> bool:
    known = model.operations[operation]
    if known.id is None and found in {other.id for other in model.operations}:
        return False
    known.id = known.id or found
    if body.get("target") and known.other is not None:
        model.operations[known.other].id = body["target"]["id"]
    return bool(known.id == found)


# --- Running ----------------------------------------------------------------------------------------
class Run:
    """One program against one set of wallets."""

    def __init__(self, senders: Sequence[OverHttp]) -> None:
        self.model = Model(
            [
                Wallet("EUR", has_cents=True),
                Wallet("EUR", has_cents=True, overdraft=10_000),
                Wallet("EUR", has_cents=True, maximum=40_000),
                Wallet("JPY", has_cents=False),
            ]
        )
        self.clients = Clients(senders)
        for wallet in self.model.wallets:
            self.clients.open(wallet)
        for at in range(len(self.model.wallets)):
            self.round([Move(kind="DEPOSIT", wallet=at, cents=20_000)])

    def round(self, steps: Sequence[Step]) -> None:
        if isinstance(steps[0], Drain):
            self.expire_until(datetime.now(UTC))
            while drain(100):
                pass
            self.model.drain()
            return
        asks = [ask for step in steps if isinstance(step, Ask) for ask in self.concrete(step)]
        begun = datetime.now(UTC)
        calls = self.clients.send([self.clients.call(ask, self.model) for ask in asks])
        ended = datetime.now(UTC)
        self.expire_until(begun)
        events: list[tuple[Ask, Answer | None]] = [(call.ask, call.answer) for call in calls]
        # What expires meanwhile does so at some point between the requests.
        # A hold that expired before its own answer came is nothing to judge by: the machine was too slow.
        expiries = [datetime.fromisoformat(expiry) for ask in asks if (expiry := _expires(ask))]
        assume(all(expiry > ended for expiry in expiries))
        events += [(Expire(hold=hold), None) for hold in self.due(ended)]
        explained = explain(self.model, events)
        assert explained, "no order of these requests explains their answers:\n" + "\n".join(map(str, calls))
        self.model = explained

    def concrete(self, ask: Ask) -> Iterator[Ask]:
        """The request with what it refers to, if there is such a thing yet."""
        match ask:
            case SetAside(expires_at="soon"):
                soon = datetime.now(UTC) + timedelta(seconds=SOON)
                yield replace(ask, expires_at=soon.isoformat())
            case Take() | Free():
                if self.model.holds:
                    yield replace(ask, hold=ask.hold % len(self.model.holds))
            case GiveBack():
                known = [at for at, operation in enumerate(self.model.operations) if operation.id]
                known = [at for at in known if at not in {entry for entry, _ in self.model.inbox}]
                if known:
                    yield replace(ask, operation=known[ask.operation % len(known)])
            case _:
                yield ask

    def due(self, time: datetime) -> list[int]:
        return [
            at
            for at, hold in enumerate(self.model.holds)
            if hold.status == "ACTIVE" and hold.expires_at and datetime.fromisoformat(hold.expires_at) <= time
        ]

    def expire_until(self, time: datetime) -> None:
        for hold in self.due(time):
            self.model.hear(Expire(hold=hold))

    def check_the_end(self) -> None:
        """All wallets and holds are as the model has them, and the books agree with themselves."""
        self.round([Drain()])
        while any(hold.status == "ACTIVE" and hold.expires_at for hold in self.model.holds):
            time.sleep(SOON / 2)
            self.expire_until(datetime.now(UTC))
        for at in range(len(self.model.wallets)):
            self.round([Look(wallet=at)])
        for hold in self.model.holds:
            hold_id = self.model.operations[hold.operation].id
            body = self.clients.senders[0].send("GET", f"/api/v1/holds/{hold_id}").json
            assert body["status"] == hold.status, body
        assert verify([UUID(wallet_id) for wallet_id in self.clients.wallet_ids]) == []


@pytest.fixture(scope="module")
def senders(service: str) -> Iterator[list[OverHttp]]:
    opened = [OverHttp(service) for _ in range(CLIENTS)]
    yield opened
    for sender in opened:
        sender.connection.close()


# Programs that failed once, or that would have.
ALL_OF_A_HOLD = [[SetAside(wallet=0, cents=5000)], [Take(hold=0)]]
WHAT_IS_LEFT = [[GiveBack(operation=0, cents=5000), GiveBack(operation=0), GiveBack(operation=0, cents=5000)]]
LATER_AND_AT_ONCE = [
    [Move(kind="DEPOSIT", wallet=3, cents=5000, key="a", later=True)],
    [Drain()],
    [Move(kind="DEPOSIT", wallet=3, cents=5000, key="a"), Move(kind="WITHDRAW", wallet=3, cents=25_000)],
]
HELD_IS_NOT_AVAILABLE = [[SetAside(wallet=0, cents=10_000)], [Move(kind="WITHDRAW", wallet=0, cents=20_000)]]
HELD_COUNTS_FOR_THE_MAXIMUM = [
    [SetAside(wallet=2, cents=20_000)],
    [Move(kind="DEPOSIT", wallet=2, cents=30_000)],
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
@example(program=HELD_IS_NOT_AVAILABLE)
@example(program=HELD_COUNTS_FOR_THE_MAXIMUM)
@given(program=programs)
def test_whatever_is_asked_at_once_is_answered_as_if_asked_in_turn(
    senders: list[OverHttp], program: list[list[Step]]
) -> None:
    run = Run(senders)
    for steps in program:
        run.round(steps)
    run.check_the_end()

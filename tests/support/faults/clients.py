"""Clients that send requests during a fault, and the journal of the responses."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self
from uuid import uuid4

from tests.support.client import Answer
from tests.support.histories.journal import (
    ANSWER_TIMEOUT_SECONDS,
    ApiRequest,
    Connection,
    NoAnswer,
    NotReached,
)

# --- Requests ---------------------------------------------------------------------------------------
Choose = Callable[[random.Random], ApiRequest]


def deposit(wallet_id: str, amount: str) -> ApiRequest:
    return operation(wallet_id, "DEPOSIT", amount)


def operation(wallet_id: str, kind: str, amount: str) -> ApiRequest:
    body = {"operationType": kind, "amount": amount}
    return ApiRequest("POST", f"/wallets/{wallet_id}/operation", body, str(uuid4()), wallet_id)


def reading(wallet_id: str) -> ApiRequest:
    return ApiRequest("GET", f"/wallets/{wallet_id}", wallet_id=wallet_id)


def opening() -> ApiRequest:
    return ApiRequest("POST", "/wallets", {"id": str(uuid4())})


@dataclass(frozen=True)
class Mix:
    """A mix of operations, reads and `others` percent other requests; half of them use the hot wallet."""

    hot: str
    cold: Sequence[str]
    others: int = 6

    def __call__(self, dice: random.Random) -> ApiRequest:
        wallet_id = self.hot if dice.random() < 0.5 else dice.choice(self.cold)
        if (number := dice.randrange(100)) < self.others:
            return self._other(dice, wallet_id)
        if number < 70:
            kind = "DEPOSIT" if dice.random() < 0.6 else "WITHDRAW"
            return operation(wallet_id, kind, f"{dice.randint(1, 100_000) / 100:.2f}")
        return reading(wallet_id)

    def _other(self, dice: random.Random, wallet_id: str) -> ApiRequest:
        match dice.randrange(4):
            case 0:
                return ApiRequest("GET", f"/wallets/{wallet_id}/operations?limit=5")
            case 1:
                return ApiRequest("GET", "/wallets?limit=5")
            case 2:
                return ApiRequest("PATCH", f"/wallets/{wallet_id}", {"label": f"label {dice.random()}"})
            case _:
                return opening()


# --- Responses --------------------------------------------------------------------------------------
CARRIED_OUT = (200, 201, 409)


@dataclass(slots=True)
class SentRequest:
    """One request and its response; without a response, `lost` says why."""

    request: ApiRequest
    sent_at: float
    answer: Answer | None = None
    lost: NoAnswer | NotReached | None = None
    ended_at: float = float("inf")

    @property
    def outcome(self) -> int | str:
        return self.answer.status if self.answer else type(self.lost).__name__

    @property
    def seconds(self) -> float:
        return self.ended_at - self.sent_at

    @property
    def is_operation(self) -> bool:
        return self.request.key is not None

    @property
    def is_read(self) -> bool:
        """Return whether the request reads a wallet, as group reads do."""
        return bool(self.request.wallet_id) and not self.is_operation

    @property
    def is_settled(self) -> bool:
        """Return whether the client knows the outcome of its operation."""
        return self.answer is not None and self.answer.status in (201, 409)


def ask(connection: Connection, request: ApiRequest) -> SentRequest:
    sent = SentRequest(request, time.monotonic())
    try:
        sent.answer = connection.ask(request)
    except (NoAnswer, NotReached) as error:
        sent.lost = error
    sent.ended_at = time.monotonic()
    return sent


@dataclass
class RequestLoad:
    """`clients` that send `rate` requests a second in total; each client waits for its response."""

    address: tuple[str, int]
    choose: Choose
    rate: float = 500
    clients: int = 40

    def __enter__(self) -> Self:
        self._stopped = threading.Event()
        self._journals: list[list[SentRequest]] = [[] for _ in range(self.clients)]
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(seed), journal))  # noqa: S311
            for seed, journal in enumerate(self._journals)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, dice: random.Random, journal: list[SentRequest]) -> None:
        interval = self.clients / self.rate
        connection = Connection(self.address)
        due = time.monotonic() + dice.random() * interval
        while not self._stopped.wait(max(0, due - time.monotonic())):
            journal.append(ask(connection, self.choose(dice)))
            pause = 0.5 if isinstance(journal[-1].lost, NotReached) else interval
            due = max(time.monotonic(), due + pause)
        connection.close()

    @property
    def journal(self) -> list[SentRequest]:
        return [sent for journal in self._journals for sent in journal]

    def wait_for(self, rounds: int = 4) -> None:
        """Wait until `rounds` further requests of every client have been carried out."""
        since = time.monotonic()
        while not all(_carried_out(journal, since) >= rounds for journal in self._journals):
            assert time.monotonic() < since + ANSWER_TIMEOUT_SECONDS, (
                f"a client makes no progress: {self.outcomes(since)}"
            )
            time.sleep(0.02)

    def outcomes(self, since: float = 0) -> Counter[int | str]:
        return Counter(sent.outcome for sent in self.journal if sent.sent_at >= since)

    def expect_only(self, *outcomes: int | str) -> None:
        """Assert that all outcomes are among these; the default is carried out or refused by a rule."""
        others = [sent for sent in self.journal if sent.outcome not in (outcomes or CARRIED_OUT)]
        assert not others, f"{self.outcomes()}: {others[:3]}"


def _carried_out(journal: Sequence[SentRequest], since: float) -> int:
    return sum(sent.sent_at >= since and sent.outcome in CARRIED_OUT for sent in list(journal))

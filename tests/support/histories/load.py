"""A seeded load of all money requests of the API, by clients some of which time out early."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self
from uuid import UUID

from tests.support.histories.journal import (
    ANSWER_TIMEOUT_SECONDS,
    ApiRequest,
    Call,
    Connection,
    History,
    NotReached,
    call,
)

MAX_REMEMBERED = 200  # the newest objects that requests refer to
MAX_ATTEMPTS = 4  # of a client that gets no response
MAX_BULK_ITEMS = 6
RIVAL_SHARE = 0.3  # of the requests that a second client can contend for
SHARED_LOW_HALF = 0xB5AD_4ECE_DA1C_E2A9  # of most client ids


def sharing_low_half(dice: random.Random) -> UUID:
    return UUID(int=dice.getrandbits(64) << 64 | SHARED_LOW_HALF, version=4)


@dataclass
class Known:
    """The objects known from responses. The lists only grow, so they need no lock."""

    hot: list[str]
    cold: list[str]
    operations: list[str] = field(default_factory=list)  # operations that can be reversed
    accepted: list[str] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)
    moments: list[tuple[str, str]] = field(default_factory=list)  # wallet and time of an operation
    keyed: list[ApiRequest] = field(default_factory=list)
    contestable: list[ApiRequest] = field(default_factory=list)

    def learn(self, made: Call) -> None:
        if made.answer is None:
            return
        if made.request.key is not None:
            self.keyed.append(made.request)
        if is_contestable(made.request):
            self.contestable.append(made.request)
        match made.answer.status, made.request.path.rsplit("/", 1)[-1]:
            case (201, "holds"):
                self.holds.append(made.answer.json["id"])
            case (201, "operation" | "wallet" | "capture" | "reversal"):
                body = made.answer.json
                self.operations.append(body["id"])
                self.moments.append((body["walletId"], body["createdAt"]))
            case (201, "transfers"):
                body = made.answer.json
                self.operations += [body["source"]["id"], body["target"]["id"]]
            case (201, "wallets"):
                self.cold.append(made.answer.json["id"])
            case (202, _):
                self.accepted.append(made.answer.json["id"])


class Chooser:
    """Chooses the requests of one client. The description identifies a request without a key."""

    def __init__(
        self,
        client: int,
        dice: random.Random,
        known: Known,
        now: Callable[[], datetime] = partial(datetime.now, UTC),  # noqa: B008
    ) -> None:
        self.dice = dice
        self._now = now
        self._client = client
        self._known = known
        self._asked = 0
        self._kinds: list[tuple[Callable[[], ApiRequest], int]] = [
            (self.operation, 30),
            (self.transfer, 14),
            (self.hold, 8),
            (self.capture, 5),
            (self.void, 3),
            (self.reversal, 6),
            (self.bulk, 5),
            (self.again, 2),
            (self.wrong, 2),
            (self.conflict, 3),
            (self.change, 1),
            (self.open, 1),
            (self.read_wallet, 12),
            (self.read_operations, 4),
            (self.read_operation, 3),
            (self.read_hold, 2),
            (self.read_balance, 3),
        ]

    def __call__(self) -> ApiRequest:
        self._asked += 1
        kinds, weights = zip(*self._kinds, strict=True)
        chosen: Callable[[], ApiRequest] = self.dice.choices(kinds, weights)[0]
        return chosen()

    # --- Commands -----------------------------------------------------------------------------------
    def operation(self) -> ApiRequest:
        kind = "DEPOSIT" if self.dice.random() < 0.55 else "WITHDRAW"
        wallet = self._wallet()
        body = {"operationType": kind, "amount": self._amount(), "description": self._name()}
        if self.dice.random() < 0.1:
            return self._named(ApiRequest("POST", "/wallet", body | {"walletId": wallet}, wallet_id=wallet))
        request = ApiRequest("POST", f"/wallets/{wallet}/operation", body, wallet_id=wallet)
        return self._named(self._maybe_later(request))

    def transfer(self) -> ApiRequest:
        body = self._transfer() | {"description": self._name()}
        request = ApiRequest("POST", "/transfers", body, wallet_id=body["sourceWalletId"])
        return self._named(self._maybe_later(request))

    def hold(self) -> ApiRequest:
        wallet = self._wallet()
        body = {"amount": self._amount(), "description": self._name()}
        if (lasts := self.dice.choice([None, 0.1, 0.5, 2.0, 3600.0])) is not None:
            body["expiresAt"] = (self._now() + timedelta(seconds=lasts)).isoformat()
        return self._named(ApiRequest("POST", f"/wallets/{wallet}/holds", body, wallet_id=wallet))

    def capture(self) -> ApiRequest:
        if (hold := self._one_of(self._known.holds)) is None:
            return self.hold()
        request = ApiRequest("POST", f"/holds/{hold}/capture", self._part())
        return self._named(self._maybe_later(request))

    def void(self) -> ApiRequest:
        if (hold := self._one_of(self._known.holds)) is None:
            return self.hold()
        return self._named(ApiRequest("POST", f"/holds/{hold}/void", {}))

    def reversal(self) -> ApiRequest:
        if (operation := self._one_of(self._known.operations)) is None:
            return self.operation()
        request = ApiRequest("POST", f"/operations/{operation}/reversal", self._part())
        return self._named(self._maybe_later(request))

    def bulk(self) -> ApiRequest:
        items = [self._item(number) for number in range(self.dice.randint(2, MAX_BULK_ITEMS))]
        body = {"operations": items, "atomic": self.dice.random() < 0.5}
        request = ApiRequest("POST", "/operations", body)
        if self.dice.random() < 0.6:
            request = replace(request, key=self._key())
        return self._maybe_later(request)

    def again(self) -> ApiRequest:
        """Repeat an earlier request with its key."""
        known = self._known.keyed[-MAX_REMEMBERED:]
        return self.dice.choice(known) if known else self.operation()

    def wrong(self) -> ApiRequest:
        """Choose a request that leaves no record: a reused key, an invalid amount or an unknown object."""
        wallet = self._wallet()
        match self.dice.randrange(4):
            case 0 if again := [
                earlier for earlier in self._known.keyed[-MAX_REMEMBERED:] if earlier.wallet_id
            ]:
                other = self.dice.choice(again)
                body = {"operationType": "DEPOSIT", "amount": self._amount(), "description": self._name()}
                path = f"/wallets/{other.wallet_id}/operation"
                return ApiRequest("POST", path, body, other.key, other.wallet_id)
            case 1:
                body = {"operationType": "DEPOSIT", "amount": "1.001", "description": self._name()}
                return ApiRequest("POST", f"/wallets/{wallet}/operation", body, self._key(), wallet)
            case 2:
                return ApiRequest("POST", f"/holds/{self._id()}/capture", {}, self._key())
        return ApiRequest("POST", f"/operations/{self._id()}/reversal", {}, self._key())

    def conflict(self) -> ApiRequest:
        """Choose a request with the id of an earlier one, or a bulk with the key of an earlier one."""
        known = self._known.contestable[-MAX_REMEMBERED:]
        return self._conflicting(self.dice.choice(known)) if known else self.operation()

    def rival(self, request: ApiRequest) -> ApiRequest | None:
        """Return a request of a second client with the same id or bulk key, or None."""
        if is_contestable(request) and self.dice.random() < RIVAL_SHARE:
            return self._conflicting(request)
        return None

    def _conflicting(self, request: ApiRequest) -> ApiRequest:
        body = request.body or {}
        if "operations" in body:
            if self.dice.random() < 0.25:
                return request
            return replace(request, body=body | {"operations": self._changed(body["operations"])})
        command = self.dice.choice([self.operation, self.transfer, self.hold])()
        return replace(command, key=None, body=(command.body or {}) | {"id": body["id"]})

    def _changed(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Change the last items. The items before them stay, so the state they are decided on is known."""
        kept = items if len(items) < 2 * MAX_BULK_ITEMS and self.dice.random() < 0.5 else items[:-1]
        if len(kept) > 1 and self.dice.random() < 0.3:
            return items[:-1]
        return [*kept, self._item(self.dice.randrange(MAX_BULK_ITEMS, 1 << 30))]

    # --- Wallets ------------------------------------------------------------------------------------
    def change(self) -> ApiRequest:
        """Change a wallet. The label is unique, so the checker finds the change."""
        wallet = self.dice.choice(self._known.cold)
        body = {"label": self._name()}
        if self.dice.random() < 0.7:
            body["status"] = "FROZEN" if self.dice.random() < 0.4 else "ACTIVE"
        return ApiRequest("PATCH", f"/wallets/{wallet}", body, wallet_id=wallet)

    def open(self) -> ApiRequest:
        body: dict[str, Any] = {"id": self._id()}
        if self.dice.random() < 0.3:
            body["overdraftLimit"] = "50"
        if self.dice.random() < 0.3:
            body["maxBalance"] = "200"
        if self.dice.random() < 0.2:
            body["currency"] = "JPY"
        return ApiRequest("POST", "/wallets", body)

    # --- Reads --------------------------------------------------------------------------------------
    def read_wallet(self) -> ApiRequest:
        wallet = self._wallet()
        return ApiRequest("GET", f"/wallets/{wallet}", wallet_id=wallet)

    def read_operations(self) -> ApiRequest:
        wallet = self._wallet()
        return ApiRequest("GET", f"/wallets/{wallet}/operations?limit=5", wallet_id=wallet)

    def read_operation(self) -> ApiRequest:
        known = self._known.accepted if self.dice.random() < 0.7 else self._known.operations
        operation = self._one_of(known)
        return self.read_wallet() if operation is None else ApiRequest("GET", f"/operations/{operation}")

    def read_hold(self) -> ApiRequest:
        hold = self._one_of(self._known.holds)
        return self.read_wallet() if hold is None else ApiRequest("GET", f"/holds/{hold}")

    def read_balance(self) -> ApiRequest:
        known = self._known.moments[-MAX_REMEMBERED:]
        if not known or self.dice.random() < 0.3:
            wallet = self._wallet()
            return ApiRequest("GET", f"/wallets/{wallet}/balance", wallet_id=wallet)
        wallet, at = self.dice.choice(known)
        return ApiRequest("GET", f"/wallets/{wallet}/balance?at={at}", wallet_id=wallet)

    # --- Parts of requests --------------------------------------------------------------------------
    def _wallet(self) -> str:
        return self.dice.choice(self._known.hot if self.dice.random() < 0.5 else self._known.cold)

    def _amount(self) -> str:
        """Return a small amount, often whole, as some currencies require."""
        return (
            f"{self.dice.randint(1, 40)}"
            if self.dice.random() < 0.7
            else f"{self.dice.random() * 40 + 0.01:.2f}"
        )

    def _part(self) -> dict[str, Any]:
        return {} if self.dice.random() < 0.5 else {"amount": f"{self.dice.randint(1, 15)}"}

    def _transfer(self) -> dict[str, Any]:
        source = target = self._wallet()
        while target == source:
            target = self._wallet() if self.dice.random() < 0.7 else self.dice.choice(self._known.cold)
        return {"sourceWalletId": source, "targetWalletId": target, "amount": self._amount()}

    def _item(self, number: int) -> dict[str, Any]:
        item: dict[str, Any] = {"description": f"{self._name()}/{number}"}
        if self.dice.random() < 0.4:
            item |= self._transfer()
        else:
            kind = "DEPOSIT" if self.dice.random() < 0.6 else "WITHDRAW"
            item |= {"walletId": self._wallet(), "operationType": kind, "amount": self._amount()}
        if self.dice.random() < 0.3:
            item["idempotencyKey"] = f"{self._key()}-{number}"
        return item

    def _one_of(self, known: Sequence[str]) -> str | None:
        """Choose one, preferably a new one."""
        newest = known[-MAX_REMEMBERED:]
        return newest[-1 - int(len(newest) * self.dice.random() ** 2)] if newest else None

    def _maybe_later(self, request: ApiRequest) -> ApiRequest:
        return replace(request, is_async=True) if self.dice.random() < 0.15 else request

    def _named(self, request: ApiRequest) -> ApiRequest:
        """Add a key or a client id to the request, or neither."""
        match self.dice.choices(["key", "id", ""], [70, 15, 15])[0]:
            case "key":
                return replace(request, key=self._key())
            case "id":
                return replace(request, body=(request.body or {}) | {"id": self._chosen_id()})
        return request

    def _name(self) -> str:
        return f"{self._client}.{self._asked}"

    def _key(self) -> str:
        return f"key-{self._name()}"

    def _chosen_id(self) -> str:
        return str(sharing_low_half(self.dice)) if self.dice.random() < 0.8 else self._id()

    def _id(self) -> str:
        return str(UUID(int=self.dice.getrandbits(128), version=4))


def is_contestable(request: ApiRequest) -> bool:
    """Return whether another request can use its id or its bulk key."""
    body = request.body or {}
    if request.path == "/operations":
        return request.key is not None
    return "id" in body and request.path not in ("/wallets", "/wallet/create")


def is_safe_to_repeat(request: ApiRequest) -> bool:
    """Return whether the request counts once even if it is sent again."""
    if request.method == "GET":
        return True
    if request.method == "PATCH":
        return False
    body = request.body or {}
    items = body.get("operations")
    return (
        request.key is not None
        or "id" in body
        or (items is not None and all("idempotencyKey" in item for item in items))
    )


class Load:
    """`clients` that send `rate` requests a second in total; some of them time out early.

    It opens its own wallets. The requests follow from `seed` as far as the responses are the same.
    """

    def __init__(  # noqa: PLR0913
        self,
        address: tuple[str, int],
        seed: int = 0,
        rate: float = 500,
        clients: int = 40,
        *,
        hot: int = 1,
        cold: int = 20,
        timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
        early_timeout_share: float = 0.03,
    ) -> None:
        """`early_timeout_share` of the requests get a timeout of a few milliseconds."""
        self._address = address
        self._seed = seed
        self._interval = clients / rate
        self._patience = timeout_seconds
        self._hurry = early_timeout_share
        self._counts = hot, cold
        self._epoch = time.time() - time.monotonic()
        self._stopped = threading.Event()
        self._journals: list[list[Call]] = [[] for _ in range(clients + 1)]
        self._threads: list[threading.Thread] = []
        self._failed: list[BaseException] = []

    def __enter__(self) -> Self:
        self._known = self._open()
        for client in range(1, len(self._journals)):
            dice = random.Random(f"{self._seed}-{client}")  # noqa: S311
            self._threads.append(threading.Thread(target=self._work, args=[client, dice], daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]

    def wait_for(self, calls: int, timeout_seconds: float = 120.0) -> None:
        """Wait until this number of requests has ended."""
        deadline = time.monotonic() + timeout_seconds
        while sum(map(len, self._journals)) < calls:
            assert time.monotonic() < deadline, f"the load makes no progress: {self.outcomes()}"
            time.sleep(0.05)

    @property
    def wallet_ids(self) -> list[str]:
        """Return the wallets that the load has opened or may have opened."""
        return list(
            dict.fromkeys(
                made.request.body["id"]
                for journal in self._journals
                for made in list(journal)
                if made.request.path == "/wallets" and made.request.body
            )
        )

    @property
    def history(self) -> History:
        calls = [made for journal in self._journals for made in list(journal)]
        return History(sorted(calls, key=lambda made: made.began), self.wallet_ids, self._epoch)

    def outcomes(self, since: float = 0) -> Counter[int | str]:
        return Counter(made.outcome for made in self.history if made.began >= since)

    # --- Clients ------------------------------------------------------------------------------------
    def _open(self) -> Known:
        """Open the wallets as client 0, before the other clients start."""
        known = Known([], [])
        chooser = Chooser(0, random.Random(f"{self._seed}-0"), known)  # noqa: S311
        connection = Connection(self._address)
        for _ in range(sum(self._counts)):
            body: dict[str, Any] = {"id": chooser._id()}
            if len(known.cold) % 4 == 1:
                body["overdraftLimit"] = "100"
            if len(known.cold) % 5 == 4:
                body["maxBalance"] = "500"
            if len(known.cold) % 10 == 9:
                body = {"id": body["id"], "currency": "JPY"}
            made = call(connection, 0, ApiRequest("POST", "/wallets", body), self._patience)
            self._journals[0].append(made)
            assert made.outcome == 201, made
            known.cold.append(body["id"])
        connection.close()
        hot = self._counts[0]
        known.hot, known.cold = known.cold[:hot], known.cold[hot:]
        return known

    def _work(self, client: int, dice: random.Random) -> None:
        try:
            self._ask_on(client, Chooser(client, dice, self._known))
        except BaseException as error:
            self._failed.append(error)

    def _ask_on(self, client: int, choose: Chooser) -> None:
        connection = Connection(self._address)
        due = time.monotonic() + choose.dice.random() * self._interval
        while not self._stopped.wait(max(0, due - time.monotonic())):
            made = self._ask(client, connection, choose)
            pause = 0.5 if isinstance(made.lost, NotReached) else self._interval
            due = max(time.monotonic(), due + pause)
        connection.close()

    def _ask(self, client: int, connection: Connection, choose: Chooser) -> Call:
        request = choose()
        with self._contending(client, choose.rival(request)):
            return self._send_with_retries(client, connection, choose, request)

    @contextmanager
    def _contending(self, client: int, rival: ApiRequest | None) -> Iterator[None]:
        """Let a second client send the rival request concurrently."""
        if rival is None:
            yield
            return
        thread = threading.Thread(target=self._send_once, args=[client, rival], daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _send_once(self, client: int, request: ApiRequest) -> None:
        connection = Connection(self._address)
        try:
            made = call(connection, client, request, self._patience)
            self._journals[client].append(made)
            self._known.learn(made)
        except BaseException as error:
            self._failed.append(error)
        finally:
            connection.close()

    def _send_with_retries(
        self, client: int, connection: Connection, choose: Chooser, request: ApiRequest
    ) -> Call:
        """Send the request. Retry it without a response if a repetition is safe."""
        timeout_seconds = (
            choose.dice.uniform(0.001, 0.03) if choose.dice.random() < self._hurry else self._patience
        )
        for _ in range(MAX_ATTEMPTS):
            made = call(connection, client, request, timeout_seconds)
            self._journals[client].append(made)
            self._known.learn(made)
            is_over = made.answer is not None and made.answer.status not in (429, 503)
            if is_over or not is_safe_to_repeat(request) or self._stopped.is_set():
                break
            if made.answer is not None or isinstance(made.lost, NotReached):
                self._stopped.wait(0.5)
            if choose.dice.random() < 0.5:
                timeout_seconds = self._patience
        return made

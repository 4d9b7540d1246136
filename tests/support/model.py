"""The ledger in plain Python, as simple as it can be: the oracle of test_model.py.

Its clients may read every wallet, so that none is ever told target_cannot_receive.
It shares no code with the service. Amounts are whole cents, in wallets of currencies without cents too.
"""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Status = Literal["ACTIVE", "FROZEN", "CLOSED"]


# --- What clients ask for ---------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Ask:
    """Wallets, holds and operations by their numbers in the model."""

    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Move(Ask):
    kind: Literal["DEPOSIT", "WITHDRAW"]
    wallet: int
    cents: int
    later: bool = False


@dataclass(frozen=True, kw_only=True)
class Send(Ask):
    wallet: int
    target: int
    cents: int


@dataclass(frozen=True, kw_only=True)
class SetAside(Ask):
    wallet: int
    cents: int
    expires_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Take(Ask):
    """Capture `cents` of a hold, or all of it."""

    hold: int
    cents: int | None = None


@dataclass(frozen=True, kw_only=True)
class Free(Ask):
    hold: int


@dataclass(frozen=True, kw_only=True)
class GiveBack(Ask):
    """Reverse `cents` of an operation, or what is left of it."""

    operation: int
    cents: int | None = None


@dataclass(frozen=True, kw_only=True)
class Change(Ask):
    wallet: int
    status: Status


@dataclass(frozen=True, kw_only=True)
class Look(Ask):
    wallet: int


@dataclass(frozen=True, kw_only=True)
class Bulk(Ask):
    """All of them or none."""

    items: tuple[Move | Send, ...]


@dataclass(frozen=True, kw_only=True)
class Expire(Ask):
    """Nobody asks for that: a hold's time has come."""

    hold: int


# --- What they are to hear --------------------------------------------------------------------------
@dataclass(frozen=True)
class Heard:
    """The status, the body's fields that can be foretold, and the operation whose id is in the answer."""

    status: int
    fields: dict[str, Any]
    operation: int | None = None
    replayed: bool = False


@dataclass
class Wallet:
    currency: str
    has_cents: bool
    overdraft: int = 0
    maximum: int | None = None
    balance: int = 0
    sequence: int = 0
    status: Status = "ACTIVE"


@dataclass
class Operation:
    kind: str
    wallet: int
    cents: int
    id: str | None = None  # as soon as an answer has named it
    is_completed: bool = True
    other: int | None = None  # of a transfer: the operation on the other side
    reversed: int = 0


@dataclass
class Held:
    wallet: int
    cents: int
    operation: int  # that placed it: the hold has its id
    expires_at: str | None
    status: str = "ACTIVE"


@dataclass
class Model:
    wallets: list[Wallet]
    operations: list[Operation] = field(default_factory=list)
    holds: list[Held] = field(default_factory=list)
    told: dict[tuple[int, str], tuple[Ask, Heard]] = field(default_factory=dict)  # by wallet and key
    inbox: list[tuple[int, Move]] = field(default_factory=list)

    def held(self, wallet: int) -> int:
        return sum(hold.cents for hold in self.holds if (hold.wallet, hold.status) == (wallet, "ACTIVE"))

    def available(self, wallet: int) -> int:
        return self.wallets[wallet].balance - self.held(wallet)

    def hear(self, ask: Ask) -> Heard:
        """What the client has to hear; afterwards the model is as the ledger has to be."""
        match ask:
            case Look():
                return Heard(200, self._wallet(ask.wallet))
            case Change():
                return self._change(ask)
            case Bulk():
                return self._together(ask)
            case Expire():
                if self.holds[ask.hold].status == "ACTIVE":
                    self.holds[ask.hold].status = "EXPIRED"
                return Heard(0, {})
        return self._command(ask)

    def drain(self) -> None:
        """Carry out what was accepted for later."""
        for number, ask in self.inbox:
            refusal = self._refusal(ask)
            if refusal is None:
                self._move(number, ask.cents if ask.kind == "DEPOSIT" else -ask.cents)
            self.operations[number].is_completed = refusal is None
        self.inbox.clear()

    # --- Commands -----------------------------------------------------------------------------------
    def _command(self, ask: Ask) -> Heard:
        wallet = self._wallet_of(ask)
        told = self._told_before(ask, wallet)
        if told is not None:
            return told
        heard = self._decide(ask, wallet)
        if ask.key is not None and heard.operation is not None:
            self.told[wallet, ask.key] = ask, heard
        return heard

    def _told_before(self, ask: Ask, wallet: int) -> Heard | None:
        if ask.key is None or (wallet, ask.key) not in self.told:
            return None
        first, heard = self.told[wallet, ask.key]
        if _form(first) != _form(ask):
            return Heard(422, {"code": "idempotency_key_reused"})
        return Heard(heard.status, heard.fields, heard.operation, replayed=True)

    def _decide(self, ask: Ask, wallet: int) -> Heard:
        cents = getattr(ask, "cents", None)
        if cents is not None and cents % 100 and not self.wallets[wallet].has_cents:
            return Heard(400, {"code": "validation_error"})
        if isinstance(ask, Move) and ask.later:
            number = self._add(ask.kind, wallet, cents or 0)
            self.inbox.append((number, ask))
            fields = {"status": "PENDING", "balance": None, "sequence": None, "operationType": ask.kind}
            return Heard(202, fields, number)
        refusal = self._refusal(ask)
        if refusal is not None:
            number = self._add("", wallet, 0)
            self.operations[number].is_completed = False
            return Heard(409, {"code": refusal}, number)
        return self._carry_out(ask, wallet)

    def _refusal(self, ask: Ask) -> str | None:  # noqa: PLR0912 - the rules, in their order
        wallets = [self._wallet_of(ask), *self._others(ask)]
        if len({self.wallets[wallet].currency for wallet in wallets}) > 1:
            return "currency_mismatch"
        statuses = {self.wallets[wallet].status for wallet in wallets}
        if "CLOSED" in statuses:
            return "wallet_closed"
        if "FROZEN" in statuses and not isinstance(ask, Free):
            return "wallet_frozen"
        if isinstance(ask, Take | Free):
            hold = self.holds[ask.hold]
            if hold.status != "ACTIVE":
                return "hold_not_active"
            if isinstance(ask, Take) and ask.cents is not None and ask.cents > hold.cents:
                return "hold_amount_exceeded"
            return None
        if isinstance(ask, GiveBack):
            original = self.operations[ask.operation]
            if not original.is_completed or original.kind in ("HOLD", "VOID", "REVERSAL_IN", "REVERSAL_OUT"):
                return "operation_not_reversible"
            if self._back(ask) > original.cents - original.reversed or original.cents == original.reversed:
                return "reversal_exceeds_original"
        changes = self._changes(ask)
        for wallet, change in changes.items():
            state = self.wallets[wallet]
            if change < 0 and self.available(wallet) + change < -state.overdraft:
                return "insufficient_funds"
        for wallet, change in changes.items():
            state = self.wallets[wallet]
            if change > 0 and state.maximum is not None and state.balance + change > state.maximum:
                return "balance_limit_exceeded"
        return None

    def _changes(self, ask: Ask) -> dict[int, int]:
        """Of what each wallet has available."""
        match ask:
            case Move(kind="DEPOSIT"):
                return {ask.wallet: ask.cents}
            case Move() | SetAside():
                return {ask.wallet: -ask.cents}
            case Send():
                return {ask.wallet: -ask.cents, ask.target: ask.cents}
            case GiveBack():
                original, back = self.operations[ask.operation], self._back(ask)
                sign = 1 if original.kind in ("WITHDRAW", "CAPTURE", "TRANSFER_OUT") else -1
                changes = {original.wallet: sign * back}
                if original.other is not None:
                    changes[self.operations[original.other].wallet] = -sign * back
                return changes
        return {}

    def _carry_out(self, ask: Ask, wallet: int) -> Heard:
        match ask:
            case Move():
                number = self._add(ask.kind, wallet, ask.cents)
                self._move(number, ask.cents if ask.kind == "DEPOSIT" else -ask.cents)
                return self._told(number)
            case Send():
                source = self._add("TRANSFER_OUT", wallet, ask.cents)
                target = self._add("TRANSFER_IN", ask.target, ask.cents)
                self.operations[source].other, self.operations[target].other = target, source
                self._move(source, -ask.cents)
                self._move(target, ask.cents)
                return Heard(201, {"source": self._told(source).fields, "status": "COMPLETED"}, source)
            case SetAside():
                number = self._add("HOLD", wallet, ask.cents)
                self.holds.append(Held(wallet, ask.cents, number, ask.expires_at))
                return Heard(201, {"status": "ACTIVE", "amount": self._text(wallet, ask.cents)}, number)
            case Take():
                hold = self.holds[ask.hold]
                taken = hold.cents if ask.cents is None else ask.cents
                hold.status = "CAPTURED"
                number = self._add("CAPTURE", wallet, taken)
                self._move(number, -taken)
                return self._told(number)
            case Free():
                hold = self.holds[ask.hold]
                hold.status = "VOIDED"
                self._add("VOID", wallet, hold.cents)
                fields = {"status": "VOIDED", "amount": self._text(wallet, hold.cents)}
                return Heard(200, fields, hold.operation)
            case GiveBack():
                return self._give_back(ask)
        raise AssertionError(ask)

    def _give_back(self, ask: GiveBack) -> Heard:
        original, back = self.operations[ask.operation], self._back(ask)
        changes = self._changes(ask)
        sides = [original] if original.other is None else [original, self.operations[original.other]]
        numbers = []
        for side in sides:
            change = changes[side.wallet]
            side.reversed += back
            numbers.append(self._add("REVERSAL_IN" if change > 0 else "REVERSAL_OUT", side.wallet, back))
            self._move(numbers[-1], change)
        return self._told(numbers[0])

    def _back(self, ask: GiveBack) -> int:
        original = self.operations[ask.operation]
        return original.cents - original.reversed if ask.cents is None else ask.cents

    def _together(self, ask: Bulk) -> Heard:
        """Tried on a copy, which is kept where nothing was refused. What was refused before comes first."""
        for number, item in enumerate(ask.items):
            told = self._told_before(item, item.wallet)
            if told is not None and told.status >= 400:
                return self._refuse_together(item, number, told)
        trial = deepcopy(self)
        heard = []
        for number, item in enumerate(ask.items):
            answer = trial.hear(item)
            if answer.status >= 400:
                return self._refuse_together(item, number, answer)
            heard.append(answer)
        self.__dict__.update(trial.__dict__)
        results = [{"status": answer.status, "replayed": answer.replayed} for answer in heard]
        return Heard(200, {"results": results}, replayed=all(answer.replayed for answer in heard))

    def _refuse_together(self, item: Move | Send, number: int, answer: Heard) -> Heard:
        is_new = answer.operation is not None and not answer.replayed
        operation = answer.operation
        if is_new:
            operation = self._add("", item.wallet, 0)
            self.operations[operation].is_completed = False
            if item.key is not None:
                self.told[item.wallet, item.key] = item, Heard(409, answer.fields, operation)
        status = 400 if answer.status == 400 else 409
        return Heard(status, answer.fields | {"at": number}, operation, answer.replayed)

    # --- Bookkeeping --------------------------------------------------------------------------------
    def _change(self, ask: Change) -> Heard:
        wallet = self.wallets[ask.wallet]
        if ask.status != wallet.status:
            if wallet.status == "CLOSED":
                return Heard(409, {"code": "wallet_closed"})
            if ask.status == "CLOSED" and (wallet.balance or self.held(ask.wallet)):
                return Heard(409, {"code": "wallet_not_empty"})
            wallet.status = ask.status
        return Heard(200, self._wallet(ask.wallet))

    def _wallet_of(self, ask: Ask) -> int:
        match ask:
            case Take() | Free():
                return self.holds[ask.hold].wallet
            case GiveBack():
                return self.operations[ask.operation].wallet
        wallet: int = getattr(ask, "wallet")  # noqa: B009
        return wallet

    def _others(self, ask: Ask) -> list[int]:
        match ask:
            case Send():
                return [ask.target]
            case GiveBack() if (other := self.operations[ask.operation].other) is not None:
                return [self.operations[other].wallet]
        return []

    def _add(self, kind: str, wallet: int, cents: int) -> int:
        self.operations.append(Operation(kind, wallet, cents))
        return len(self.operations) - 1

    def _move(self, operation: int, change: int) -> None:
        wallet = self.wallets[self.operations[operation].wallet]
        wallet.balance += change
        wallet.sequence += 1

    def _told(self, operation: int) -> Heard:
        done = self.operations[operation]
        wallet = self.wallets[done.wallet]
        fields = {
            "status": "COMPLETED",
            "operationType": done.kind,
            "amount": self._text(done.wallet, done.cents),
            "balance": self._text(done.wallet, wallet.balance),
            "sequence": wallet.sequence,
        }
        return Heard(201, fields, operation)

    def _wallet(self, number: int) -> dict[str, Any]:
        wallet = self.wallets[number]
        return {
            "balance": self._text(number, wallet.balance),
            "held": self._text(number, self.held(number)),
            "available": self._text(number, self.available(number)),
            "sequence": wallet.sequence,
            "status": wallet.status,
        }

    def _text(self, wallet: int, cents: int) -> str:
        sign, cents = ("-" if cents < 0 else ""), abs(cents)
        return f"{sign}{cents // 100}" + (f".{cents % 100:02}" if self.wallets[wallet].has_cents else "")


def _form(ask: Ask) -> Ask:
    """The request without the way in which it was to be answered: what a repeat is held to."""
    return replace(ask, later=False) if isinstance(ask, Move) else ask

"""The commands of one transaction, one after the other on the locked books. Nothing here asks the database.

A command meets, in this order: its wallets exist, its own for who sends it; its key and its id are new (else
the first answer again, or IdempotencyKeyReused: always for an outcome that is not for its caller); its hold
is one of its wallet; rules.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson

from wallets.ledger import keys, rules
from wallets.ledger.commands import PERSON, CaptureHold, Command, PlaceHold, RejectAccepted, Reverse, VoidHold
from wallets.ledger.rules import Books, Entry, HoldState, WalletState
from wallets.ledger.tables import PENDING, Acceptance, Record
from wallets.ledger.value import value
from wallets.problems import (
    REJECTIONS,
    FieldError,
    HoldNotFound,
    IdempotencyKeyReused,
    Problem,
    RejectedByOperator,
    TooManyRequests,
    ValidationError,
    WalletNotFound,
)

CLOCK_TICK: Final = timedelta(microseconds=1)
COMPLETED: Final = "COMPLETED"
REJECTED: Final = "REJECTED"


@value
class Posted:
    """A command that was carried out, or accepted for later: now, or (`replayed`) when it was first sent."""

    operation: Record
    currency: str
    replayed: bool = False
    # The operation on the second wallet of a transfer or its reversal, as who asks may see it.
    counterpart: Record | None = None
    hold: HoldState | None = None  # of a hold, capture or void, as this command left it


Outcome = Posted | Problem


class RecordedOperations:
    """Operations that were written or accepted before, by key and by id."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._by_key: dict[tuple[UUID, str], Record] = {}
        self._by_id: dict[UUID, Record] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        self._by_id[record.id] = record
        if record.idempotency_key is not None:
            self._by_key[record.wallet_id, record.idempotency_key] = record

    def first(self, command: Command) -> Record | None:
        """The operation that the command's key or id stands for already."""
        if command.key is not None:
            if found := self._by_key.get((command.wallet_id, command.key)):
                return found
            if found := self._recorded_without_namespace(command, command.key):
                return found
        return self._by_id.get(command.id)

    def _recorded_without_namespace(self, command: Command, key: str) -> Record | None:
        """What the caller did before its keys had a namespace. Another caller's key does not concern it."""
        found = self._by_key.get((command.wallet_id, keys.as_sent(key)))
        return found if found and found.actor == command.actor else None

    def copy(self) -> "RecordedOperations":
        twin = RecordedOperations()
        twin._by_key, twin._by_id = self._by_key.copy(), self._by_id.copy()
        return twin


@dataclass(slots=True)
class Batch:
    """What the commands were decided on, and what has to be written when they are done."""

    books: Books
    repeats: RecordedOperations
    counterparts: dict[UUID, Record]  # by transfer
    now: datetime
    inbox_room: dict[UUID, int]  # by wallet, how many more operations may wait in the inbox
    written: list[Record] = field(default_factory=list)
    accepted: list[Acceptance] = field(default_factory=list)
    touched_holds: set[UUID] = field(default_factory=set)

    def carry_out(self, command: Command) -> Outcome:
        wallet = self._wallet_of(command)
        if wallet is None:
            return WalletNotFound()
        if again := self._answer_again(command, wallet):
            return again
        if isinstance(command, RejectAccepted):
            return self._refuse(command, command.amount, RejectedByOperator(), self._time_for(command))
        if command.counterparty_id is not None and command.counterparty_id not in self.books.wallets:
            return WalletNotFound("There is no such target wallet.")
        if isinstance(command, CaptureHold | VoidHold) and not self._is_of_wallet(command):
            return HoldNotFound()
        return self._accept(command, wallet) if command.is_async else self._decide(command, wallet)

    def carry_out_together(self, commands: Sequence[Command]) -> list[Outcome] | Problem:
        """All of them, or none: then the first refusal, which is recorded as that of a single command is."""
        # What was refused is refused again, even where by now an earlier one of them would be refused.
        for number, command in enumerate(commands):
            wallet = self._wallet_of(command)
            again = self._answer_again(command, wallet) if wallet else None
            if isinstance(again, Problem):
                return _named(again, number)
        trial = self._copy()
        outcomes: list[Outcome] = []
        for number, command in enumerate(commands):
            outcome = trial.carry_out(command)
            if isinstance(outcome, Problem):
                tried = trial.written[len(self.written) :]
                self._record([record for record in tried if record.id == outcome.operation_id])
                return _named(outcome, number)
            outcomes.append(outcome)
        self.books, self.repeats, self.counterparts = trial.books, trial.repeats, trial.counterparts
        self.written, self.accepted = trial.written, trial.accepted
        self.touched_holds, self.inbox_room = trial.touched_holds, trial.inbox_room
        return outcomes

    def changed_wallets(self) -> list[WalletState]:
        return [self.books.wallets[wallet_id] for wallet_id in {record.wallet_id for record in self.written}]

    def changed_holds(self) -> list[HoldState]:
        return [self.books.holds[hold_id] for hold_id in self.touched_holds]

    # --- Whose it is --------------------------------------------------------------------------------
    def _wallet_of(self, command: Command) -> WalletState | None:
        """What is somebody else's does not exist for a command that is restricted to its owner's wallets."""
        wallet = self.books.wallets.get(command.wallet_id)
        return wallet if wallet and command.owner_restriction in (None, wallet.owner_id) else None

    def _shown(self, counterpart: Record | None, command: Command) -> Record | None:
        if counterpart is None or command.owner_restriction is None:
            return counterpart
        is_own = self.books.wallets[counterpart.wallet_id].owner_id == command.owner_restriction
        return counterpart if is_own else as_visible_to_counterparty(counterpart)

    def _is_of_wallet(self, command: CaptureHold | VoidHold) -> bool:
        hold = self.books.holds.get(command.hold_id)
        return hold is not None and hold.wallet_id == command.wallet_id

    # --- One command --------------------------------------------------------------------------------
    def _decide(self, command: Command, wallet: WalletState) -> Outcome:
        at = self._time_for(command)
        verdict = rules.decide(self.books, command, at)
        if isinstance(verdict, ValidationError):
            return verdict  # a question of form: it leaves no trace, and its key stays free
        if isinstance(verdict, Problem):
            return self._refuse(command, rules.amount_of(self.books, command), verdict, at)
        rules.enter(self.books, command, verdict, at)
        records = [_record(command, entry, at) for entry in verdict]
        self.written += records
        self.repeats.add(records[0])
        counterpart = records[1] if len(records) > 1 else None
        if counterpart and counterpart.transfer_id:
            self.counterparts[counterpart.transfer_id] = counterpart
        shown, hold = self._shown(counterpart, command), self._hold_after(command)
        return Posted(records[0], wallet.currency, counterpart=shown, hold=hold)

    def _refuse(self, command: Command, amount: Decimal, problem: Problem, at: datetime) -> Problem:
        """Record the refusal; return it with the id of its operation."""
        record = _rejection(command, amount, problem, at)
        self._record([record])
        problem.operation_id = record.id
        return problem

    def _accept(self, command: Command, wallet: WalletState) -> Outcome:
        if refusal := rules.form_refusal(command, wallet.currency):
            return refusal
        if self.inbox_room[wallet.id] <= 0:
            return TooManyRequests("Too many accepted operations of the wallet wait; nothing was applied.")
        self.inbox_room[wallet.id] -= 1
        amount = self._accepted_amount(command)
        record = replace(_rejection(command, amount, None, self.now), status=PENDING)
        self.accepted.append((record, rules.sees_other_side(self.books, command)))
        self.repeats.add(record)
        return Posted(record, wallet.currency)

    def _accepted_amount(self, command: Command) -> Decimal:
        """Where "what is left" is to be reversed, the whole: what is left then, nobody knows yet."""
        if isinstance(command, Reverse) and command.amount is None:
            return command.original.amount
        return rules.amount_of(self.books, command)

    def _time_for(self, command: Command) -> datetime:
        """The database's time, but always later than what the wallets have seen."""
        return max(self.now, *(self.books.wallets[id].updated_at + CLOCK_TICK for id in command.wallet_ids))

    def _record(self, rejections: list[Record]) -> None:
        for record in rejections:
            wallet = self.books.wallets[record.wallet_id]
            self.books.wallets[wallet.id] = replace(wallet, updated_at=record.created_at)
            self.written.append(record)
            self.repeats.add(record)

    def _hold_after(self, command: Command) -> HoldState | None:
        match command:
            case PlaceHold():
                hold_id = command.id
            case CaptureHold() | VoidHold():
                hold_id = command.hold_id
            case _:
                return None
        self.touched_holds.add(hold_id)
        return self.books.holds[hold_id]

    # --- Repeats ------------------------------------------------------------------------------------
    def _answer_again(self, command: Command, wallet: WalletState) -> Outcome | None:
        """What is answered to a command whose key or id is not new."""
        first = self.repeats.first(command)
        if first is None or _is_own_entry(first, command):
            return None
        return self._again(first, command, wallet.currency)

    def _again(self, first: Record, command: Command, currency: str) -> Outcome:
        if not _may_be_told_of(first, command) or not _same_request(first, command):
            return IdempotencyKeyReused()
        # An id of our own making is found only when its commit was in doubt: this is its first answer.
        replayed = first.id != command.id or command.client_chose_id
        if first.accepted_at is not None and command.accepted_at is None:
            accepted = replace(as_accepted(first), amount=self._accepted_amount(command))
            return Posted(accepted, currency, replayed)
        if first.status == REJECTED:
            return REJECTIONS[first.reason or ""](operation_id=first.id, replayed=replayed)
        counterpart = self.counterparts.get(first.transfer_id) if first.transfer_id else None
        return Posted(first, currency, replayed, self._shown(counterpart, command), self._hold_then(first))

    def _hold_then(self, first: Record) -> HoldState | None:
        """The hold as the operation left it, whatever has become of it since."""
        match first.type:
            case "HOLD":
                return HoldState(
                    id=first.id,
                    wallet_id=first.wallet_id,
                    amount=first.amount,
                    status=rules.ACTIVE,
                    expires_at=first.expires_at,
                    captured_amount=None,
                    operation_id=None,
                    description=first.description,
                    created_at=first.created_at,
                    ended_at=None,
                )
            case "CAPTURE" | "VOID" if first.hold_id:
                return self.books.holds[first.hold_id]  # it ends once: this was the end
        return None

    def _copy(self) -> "Batch":
        books = Books(self.books.wallets.copy(), self.books.holds.copy(), self.books.reversed.copy())
        return replace(
            self,
            books=books,
            repeats=self.repeats.copy(),
            counterparts=self.counterparts.copy(),
            inbox_room=self.inbox_room.copy(),
            written=self.written.copy(),
            accepted=self.accepted.copy(),
            touched_holds=self.touched_holds.copy(),
        )


def _is_own_entry(first: Record, command: Command) -> bool:
    """Whether that is the command itself, on its way from the inbox."""
    return first.status == PENDING and command.accepted_at is not None and first.id == command.id


def _may_be_told_of(first: Record, command: Command) -> bool:
    """Whether its outcome is for the command's caller: its own, or that of a caller who shares its keys."""
    if first.actor == command.actor:
        return True
    if first.idempotency_key is None or command.key is None:
        return False
    namespace = keys.namespace_of(first.idempotency_key)
    if not namespace and first.actor.startswith(PERSON):
        return False  # recorded before a person's keys had a namespace
    return namespace == keys.namespace_of(command.key)


def as_accepted(operation: Record) -> Record:
    """The operation as it was answered when it was accepted for later, before anything was decided."""
    return replace(
        operation,
        status=PENDING,
        sequence=None,
        balance_after=None,
        reason=None,
        accepted_at=None,
        created_at=operation.accepted_at or operation.created_at,
    )


def as_visible_to_counterparty(operation: Record) -> Record:
    """What the other side of a transfer may know: not how much its wallet has, or how busy it is."""
    return replace(operation, sequence=None, balance_after=None, idempotency_key=None)


def _named(problem: Problem, number: int) -> Problem:
    """The first refusal of commands that belong together, with its place among them."""
    place = f"operations.{number}"
    inner = [replace(error, field=f"{place}.{error.field}") for error in problem.errors]
    problem.errors = inner or [FieldError(place, problem.code, problem.detail)]
    if not isinstance(problem, ValidationError | TooManyRequests):
        problem.status = 409  # type: ignore[misc]  # whatever it would be alone: it is all or none
    return problem


# --- What was asked for -----------------------------------------------------------------------------
def _same_request(first: Record, command: Command) -> bool:
    return (
        first.wallet_id == command.wallet_id
        and first.type == command.operation_type
        and (bool(first.takes_rest) if (amount := _asked(command)) is None else first.amount == amount)
        and bool(first.takes_rest) == (_takes_rest(command) or False)
        and first.counterparty_id == command.counterparty_id
        and (first.hold_id, first.reverses_id, first.expires_at) == _links(command)
        and first.description == command.description
        and canonical_json(first.metadata) == canonical_json(command.metadata)
    )


def _asked(command: Command) -> Any:
    return getattr(command, "amount", None)


def _takes_rest(command: Command) -> bool | None:
    """Whether it is left to us how much; None where it cannot be."""
    if isinstance(command, CaptureHold | Reverse | VoidHold):
        return _asked(command) is None
    return command.takes_rest if isinstance(command, RejectAccepted) else None


def _links(command: Command) -> tuple[UUID | None, UUID | None, datetime | None]:
    """The hold that it ends, the operation that it reverses, the time at which it expires."""
    match command:
        case CaptureHold() | VoidHold():
            return command.hold_id, None, None
        case Reverse():
            return None, command.original.id, None
        case PlaceHold():
            return None, None, command.expires_at
        case RejectAccepted():
            return command.hold_id, command.reverses_id, None
    return None, None, None


def canonical_json(value: Any) -> bytes:
    """Equal for equal JSON values. Python's own == would take true for 1."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


# --- Rows -------------------------------------------------------------------------------------------
def _record(command: Command, entry: Entry, created_at: datetime) -> Record:
    is_own = entry.id == command.id
    hold_id, reverses_id, expires_at = _links(command)
    has_two = command.counterparty_id is not None
    return Record(
        id=entry.id,
        wallet_id=entry.wallet_id,
        sequence=entry.sequence,
        type=entry.type,
        amount=entry.amount,
        balance_after=entry.balance if entry.sequence else None,
        status=COMPLETED,
        reason=None,
        # The key is the own wallet's: on the other it stays free.
        idempotency_key=command.key if is_own else None,
        transfer_id=command.id if has_two else None,
        counterparty_id=command.counterparty_id if is_own else command.wallet_id,
        hold_id=hold_id,
        reverses_id=reverses_id if is_own else entry.reverses_id,
        expires_at=expires_at,
        takes_rest=_takes_rest(command),
        description=command.description,
        metadata=command.metadata,
        actor=command.actor,
        accepted_at=command.accepted_at,
        created_at=created_at,
    )


def _rejection(command: Command, amount: Decimal, problem: Problem | None, created_at: datetime) -> Record:
    hold_id, reverses_id, expires_at = _links(command)
    return Record(
        id=command.id,
        wallet_id=command.wallet_id,
        type=command.operation_type,
        amount=amount,
        status=REJECTED,
        reason=problem.code if problem else None,
        idempotency_key=command.key,
        transfer_id=command.id if command.counterparty_id else None,
        counterparty_id=command.counterparty_id,
        hold_id=hold_id,
        reverses_id=reverses_id,
        expires_at=expires_at,
        takes_rest=_takes_rest(command),
        description=command.description,
        metadata=command.metadata,
        actor=command.actor,
        accepted_at=command.accepted_at,
        created_at=created_at,
    )

"""Decides the commands of one transaction, one after the other, on locked wallets. No database.

The checks of a command, in this order: its wallets exist, and the client may use its own wallet; its key and
its id are new (else it is a replay of the first outcome, or IdempotencyKeyReused); its hold belongs to its
wallet; then rules.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson

from wallets.ledger import keys, rules
from wallets.ledger.commands import (
    PERSON,
    CaptureHold,
    Command,
    RejectAccepted,
    Reverse,
    VoidHold,
    details_of,
    given_details,
    links_of,
    requested_amount,
    takes_rest,
)
from wallets.ledger.immutable import immutable
from wallets.ledger.rules import HoldState, LedgerState, WalletState
from wallets.ledger.tables import (
    PENDING,
    REJECTED,
    Acceptance,
    Record,
    completed_row,
    pending_row,
    placed_hold,
    rejected_row,
)
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


@immutable
class Posted:
    """A command that was completed or accepted asynchronously: now, or (`replayed`) by an earlier request."""

    operation: Record
    currency: str
    replayed: bool = False
    # The operation on the second wallet of a transfer or its reversal, as far as the client may see it.
    counterpart: Record | None = None
    hold: HoldState | None = None  # of a hold, capture or void: the hold after this command


Outcome = Posted | Problem


class RecordedOperations:
    """Operations that exist already, in the ledger or in the inbox, by key and by id."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._by_key: dict[tuple[UUID, str], Record] = {}
        self._by_id: dict[UUID, Record] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        self._by_id[record.id] = record
        if record.idempotency_key is not None:
            self._by_key[record.wallet_id, record.idempotency_key] = record

    def find(self, command: Command) -> Record | None:
        """Return the operation that exists under the command's key or id."""
        if command.key is not None:
            if found := self._by_key.get((command.wallet_id, command.key)):
                return found
            if found := self._recorded_without_namespace(command, command.key):
                return found
        return self._by_id.get(command.id)

    def _recorded_without_namespace(self, command: Command, key: str) -> Record | None:
        """Return the client's operation from before its keys had a namespace, never another client's."""
        found = self._by_key.get((command.wallet_id, keys.as_sent(key)))
        return found if found and found.actor == command.actor else None

    def copy(self) -> "RecordedOperations":
        twin = RecordedOperations()
        twin._by_key, twin._by_id = self._by_key.copy(), self._by_id.copy()
        return twin


@dataclass(slots=True)
class Decisions:
    """The locked state that the commands are decided on, and the rows to write after all of them."""

    state: LedgerState
    recorded: RecordedOperations
    counterparts: dict[UUID, Record]  # by transfer id
    now: datetime
    inbox_room: dict[UUID, int]  # by wallet id: how many more entries its inbox takes
    new_rows: list[Record] = field(default_factory=list)
    accepted: list[Acceptance] = field(default_factory=list)
    changed_hold_ids: set[UUID] = field(default_factory=set)

    def decide(self, command: Command) -> Outcome:
        """Decide one command and apply it to the state."""
        wallet = self._own_wallet(command)
        if wallet is None:
            return WalletNotFound()
        if replay := self._replay(command, wallet):
            return replay
        if isinstance(command, RejectAccepted):
            return self._refuse(command, command.amount, RejectedByOperator(), self._time_for(command))
        if command.counterparty_id is not None and command.counterparty_id not in self.state.wallets:
            return WalletNotFound("No target wallet with this id exists.")
        if isinstance(command, CaptureHold | VoidHold) and not self._is_hold_of_wallet(command):
            return HoldNotFound()
        return self._accept(command, wallet) if command.is_async else self._complete(command, wallet)

    def decide_atomically(self, commands: Sequence[Command]) -> list[Outcome] | Problem:
        """Decide all commands and apply all of them, or none: then return and record the first refusal."""
        # A recorded refusal is replayed even if by now an earlier command of the bulk would be refused.
        for number, command in enumerate(commands):
            wallet = self._own_wallet(command)
            replay = self._replay(command, wallet) if wallet else None
            if isinstance(replay, Problem):
                return _refusal_of_bulk(replay, number)
        trial = self._copy()
        outcomes: list[Outcome] = []
        for number, command in enumerate(commands):
            outcome = trial.decide(command)
            if isinstance(outcome, Problem):
                tried = trial.new_rows[len(self.new_rows) :]
                self._record([row for row in tried if row.id == outcome.operation_id])
                return _refusal_of_bulk(outcome, number)
            outcomes.append(outcome)
        self.state, self.recorded, self.counterparts = trial.state, trial.recorded, trial.counterparts
        self.new_rows, self.accepted = trial.new_rows, trial.accepted
        self.changed_hold_ids, self.inbox_room = trial.changed_hold_ids, trial.inbox_room
        return outcomes

    def changed_wallets(self) -> list[WalletState]:
        return [self.state.wallets[wallet_id] for wallet_id in {row.wallet_id for row in self.new_rows}]

    def changed_holds(self) -> list[HoldState]:
        return [self.state.holds[hold_id] for hold_id in self.changed_hold_ids]

    # --- Visibility ---------------------------------------------------------------------------------
    def _own_wallet(self, command: Command) -> WalletState | None:
        """Return the command's wallet if it exists and the owner restriction of the client includes it."""
        wallet = self.state.wallets.get(command.wallet_id)
        return wallet if wallet and command.owner_restriction in (None, wallet.owner_id) else None

    def _visible(self, counterpart: Record | None, command: Command) -> Record | None:
        if counterpart is None or command.owner_restriction is None:
            return counterpart
        is_own = self.state.wallets[counterpart.wallet_id].owner_id == command.owner_restriction
        return counterpart if is_own else as_visible_to_counterparty(counterpart)

    def _is_hold_of_wallet(self, command: CaptureHold | VoidHold) -> bool:
        hold = self.state.holds.get(command.hold_id)
        return hold is not None and hold.wallet_id == command.wallet_id

    # --- A new command ------------------------------------------------------------------------------
    def _complete(self, command: Command, wallet: WalletState) -> Outcome:
        at = self._time_for(command)
        decision = rules.decide(self.state, command, at)
        if isinstance(decision, ValidationError):
            return decision  # a malformed request is not recorded, and its key stays unused
        if isinstance(decision, Problem):
            return self._refuse(command, rules.amount_of(self.state, command), decision, at)
        self.state.apply(decision)
        rows = [completed_row(command, entry, at) for entry in decision.entries]
        self.new_rows += rows
        self.recorded.add(rows[0])
        counterpart = rows[1] if len(rows) > 1 else None
        if counterpart and counterpart.transfer_id:
            self.counterparts[counterpart.transfer_id] = counterpart
        if decision.hold:
            self.changed_hold_ids.add(decision.hold.id)
        visible = self._visible(counterpart, command)
        return Posted(rows[0], wallet.currency, counterpart=visible, hold=decision.hold)

    def _refuse(self, command: Command, amount: Decimal, problem: Problem, at: datetime) -> Problem:
        """Record the refusal and return it with the id of its operation."""
        row = rejected_row(command, amount, problem, at)
        self._record([row])
        problem.operation_id = row.id
        return problem

    def _accept(self, command: Command, wallet: WalletState) -> Outcome:
        if refusal := rules.form_refusal(command, wallet.currency):
            return refusal
        if self.inbox_room[wallet.id] <= 0:
            return TooManyRequests("Too many accepted operations of the wallet wait; nothing was applied.")
        self.inbox_room[wallet.id] -= 1
        row = pending_row(command, self._accepted_amount(command), self.now)
        self.accepted.append((row, rules.sees_counterparty(self.state, command)))
        self.recorded.add(row)
        return Posted(row, wallet.currency)

    def _accepted_amount(self, command: Command) -> Decimal:
        """Return the amount to show until the command is decided.

        A reversal of the remaining amount shows the original amount: what will remain is not known yet.
        """
        if isinstance(command, Reverse) and command.amount is None:
            return command.original.amount
        return rules.amount_of(self.state, command)

    def _time_for(self, command: Command) -> datetime:
        """Return the database's time, but always later than the last change of the command's wallets."""
        changed = (self.state.wallets[id].updated_at + CLOCK_TICK for id in command.wallet_ids)
        return max(self.now, *changed)

    def _record(self, rejections: list[Record]) -> None:
        for row in rejections:
            wallet = self.state.wallets[row.wallet_id]
            self.state.wallets[wallet.id] = replace(wallet, updated_at=row.created_at)
            self.new_rows.append(row)
            self.recorded.add(row)

    # --- Replays ------------------------------------------------------------------------------------
    def _replay(self, command: Command, wallet: WalletState) -> Outcome | None:
        """Return the first outcome under the key or id, IdempotencyKeyReused, or None for a new command."""
        first = self.recorded.find(command)
        if first is None or _is_own_inbox_entry(first, command):
            return None
        if not _may_see_outcome(first, command) or not _is_same_request(first, command):
            return IdempotencyKeyReused()
        # An id that this service made is found only if a commit was in doubt: this is its first response.
        replayed = first.id != command.id or command.client_chose_id
        if first.accepted_at is not None and command.accepted_at is None:
            accepted = replace(as_accepted(first), amount=self._accepted_amount(command))
            return Posted(accepted, wallet.currency, replayed)
        if first.status == REJECTED:
            return REJECTIONS[first.reason or ""](operation_id=first.id, replayed=replayed)
        counterpart = self.counterparts.get(first.transfer_id) if first.transfer_id else None
        visible = self._visible(counterpart, command)
        return Posted(first, wallet.currency, replayed, visible, self._hold_after(first))

    def _hold_after(self, first: Record) -> HoldState | None:
        """Return the hold as it was right after the operation, whatever has happened to it since."""
        match first.type:
            case "HOLD":
                return placed_hold(first)
            case "CAPTURE" | "VOID" if first.hold_id:
                return self.state.holds[first.hold_id]  # a hold ends once: its state is final
        return None

    def _copy(self) -> "Decisions":
        return replace(
            self,
            state=self.state.copy(),
            recorded=self.recorded.copy(),
            counterparts=self.counterparts.copy(),
            inbox_room=self.inbox_room.copy(),
            new_rows=self.new_rows.copy(),
            accepted=self.accepted.copy(),
            changed_hold_ids=self.changed_hold_ids.copy(),
        )


def _is_own_inbox_entry(first: Record, command: Command) -> bool:
    """Whether the recorded operation is the inbox entry that the command comes from."""
    return first.status == PENDING and command.accepted_at is not None and first.id == command.id


def _may_see_outcome(first: Record, command: Command) -> bool:
    """Whether the client sent the first request itself, or shares its key namespace with the one that did."""
    if first.actor == command.actor:
        return True
    if first.idempotency_key is None or command.key is None:
        return False
    namespace = keys.namespace_of(first.idempotency_key)
    if not namespace and first.actor.startswith(PERSON):
        return False  # recorded before a user's keys had a namespace
    return namespace == keys.namespace_of(command.key)


def _is_same_request(first: Record, command: Command) -> bool:
    amount = requested_amount(command)
    return (
        first.wallet_id == command.wallet_id
        and first.type == command.operation_type
        and (bool(first.takes_rest) if amount is None else first.amount == amount)
        and bool(first.takes_rest) == (takes_rest(command) or False)
        and first.counterparty_id == command.counterparty_id
        and (first.hold_id, first.reverses_id, first.expires_at) == links_of(command)
        and _has_same_details(first, command)
    )


def _has_same_details(first: Record, command: Command) -> bool:
    """Whether the operation records the command's details, as they were sent or with the inherited ones.

    Captures, voids and reversals inherited nothing before version 0.8.
    """
    recorded = canonical_json([first.reference, first.description, first.metadata])
    return recorded in {canonical_json(list(details(command))) for details in (given_details, details_of)}


def as_accepted(operation: Record) -> Record:
    """Return the operation as the 202 response showed it, before it was decided."""
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
    """Return the operation without what tells the wallet's balance, its activity or its client's key."""
    return replace(operation, sequence=None, balance_after=None, idempotency_key=None)


def _refusal_of_bulk(problem: Problem, number: int) -> Problem:
    """Return the first refusal of an atomic bulk, with the place of the refused item."""
    place = f"operations.{number}"
    inner = [replace(error, field=f"{place}.{error.field}") for error in problem.errors]
    problem.errors = inner or [FieldError(place, problem.code, problem.detail)]
    if not isinstance(problem, ValidationError | TooManyRequests):
        problem.status = 409  # type: ignore[misc]  # the whole bulk conflicts, whatever the item alone would get
    return problem


def canonical_json(value: Any) -> bytes:
    """Return equal bytes for equal JSON values. Python's own == takes true for 1."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)

"""The rules of money, as pure functions: (locked state, command) -> decision or refusal.

No database, no clock.

The checks run in this order; the first that fails is the refusal (tests/ledger/test_rules.py has the same
table). Before them, decisions.py has checked that the wallets exist and that the key is new.

 1. the amount has no more fraction digits than the currency   ValidationError (not recorded)
 2. a hold ends in the future                                   ValidationError (not recorded)
 3. both wallets of a transfer have one currency                CurrencyMismatch
 4. no wallet is closed                                         WalletClosed
 5. no wallet is frozen (a hold may be voided all the same)     WalletFrozen
 6. the hold to capture or void is active                       HoldNotActive
 7. the captured amount is at most the held amount              HoldAmountExceeded
 8. the operation to reverse moved money, and is no reversal    OperationNotReversible
 9. the reversed amount is at most the remaining amount         ReversalExceedsOriginal
10. an amount that leaves a wallet or is held is available      InsufficientFunds
11. a wallet that receives stays within its maximum balance     BalanceLimitExceeded
12. a hidden wallet is active and stays within its maximum      TargetCannotReceive

A hidden wallet is the second wallet if it receives the money and the client may not read it. The client
learns that it cannot receive the amount, but not why. Check 12 replaces checks 4, 5 and 11 for it: an earlier
refusal would tell a closed wallet from a full one.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from wallets import money
from wallets.ledger.commands import (
    CaptureHold,
    Command,
    Deposit,
    MakeTransfer,
    PlaceHold,
    Reverse,
    VoidHold,
    Withdraw,
)
from wallets.ledger.immutable import immutable
from wallets.operation_types import INCOMING, OPERATION_TYPES, REVERSED_BY
from wallets.problems import (
    BalanceLimitExceeded,
    CurrencyMismatch,
    FieldError,
    HoldAmountExceeded,
    HoldNotActive,
    InsufficientFunds,
    OperationNotReversible,
    Problem,
    ReversalExceedsOriginal,
    TargetCannotReceive,
    ValidationError,
    WalletClosed,
    WalletFrozen,
)

NOTHING: Final = Decimal(0)
ACTIVE: Final = "ACTIVE"


@immutable
class WalletState:
    """A locked wallet. Amounts are in the wallet's currency."""

    id: UUID
    currency: str
    balance: Decimal
    held: Decimal
    overdraft_limit: Decimal
    max_balance: Decimal | None
    sequence: int
    status: str
    updated_at: datetime
    next_expiry_at: datetime | None = None  # no active hold expires before this time
    owner_id: int | None = None
    hash: bytes = b""  # of its last operation

    @property
    def available(self) -> Decimal:
        return self.balance - self.held


@immutable
class HoldState:
    """A hold of a locked wallet."""

    id: UUID
    wallet_id: UUID
    amount: Decimal
    status: str
    expires_at: datetime | None
    captured_amount: Decimal | None
    operation_id: UUID | None  # the operation that captured it
    reference: str
    description: str
    metadata: dict[str, Any]
    created_at: datetime
    ended_at: datetime | None

    def is_active(self, at: datetime) -> bool:
        """Whether the hold is active at that time. It may have expired since the batch read it."""
        return self.status == ACTIVE and (self.expires_at is None or at < self.expires_at)


@immutable
class LedgerState:
    """Everything that a decision may look at, each by its id."""

    wallets: dict[UUID, WalletState]  # locked
    holds: dict[UUID, HoldState]
    reversed: dict[UUID, Decimal]  # the reversed amount of an operation

    def apply(self, decision: "Decision") -> None:
        """Replace the wallets, the hold and the reversed amounts by those after the decision."""
        for wallet in decision.wallets:
            self.wallets[wallet.id] = wallet
        for entry in decision.entries:
            if entry.reverses_id:
                self.reversed[entry.reverses_id] = (
                    self.reversed.get(entry.reverses_id, NOTHING) + entry.amount
                )
        if decision.hold:
            self.holds[decision.hold.id] = decision.hold

    def copy(self) -> "LedgerState":
        return LedgerState(self.wallets.copy(), self.holds.copy(), self.reversed.copy())


@immutable
class Entry:
    """One operation of a command on one wallet, with the balance and the held amount after it."""

    id: UUID
    wallet_id: UUID
    type: str
    amount: Decimal
    sequence: int | None  # None if no money moves: it is held or released
    balance: Decimal
    held: Decimal
    reverses_id: UUID | None = None


@immutable
class Decision:
    """The entries of a command, the first on its own wallet, and the state after them."""

    entries: tuple[Entry, ...]
    wallets: tuple[WalletState, ...]  # one for each entry
    hold: HoldState | None = None  # the hold that the command placed or ended


def decide(state: LedgerState, command: Command, at: datetime) -> Decision | Problem:
    """Decide one command at the time `at`. Changes nothing: `LedgerState.apply` does."""
    return next(_refusals(state, command, at), None) or _decision(state, command, at)


def amount_of(state: LedgerState, command: Command) -> Decimal:
    """Return the amount of the command; if the client left it open, the remaining amount."""
    match command:
        case Deposit() | Withdraw() | MakeTransfer() | PlaceHold():
            return command.amount
        case CaptureHold(amount=None) | VoidHold():
            return state.holds[command.hold_id].amount
        case Reverse(amount=None):
            # If nothing remains, the refusal names the original amount.
            return remaining_amount(state, command) or command.original.amount
        case CaptureHold(amount=amount) | Reverse(amount=amount) if amount is not None:
            return amount
    raise AssertionError(f"no amount for {command!r}")


def remaining_amount(state: LedgerState, command: Reverse) -> Decimal:
    """Return the amount of the original operation that is not reversed yet."""
    return command.original.amount - state.reversed.get(command.original.id, NOTHING)


# --- Refusals, in the documented order --------------------------------------------------------------
def _refusals(state: LedgerState, command: Command, at: datetime) -> Iterator[Problem]:
    wallet = state.wallets[command.wallet_id]
    other = state.wallets[command.counterparty_id] if command.counterparty_id else None
    amount = amount_of(state, command)
    if refusal := form_refusal(command, wallet.currency):
        yield refusal
    if isinstance(command, PlaceHold) and command.expires_at is not None and command.expires_at <= at:
        error = FieldError("expiresAt", "out_of_range", "must be in the future")
        yield ValidationError(errors=(error,))
    if other and other.currency != wallet.currency:
        yield CurrencyMismatch()
    hidden = _hidden(state, command)
    statuses = [side.status for side in (wallet, other) if side and side is not hidden]
    if "CLOSED" in statuses:
        yield WalletClosed()
    if "FROZEN" in statuses and not isinstance(command, VoidHold):
        yield WalletFrozen()
    if isinstance(command, CaptureHold | VoidHold) and not state.holds[command.hold_id].is_active(at):
        yield HoldNotActive()
    if isinstance(command, CaptureHold) and amount > state.holds[command.hold_id].amount:
        held = state.holds[command.hold_id].amount
        yield HoldAmountExceeded(limits=_remaining(held, wallet))
    if isinstance(command, Reverse):
        if command.original.type not in REVERSED_BY or not command.original.is_completed:
            yield OperationNotReversible()
        if amount > (remaining := remaining_amount(state, command)):
            yield ReversalExceedsOriginal(limits=_remaining(remaining, wallet))
    readable = (wallet, other) if sees_counterparty(state, command) else (wallet,)
    for problem, limited, limits in _exceeded(amount, _sides(command, wallet, other), hidden):
        yield problem(limits=limits if limited in readable else {})


def _remaining(amount: Decimal, wallet: WalletState) -> dict[str, str]:
    return {"remaining": money.format_amount(amount, wallet.currency)}


def _exceeded(
    amount: Decimal, sides: tuple[WalletState | None, WalletState | None], hidden: WalletState | None
) -> Iterator[tuple[type[Problem], WalletState, dict[str, str]]]:
    """Yield the exceeded limits: the refusal, the wallet that has the limit, and what it permits."""
    payer, receiver = sides
    if payer and payer.available - amount < -payer.overdraft_limit:
        available = {"available": money.format_amount(payer.available, payer.currency)}
        yield InsufficientFunds, payer, _remaining(payer.available + payer.overdraft_limit, payer) | available
    if receiver is None:
        return
    limit = money.MAX_BALANCE if receiver.max_balance is None else receiver.max_balance
    is_full = receiver.balance + amount > limit
    if receiver is not hidden and is_full:
        yield BalanceLimitExceeded, receiver, _remaining(limit - receiver.balance, receiver)
    if receiver is hidden and (is_full or receiver.status != ACTIVE):
        yield TargetCannotReceive, receiver, {}


def sees_counterparty(state: LedgerState, command: Command) -> bool:
    """Whether the client may read the second wallet of the command."""
    if command.reads_all or command.counterparty_id is None:
        return True
    return (
        command.owner_restriction is not None
        and state.wallets[command.counterparty_id].owner_id == command.owner_restriction
    )


def _hidden(state: LedgerState, command: Command) -> WalletState | None:
    """Return the second wallet if it receives the money and the client may not read it."""
    if command.operation_type in INCOMING or sees_counterparty(state, command):
        return None
    return state.wallets[command.counterparty_id] if command.counterparty_id else None


def _sides(
    command: Command, wallet: WalletState, other: WalletState | None
) -> tuple[WalletState | None, WalletState | None]:
    """Return the wallet that pays and the one that receives; neither for a capture of held money."""
    if isinstance(command, CaptureHold | VoidHold):
        return None, None
    return (other, wallet) if command.operation_type in INCOMING else (wallet, other)


def form_refusal(command: Command, currency: str) -> ValidationError | None:
    """Return the refusal of an amount with too many digits, which is known before the command is decided."""
    amount: Decimal | None = getattr(command, "amount", None)
    if command.accepted_at is not None:
        return None  # checked when the inbox accepted it; the column has added zeros since
    return None if amount is None or money.fits(amount, currency) else amount_does_not_fit("amount", currency)


def amount_does_not_fit(field: str, currency: str) -> ValidationError:
    digits = money.FRACTION_DIGITS[currency]
    error = FieldError(
        field, "too_many_digits", f"{currency} has {digits} fraction digits; nothing is rounded"
    )
    return ValidationError(errors=(error,))


# --- Entries of a command that passed every check -----------------------------------------------------------
def _entries(state: LedgerState, command: Command) -> tuple[Entry, ...]:
    wallet, type = state.wallets[command.wallet_id], command.operation_type
    amount = amount_of(state, command)
    match command:
        case MakeTransfer():
            own = _entry(wallet, command.id, type, amount)
            return own, _opposite(own, state.wallets[command.target_id], command.target_operation_id)
        case Reverse(original=original):
            own = _entry(wallet, command.id, type, amount, reverses_id=original.id)
            if original.counterparty_id is None:
                return (own,)
            other = state.wallets[original.counterparty_id]
            return own, _opposite(own, other, command.counterpart_operation_id, original.counterpart_id)
        case PlaceHold():
            return (_entry(wallet, command.id, type, amount, held=amount),)
        case CaptureHold() | VoidHold():
            return (_entry(wallet, command.id, type, amount, held=-state.holds[command.hold_id].amount),)
    return (_entry(wallet, command.id, type, amount),)


def _entry(  # noqa: PLR0913, PLR0917
    wallet: WalletState,
    id: UUID,
    type: str,
    amount: Decimal,
    held: Decimal = NOTHING,
    reverses_id: UUID | None = None,
) -> Entry:
    sign = OPERATION_TYPES[type].sign
    return Entry(
        id=id,
        wallet_id=wallet.id,
        type=type,
        amount=amount,
        sequence=wallet.sequence + 1 if sign else None,
        balance=wallet.balance + sign * amount,
        held=wallet.held + held,
        reverses_id=reverses_id,
    )


def _opposite(own: Entry, wallet: WalletState, id: UUID, reverses_id: UUID | None = None) -> Entry:
    """Return the entry on the second wallet of a transfer or of its reversal."""
    type = OPERATION_TYPES[own.type].opposite
    assert type  # noqa: S101 - for the type checker
    return _entry(wallet, id, type, own.amount, reverses_id=reverses_id)


# --- The state after the entries --------------------------------------------------------------------
def _decision(state: LedgerState, command: Command, at: datetime) -> Decision:
    entries = _entries(state, command)
    expires_at = command.expires_at if isinstance(command, PlaceHold) else None
    wallets = [_wallet_after(state.wallets[entry.wallet_id], entry, at, expires_at) for entry in entries]
    return Decision(entries, tuple(wallets), _hold_after(state, command, entries[0], at))


def _wallet_after(
    wallet: WalletState, entry: Entry, at: datetime, expires_at: datetime | None
) -> WalletState:
    next_expiry_at = wallet.next_expiry_at
    if expires_at is not None:
        next_expiry_at = min(expires_at, next_expiry_at or expires_at)
    return WalletState(
        wallet.id,
        wallet.currency,
        entry.balance,
        entry.held,
        wallet.overdraft_limit,
        wallet.max_balance,
        wallet.sequence if entry.sequence is None else entry.sequence,
        wallet.status,
        at,
        next_expiry_at,
        wallet.owner_id,
        wallet.hash,
    )


def _hold_after(state: LedgerState, command: Command, entry: Entry, at: datetime) -> HoldState | None:
    match command:
        case PlaceHold():
            return HoldState(
                id=command.id,
                wallet_id=command.wallet_id,
                amount=command.amount,
                status=ACTIVE,
                expires_at=command.expires_at,
                captured_amount=None,
                operation_id=None,
                reference=command.reference,
                description=command.description,
                metadata=command.metadata,
                created_at=at,
                ended_at=None,
            )
        case CaptureHold():
            return replace(
                state.holds[command.hold_id],
                status="CAPTURED",
                captured_amount=entry.amount,
                operation_id=entry.id,
                ended_at=at,
            )
        case VoidHold():
            return replace(state.holds[command.hold_id], status="VOIDED", ended_at=at)
    return None

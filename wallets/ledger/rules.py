"""The rules of money, pure: (locked books, command) -> entries or refusal. No database, no clock.

The checks run in this order, and the first that fails is the answer (tests/ledger/test_rules.py is the same
table; before them execute.py has checked that the wallets exist and that the key is new):

 1. the amount has no more fraction digits than the currency   ValidationError (not recorded)
 2. a hold ends in the future                                   ValidationError (not recorded)
 3. both wallets of a transfer have one currency                CurrencyMismatch
 4. no wallet is closed                                         WalletClosed
 5. no wallet is frozen (a hold may be voided all the same)     WalletFrozen
 6. the hold to capture or void is active                       HoldNotActive
 7. no more is captured than is held                            HoldAmountExceeded
 8. the operation to reverse moved money, and is no reversal    OperationNotReversible
 9. no more is reversed than is left of it                      ReversalExceedsOriginal
10. what leaves a wallet or is held stays within the available  InsufficientFunds
11. what comes into a wallet stays within its maximum balance   BalanceLimitExceeded
12. a hidden wallet is active and stays within its maximum      TargetCannotReceive

A hidden wallet is one on the other side that receives the money, and that the command's caller may not read:
the caller learns that it cannot receive the amount, and not why. It meets 12 instead of 4, 5 and 11: an
earlier refusal would tell a closed wallet from a full one.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Final
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
from wallets.ledger.value import value
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


@value
class WalletState:
    """A wallet as it stands under its lock. Amounts are in the wallet's currency."""

    id: UUID
    currency: str
    balance: Decimal
    held: Decimal
    overdraft_limit: Decimal
    max_balance: Decimal | None
    sequence: int
    status: str
    updated_at: datetime
    next_expiry_at: datetime | None = None  # no active hold expires before
    owner_id: int | None = None
    hash: bytes = b""  # of its last operation

    @property
    def available(self) -> Decimal:
        return self.balance - self.held


@value
class HoldState:
    """A hold as it stands under its wallet's lock."""

    id: UUID
    wallet_id: UUID
    amount: Decimal
    status: str
    expires_at: datetime | None
    captured_amount: Decimal | None
    operation_id: UUID | None  # what captured it
    description: str
    created_at: datetime
    ended_at: datetime | None

    def is_active(self, at: datetime) -> bool:
        """The commands of a batch have a time each: it may have expired since it was read."""
        return self.status == ACTIVE and (self.expires_at is None or at < self.expires_at)


@value
class Books:
    """All that a decision may look at: locked wallets, their holds, and what was reversed of operations."""

    wallets: dict[UUID, WalletState]
    holds: dict[UUID, HoldState]
    reversed: dict[UUID, Decimal]


@value
class Entry:
    """What an accepted command does to one wallet: an operation, and the wallet as it is left."""

    id: UUID
    wallet_id: UUID
    type: str
    amount: Decimal
    sequence: int | None  # None where no money moves: it is held or released
    balance: Decimal
    held: Decimal
    reverses_id: UUID | None = None


Verdict = tuple[Entry, ...] | Problem


def decide(books: Books, command: Command, at: datetime) -> Verdict:
    """The verdict on one command: its entries, the first on its own wallet. A refusal changes nothing."""
    refusals = _refusals(books, command, at)
    return next(refusals, None) or _entries(books, command)


def amount_of(books: Books, command: Command) -> Decimal:
    """The amount of the command; where it leaves that to us, all that there is to take."""
    match command:
        case Deposit() | Withdraw() | MakeTransfer() | PlaceHold():
            return command.amount
        case CaptureHold(amount=None) | VoidHold():
            return books.holds[command.hold_id].amount
        case Reverse(amount=None):
            # Where nothing is left the refusal names the whole.
            return left_of(books, command) or command.original.amount
        case CaptureHold(amount=amount) | Reverse(amount=amount) if amount is not None:
            return amount
    raise AssertionError(f"no amount for {command!r}")


def left_of(books: Books, command: Reverse) -> Decimal:
    """What has not been reversed yet of the operation."""
    return command.original.amount - books.reversed.get(command.original.id, NOTHING)


# --- Refusals, in the documented order --------------------------------------------------------------
def _refusals(books: Books, command: Command, at: datetime) -> Iterator[Problem]:
    wallet = books.wallets[command.wallet_id]
    other = books.wallets[command.counterparty_id] if command.counterparty_id else None
    amount = amount_of(books, command)
    if refusal := form_refusal(command, wallet.currency):
        yield refusal
    if isinstance(command, PlaceHold) and command.expires_at is not None and command.expires_at <= at:
        error = FieldError("expiresAt", "out_of_range", "must be in the future")
        yield ValidationError(errors=(error,))
    if other and other.currency != wallet.currency:
        yield CurrencyMismatch()
    hidden = _hidden(books, command)
    statuses = [side.status for side in (wallet, other) if side and side is not hidden]
    if "CLOSED" in statuses:
        yield WalletClosed()
    if "FROZEN" in statuses and not isinstance(command, VoidHold):
        yield WalletFrozen()
    if isinstance(command, CaptureHold | VoidHold) and not books.holds[command.hold_id].is_active(at):
        yield HoldNotActive()
    if isinstance(command, CaptureHold) and amount > books.holds[command.hold_id].amount:
        yield HoldAmountExceeded()
    if isinstance(command, Reverse):
        if command.original.type not in REVERSED_BY or not command.original.is_completed:
            yield OperationNotReversible()
        if amount > left_of(books, command):
            yield ReversalExceedsOriginal()
    yield from _limits(amount, _sides(command, wallet, other), hidden)


def _limits(
    amount: Decimal, sides: tuple[WalletState | None, WalletState | None], hidden: WalletState | None
) -> Iterator[Problem]:
    payer, taker = sides
    if payer and payer.available - amount < -payer.overdraft_limit:
        yield InsufficientFunds()
    if taker is None:
        return
    limit = money.MAX_BALANCE if taker.max_balance is None else taker.max_balance
    is_full = taker.balance + amount > limit
    if taker is not hidden and is_full:
        yield BalanceLimitExceeded()
    if taker is hidden and (is_full or taker.status != ACTIVE):
        yield TargetCannotReceive()


def sees_other_side(books: Books, command: Command) -> bool:
    """Whether the command's caller may read the wallet on the other side."""
    if command.reads_all or command.counterparty_id is None:
        return True
    return (
        command.owner_restriction is not None
        and books.wallets[command.counterparty_id].owner_id == command.owner_restriction
    )


def _hidden(books: Books, command: Command) -> WalletState | None:
    """The wallet on the other side, if the money goes there and the command's caller may not read it."""
    if command.operation_type in INCOMING or sees_other_side(books, command):
        return None
    return books.wallets[command.counterparty_id] if command.counterparty_id else None


def _sides(
    command: Command, wallet: WalletState, other: WalletState | None
) -> tuple[WalletState | None, WalletState | None]:
    """Whose available money goes, and whose balance grows. What is captured was set aside before."""
    if isinstance(command, CaptureHold | VoidHold):
        return None, None
    return (other, wallet) if command.operation_type in INCOMING else (wallet, other)


def form_refusal(command: Command, currency: str) -> ValidationError | None:
    """What can be said of the amount that is asked for before its time has come."""
    amount: Decimal | None = getattr(command, "amount", None)
    if command.accepted_at is not None:
        return None  # it was asked when it was accepted; the amount has the table's digits now
    return None if amount is None or money.fits(amount, currency) else amount_does_not_fit("amount", currency)


def amount_does_not_fit(field: str, currency: str) -> ValidationError:
    digits = money.FRACTION_DIGITS[currency]
    error = FieldError(
        field, "too_many_digits", f"{currency} has {digits} fraction digits; nothing is rounded"
    )
    return ValidationError(errors=(error,))


# --- Entries: nothing may refuse any more -----------------------------------------------------------
def _entries(books: Books, command: Command) -> tuple[Entry, ...]:
    wallet, type = books.wallets[command.wallet_id], command.operation_type
    amount = amount_of(books, command)
    match command:
        case MakeTransfer():
            own = _entry(wallet, command.id, type, amount)
            return own, _opposite(own, books.wallets[command.target_id], command.target_operation_id)
        case Reverse(original=original):
            own = _entry(wallet, command.id, type, amount, reverses_id=original.id)
            if original.counterparty_id is None:
                return (own,)
            other = books.wallets[original.counterparty_id]
            return own, _opposite(own, other, command.counterpart_operation_id, original.counterpart_id)
        case PlaceHold():
            return (_entry(wallet, command.id, type, amount, held=amount),)
        case CaptureHold() | VoidHold():
            return (_entry(wallet, command.id, type, amount, held=-books.holds[command.hold_id].amount),)
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
    """The entry on the second wallet of a transfer or its reversal."""
    type = OPERATION_TYPES[own.type].opposite
    assert type  # noqa: S101 - for the type checker
    return _entry(wallet, id, type, own.amount, reverses_id=reverses_id)


# --- The books afterwards ---------------------------------------------------------------------------
def enter(books: Books, command: Command, verdict: Verdict, at: datetime) -> None:
    """Bring the books to where the verdict leaves them: a refusal moves nothing but the wallet's time."""
    if isinstance(verdict, Problem):
        wallet = books.wallets[command.wallet_id]
        books.wallets[wallet.id] = replace(wallet, updated_at=at)
        return
    for entry in verdict:
        wallet = books.wallets[entry.wallet_id]
        books.wallets[wallet.id] = WalletState(
            wallet.id,
            wallet.currency,
            entry.balance,
            entry.held,
            wallet.overdraft_limit,
            wallet.max_balance,
            wallet.sequence if entry.sequence is None else entry.sequence,
            wallet.status,
            at,
            wallet.next_expiry_at,
            wallet.owner_id,
            wallet.hash,
        )
        if entry.reverses_id:
            sofar = books.reversed.get(entry.reverses_id, NOTHING)
            books.reversed[entry.reverses_id] = sofar + entry.amount
    if isinstance(command, PlaceHold | CaptureHold | VoidHold):
        _enter_hold(books, command, verdict[0], at)


def _enter_hold(
    books: Books, command: PlaceHold | CaptureHold | VoidHold, entry: Entry, at: datetime
) -> None:
    match command:
        case PlaceHold():
            hold = HoldState(
                id=command.id,
                wallet_id=command.wallet_id,
                amount=command.amount,
                status=ACTIVE,
                expires_at=command.expires_at,
                captured_amount=None,
                operation_id=None,
                description=command.description,
                created_at=at,
                ended_at=None,
            )
            wallet = books.wallets[command.wallet_id]
            expiries = [time for time in (wallet.next_expiry_at, command.expires_at) if time is not None]
            books.wallets[wallet.id] = replace(wallet, next_expiry_at=min(expiries, default=None))
        case CaptureHold():
            hold = replace(
                books.holds[command.hold_id],
                status="CAPTURED",
                captured_amount=entry.amount,
                operation_id=entry.id,
                ended_at=at,
            )
        case VoidHold():
            hold = replace(books.holds[command.hold_id], status="VOIDED", ended_at=at)
    books.holds[hold.id] = hold

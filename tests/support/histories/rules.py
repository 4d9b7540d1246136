"""The tests' own model of the ledger rules: the refusals and the effects of operations.

The history checker, the simulated service and the random programs of test_model.py use it. It shares
no code with the service, which it checks. Its clients may read every wallet: target_cannot_receive would be a
wrong refusal for them.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from tests.support.histories.ledger import Hold, Operation, Wallet

NOTHING = Decimal(0)
SIGNS = {
    "DEPOSIT": 1,
    "WITHDRAW": -1,
    "TRANSFER_IN": 1,
    "TRANSFER_OUT": -1,
    "CAPTURE": -1,
    "REVERSAL_IN": 1,
    "REVERSAL_OUT": -1,
    "HOLD": 0,
    "VOID": 0,
}
REVERSED_BY = {
    "DEPOSIT": "REVERSAL_OUT",
    "WITHDRAW": "REVERSAL_IN",
    "CAPTURE": "REVERSAL_IN",
    "TRANSFER_IN": "REVERSAL_OUT",
    "TRANSFER_OUT": "REVERSAL_IN",
}
OPPOSITES = {
    "TRANSFER_OUT": "TRANSFER_IN",
    "TRANSFER_IN": "TRANSFER_OUT",
    "REVERSAL_IN": "REVERSAL_OUT",
    "REVERSAL_OUT": "REVERSAL_IN",
}
DIGITS = {"RUB": 2, "JPY": 0}


@dataclass(frozen=True, slots=True)
class Side:
    """The state of a wallet that an operation is decided on."""

    wallet: Wallet  # for its currency and limits, which do not change
    status: str
    balance: Decimal
    held: Decimal


@dataclass(frozen=True, slots=True)
class Past:
    """The state of the hold or original that an operation refers to."""

    hold_is_active: bool = False
    hold_amount: Decimal = NOTHING
    can_be_reversed: bool = False
    left: Decimal = NOTHING  # the amount that can still be reversed


def past_of_hold(amount: Decimal, expires_at: datetime | None, is_ended: bool, at: datetime) -> Past:
    is_expired = expires_at is not None and expires_at <= at
    return Past(hold_is_active=not is_ended and not is_expired, hold_amount=amount)


def past_of_original(original: Operation, taken_back: Decimal) -> Past:
    can_be_reversed = original.is_completed and original.type in REVERSED_BY
    return Past(can_be_reversed=can_be_reversed, left=original.amount - taken_back)


# --- Effects ----------------------------------------------------------------------------------------
def moved(operation: Operation, balance: Decimal, sequence: int) -> Operation:
    """Return the operation with the balance and the sequence that result from it."""
    balance += SIGNS[operation.type] * operation.amount
    return replace(operation, sequence=sequence + 1, balance_after=balance)


def placed(operation: Operation) -> Hold:
    return Hold(
        id=operation.id,
        wallet_id=operation.wallet_id,
        amount=operation.amount,
        status="ACTIVE",
        expires_at=operation.expires_at,
        created_at=operation.created_at,
    )


def ended(hold: Hold, end: Operation) -> Hold:
    """Return the hold after a CAPTURE or VOID."""
    if end.type == "VOID":
        return replace(hold, status="VOIDED", ended_at=end.created_at)
    return replace(
        hold,
        status="CAPTURED",
        ended_at=end.created_at,
        captured_amount=end.amount,
        operation_id=end.id,
    )


def expired(hold: Hold) -> Hold:
    return replace(hold, status="EXPIRED", ended_at=hold.expires_at)


# --- Refusals ---------------------------------------------------------------------------------------
def refusal_of_change(status: str, is_empty: bool, new_status: str | None) -> str | None:
    """Return the reason to refuse a change of a wallet with this status, or None."""
    if status == "CLOSED":
        return "wallet_closed"
    return "wallet_not_empty" if new_status == "CLOSED" and not is_empty else None


def refusal(operation: Operation, past: Past, mine: Side, theirs: Side | None) -> str | None:
    return (
        _of_wallets(operation, mine, theirs)
        or _of_hold(operation, past)
        or _of_original(operation, past)
        or _of_limits(operation, mine, theirs)
    )


def rest(operation: Operation, past: Past) -> Decimal:
    """Return the amount of an operation that takes all of the remaining amount."""
    return past.left if operation.reverses_id else past.hold_amount


def fits(amount: Decimal, currency: str) -> bool:
    """Return whether the amount has at most the digits of the currency, except zeros at the end."""
    return amount == round(amount, DIGITS[currency])


def _of_wallets(operation: Operation, mine: Side, theirs: Side | None) -> str | None:
    sides = [mine, theirs] if theirs else [mine]
    if len({side.wallet.currency for side in sides}) > 1:
        return "currency_mismatch"
    statuses = {side.status for side in sides}
    if "CLOSED" in statuses:
        return "wallet_closed"
    return "wallet_frozen" if "FROZEN" in statuses and operation.type != "VOID" else None


def _of_hold(operation: Operation, past: Past) -> str | None:
    if operation.type == "HOLD" and operation.expires_at and operation.expires_at <= operation.created_at:
        return "validation_error"
    if operation.type in ("CAPTURE", "VOID") and not past.hold_is_active:
        return "hold_not_active"
    is_more = operation.type == "CAPTURE" and operation.amount > past.hold_amount
    return "hold_amount_exceeded" if is_more else None


def _of_original(operation: Operation, past: Past) -> str | None:
    if not operation.reverses_id:
        return None
    if not past.can_be_reversed:
        return "operation_not_reversible"
    is_more = not operation.takes_rest and operation.amount > past.left
    return "reversal_exceeds_original" if is_more or not past.left else None


def _of_limits(operation: Operation, mine: Side, theirs: Side | None) -> str | None:
    payer = taker = None
    if operation.type in ("DEPOSIT", "REVERSAL_IN"):
        payer, taker = theirs, mine
    elif operation.type not in ("CAPTURE", "VOID"):  # they take money that is already held
        payer, taker = mine, theirs
    if payer and payer.balance - payer.held - operation.amount < -payer.wallet.overdraft_limit:
        return "insufficient_funds"
    limit = taker.wallet.max_balance if taker else None
    is_more = taker is not None and limit is not None and taker.balance + operation.amount > limit
    return "balance_limit_exceeded" if is_more else None

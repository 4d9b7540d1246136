"""The one model of the rules of money in the tests: what refuses an operation, and what one does.

The checker of histories, the service in memory and the random programs of test_model.py all use it. It shares
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
    """A wallet as an operation is decided on."""

    wallet: Wallet  # its currency and limits, which stay
    status: str
    balance: Decimal
    held: Decimal


@dataclass(frozen=True, slots=True)
class Past:
    """What an operation refers to, as it is decided on."""

    hold_is_active: bool = False
    hold_amount: Decimal = NOTHING
    can_be_reversed: bool = False
    left: Decimal = NOTHING  # to reverse


def past_of_hold(amount: Decimal, expires_at: datetime | None, is_ended: bool, at: datetime) -> Past:
    is_expired = expires_at is not None and expires_at <= at
    return Past(hold_is_active=not is_ended and not is_expired, hold_amount=amount)


def past_of_original(original: Operation, taken_back: Decimal) -> Past:
    can_be_reversed = original.is_completed and original.type in REVERSED_BY
    return Past(can_be_reversed=can_be_reversed, left=original.amount - taken_back)


# --- What an operation does -------------------------------------------------------------------------
def moved(operation: Operation, balance: Decimal, sequence: int) -> Operation:
    """An operation that moves money, with the balance and the sequence that it leaves."""
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
    """The hold after a CAPTURE or VOID."""
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


# --- What refuses -----------------------------------------------------------------------------------
def refusal_of_change(status: str, is_empty: bool, new_status: str | None) -> str | None:
    """Of a change of a wallet that has this status."""
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
    """How much it is where that is left open."""
    return past.left if operation.reverses_id else past.hold_amount


def fits(amount: Decimal, currency: str) -> bool:
    """Whether it has no more digits than the currency, as it was written."""
    return -int(amount.as_tuple().exponent) <= DIGITS[currency]


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
    elif operation.type not in ("CAPTURE", "VOID"):  # what these take was set aside
        payer, taker = mine, theirs
    if payer and payer.balance - payer.held - operation.amount < -payer.wallet.overdraft_limit:
        return "insufficient_funds"
    limit = taker.wallet.max_balance if taker else None
    is_more = taker is not None and limit is not None and taker.balance + operation.amount > limit
    return "balance_limit_exceeded" if is_more else None

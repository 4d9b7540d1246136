"""The rules of money, pure: (locked state, command) -> entry or refusal. No Django, no database, no clock.

The checks run in this order, and the first that fails is the answer (tests/test_rules.py is the same table;
before them execute.py has checked that the wallet exists and that the key is new):

1. the amount has no more fraction digits than the currency   ValidationError (not recorded)
2. the wallet is not closed                                    WalletClosed
3. the wallet is not frozen                                    WalletFrozen
4. a deposit stays within the maximum balance                  BalanceLimitExceeded
5. a withdrawal stays within what is available                 InsufficientFunds
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from wallets import money
from wallets.ledger.commands import Command, Deposit, Withdraw
from wallets.problems import (
    BalanceLimitExceeded,
    FieldError,
    InsufficientFunds,
    Problem,
    ValidationError,
    WalletClosed,
    WalletFrozen,
)


@dataclass(frozen=True, slots=True)
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

    @property
    def available(self) -> Decimal:
        return self.balance - self.held


@dataclass(frozen=True, slots=True)
class Entry:
    """What an accepted command does to the wallet."""

    sequence: int
    balance: Decimal


def decide(wallet: WalletState, command: Command) -> Entry | Problem:
    """The verdict on one command. A refusal changes nothing."""
    if not money.fits(command.amount, wallet.currency):
        return amount_does_not_fit("amount", wallet.currency)
    if wallet.status == "CLOSED":
        return WalletClosed()
    if wallet.status == "FROZEN":
        return WalletFrozen()
    match command:
        case Deposit():
            balance = wallet.balance + command.amount
            if balance > (money.MAX_BALANCE if wallet.max_balance is None else wallet.max_balance):
                return BalanceLimitExceeded()
        case Withdraw():
            balance = wallet.balance - command.amount
            if balance - wallet.held < -wallet.overdraft_limit:
                return InsufficientFunds()
        case _:
            raise AssertionError(f"no rule for {command!r}")
    return Entry(sequence=wallet.sequence + 1, balance=balance)


def after(wallet: WalletState, verdict: Entry | Problem, at: datetime) -> WalletState:
    """The wallet after the verdict at this time: a refusal moves nothing but the time."""
    entry = verdict if isinstance(verdict, Entry) else None
    return WalletState(
        id=wallet.id,
        currency=wallet.currency,
        balance=entry.balance if entry else wallet.balance,
        held=wallet.held,
        overdraft_limit=wallet.overdraft_limit,
        max_balance=wallet.max_balance,
        sequence=entry.sequence if entry else wallet.sequence,
        status=wallet.status,
        updated_at=at,
    )


def amount_does_not_fit(field: str, currency: str) -> ValidationError:
    digits = money.FRACTION_DIGITS[currency]
    error = FieldError(
        field, "too_many_digits", f"{currency} has {digits} fraction digits; nothing is rounded"
    )
    return ValidationError(errors=(error,))

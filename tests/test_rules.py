"""The rules of money, without a database: a table in the order of the checks, and laws that always hold."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallets import money
from wallets.ledger import rules
from wallets.ledger.commands import Command, Deposit, Withdraw
from wallets.ledger.rules import Entry, WalletState
from wallets.problems import (
    BalanceLimitExceeded,
    InsufficientFunds,
    Problem,
    ValidationError,
    WalletClosed,
    WalletFrozen,
)

ID = UUID(int=1)
WALLET = WalletState(
    id=ID,
    currency="EUR",
    balance=Decimal(100),
    held=Decimal(0),
    overdraft_limit=Decimal(0),
    max_balance=None,
    sequence=7,
    status="ACTIVE",
    updated_at=datetime(2026, 1, 1, tzinfo=UTC),
)
CLOSED = replace(WALLET, status="CLOSED", balance=Decimal(0))
FROZEN = replace(WALLET, status="FROZEN")
LIMITED = replace(WALLET, max_balance=Decimal(150))
HOLDING = replace(WALLET, held=Decimal(40))
OVERDRAFT = replace(WALLET, overdraft_limit=Decimal(50))


def deposit(amount: str) -> Command:
    return Deposit(wallet_id=ID, amount=Decimal(amount))


def withdraw(amount: str) -> Command:
    return Withdraw(wallet_id=ID, amount=Decimal(amount))


@pytest.mark.parametrize(
    ("wallet", "command", "verdict"),
    [
        # 1. fraction digits, before anything else
        (CLOSED, deposit("0.001"), ValidationError),
        (FROZEN, withdraw("0.001"), ValidationError),
        # 2. closed
        (CLOSED, deposit("1"), WalletClosed),
        (CLOSED, withdraw("1"), WalletClosed),
        # 3. frozen, before limits and funds
        (FROZEN, deposit("1"), WalletFrozen),
        (FROZEN, withdraw("1000"), WalletFrozen),
        # 4. the maximum balance
        (LIMITED, deposit("50"), "150"),
        (LIMITED, deposit("50.01"), BalanceLimitExceeded),
        (replace(WALLET, balance=money.MAX_BALANCE), deposit("0.01"), BalanceLimitExceeded),
        (WALLET, deposit("0.01"), "100.01"),
        # 5. funds
        (WALLET, withdraw("100"), "0"),
        (WALLET, withdraw("100.01"), InsufficientFunds),
        (HOLDING, withdraw("60"), "40"),
        (HOLDING, withdraw("60.01"), InsufficientFunds),
        (OVERDRAFT, withdraw("150"), "-50"),
        (OVERDRAFT, withdraw("150.01"), InsufficientFunds),
        (LIMITED, withdraw("100"), "0"),
    ],
)
def test_the_first_check_that_fails_is_the_verdict(
    wallet: WalletState, command: Command, verdict: type[Problem] | str
) -> None:
    decided = rules.decide(wallet, command)
    if isinstance(verdict, str):
        assert decided == Entry(sequence=wallet.sequence + 1, balance=Decimal(verdict))
    else:
        assert type(decided) is verdict


def test_a_command_without_a_rule_is_a_fault_not_a_verdict() -> None:
    with pytest.raises(AssertionError, match="no rule"):
        rules.decide(WALLET, Command(wallet_id=ID, amount=Decimal(1)))


amounts = st.decimals(min_value="0.01", max_value="500", places=2)
commands = st.builds(
    lambda kind, amount: kind(wallet_id=ID, amount=amount), st.sampled_from([Deposit, Withdraw]), amounts
)
limits = st.none() | st.decimals(min_value=100, max_value=1000, places=2)


@given(st.lists(commands, max_size=60), st.decimals(min_value=0, max_value=300, places=2), limits)
def test_whatever_is_asked_money_is_conserved_and_limits_hold(
    asked: list[Command], overdraft: Decimal, max_balance: Decimal | None
) -> None:
    wallet = replace(WALLET, overdraft_limit=overdraft, max_balance=max_balance)
    moved = Decimal(0)
    for command in asked:
        verdict = rules.decide(wallet, command)
        if isinstance(verdict, Problem):
            continue
        moved += command.amount if isinstance(command, Deposit) else -command.amount
        after = rules.after(wallet, verdict, wallet.updated_at)
        assert after.sequence == wallet.sequence + 1
        assert after.balance == WALLET.balance + moved
        assert after.available >= -overdraft
        assert max_balance is None or after.balance <= max(max_balance, wallet.balance)
        wallet = after


@given(amounts, amounts)
def test_a_withdrawal_is_refused_exactly_when_there_is_less(balance: Decimal, amount: Decimal) -> None:
    verdict = rules.decide(replace(WALLET, balance=balance), Withdraw(wallet_id=ID, amount=amount))
    assert isinstance(verdict, InsufficientFunds) is (amount > balance)

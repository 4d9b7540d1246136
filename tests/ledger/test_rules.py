"""The ledger rules without a database: the order of the checks, and properties that always hold."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wallets import money
from wallets.ledger import rules
from wallets.ledger.commands import (
    CaptureHold,
    Command,
    Deposit,
    MakeTransfer,
    Original,
    PlaceHold,
    Reverse,
    VoidHold,
    Withdraw,
)
from wallets.ledger.rules import Decision, Entry, HoldState, LedgerState, WalletState
from wallets.operation_types import OPERATION_TYPES, REVERSED_BY
from wallets.problems import (
    BalanceLimitExceeded,
    CurrencyMismatch,
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

OWN, OTHER, HOLD, ORIGINAL, COUNTERPART = (UUID(int=n) for n in range(1, 6))
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(microseconds=1), NOW - timedelta(microseconds=1)
NOTHING = Decimal(0)
OWNER, STRANGER = 1, 2
WALLET = WalletState(
    id=OWN,
    currency="EUR",
    balance=Decimal(100),
    held=Decimal(40),
    overdraft_limit=NOTHING,
    max_balance=None,
    sequence=7,
    status="ACTIVE",
    updated_at=EARLIER,
)
HELD = HoldState(
    id=HOLD,
    wallet_id=OWN,
    amount=Decimal(40),
    status="ACTIVE",
    expires_at=None,
    captured_amount=None,
    operation_id=None,
    reference="",
    description="",
    metadata={},
    created_at=EARLIER,
    ended_at=None,
)


@dataclass(frozen=True)
class RuleCase:
    """A command and its state: two wallets with 60 of 100 available, a hold of 40, an original of 40."""

    kind: str
    amount: str | None = "40"
    expires_at: datetime | None = None
    reads_all: bool = True
    own: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)
    hold: dict[str, Any] = field(default_factory=dict)
    original: dict[str, Any] = field(default_factory=dict)
    reversed: str = "0"

    def changed_by(self, changes: dict[str, Any]) -> "RuleCase":
        merged = {
            name: getattr(self, name) | new if isinstance(new, dict) else new for name, new in changes.items()
        }
        return replace(self, **merged)

    @property
    def books(self) -> LedgerState:
        return LedgerState(
            wallets={OWN: replace(WALLET, **self.own), OTHER: replace(WALLET, id=OTHER, **self.other)},
            holds={HOLD: replace(HELD, **self.hold)},
            reversed={ORIGINAL: Decimal(self.reversed), COUNTERPART: Decimal(self.reversed)},
        )

    @property
    def command(self) -> Command:
        amount = None if self.amount is None else Decimal(self.amount)
        match self.kind:
            case "DEPOSIT" | "WITHDRAW" if amount is not None:
                return {"DEPOSIT": Deposit, "WITHDRAW": Withdraw}[self.kind](wallet_id=OWN, amount=amount)
            case "TRANSFER" if amount is not None:
                return MakeTransfer(wallet_id=OWN, target_id=OTHER, amount=amount, **self.caller)
            case "HOLD" if amount is not None:
                return PlaceHold(wallet_id=OWN, amount=amount, expires_at=self.expires_at)
            case "CAPTURE":
                return CaptureHold(wallet_id=OWN, hold_id=HOLD, amount=amount)
            case "VOID":
                return VoidHold(wallet_id=OWN, hold_id=HOLD)
        original = self._original(self.kind.split()[1])
        return Reverse(wallet_id=OWN, original=original, amount=amount, **self.caller)

    @property
    def caller(self) -> dict[str, Any]:
        return {"reads_all": self.reads_all, "owner_restriction": None if self.reads_all else OWNER}

    def _original(self, kind: str) -> Original:
        other = (OTHER, COUNTERPART) if kind.startswith("TRANSFER") else (None, None)
        known = Original(
            id=ORIGINAL,
            type=kind,
            amount=Decimal(40),
            is_completed=True,
            counterparty_id=other[0],
            counterpart_id=other[1],
        )
        return replace(known, **self.original)

    def decide(self) -> Decision | Problem:
        return rules.decide(self.books, self.command, NOW)


REVERSALS = tuple(f"REVERSAL {kind}" for kind in REVERSED_BY)
KINDS = ("DEPOSIT", "WITHDRAW", "TRANSFER", "HOLD", "CAPTURE", "VOID", *REVERSALS)


def test_entries_agree_with_the_operation_types() -> None:
    """The cases of this module produce an entry of every type."""
    met = set()
    for kind in KINDS:
        case = RuleCase(kind)
        decision = case.decide()
        assert isinstance(decision, Decision)
        entries = decision.entries
        for entry in entries:
            row, wallet = OPERATION_TYPES[entry.type], case.books.wallets[entry.wallet_id]
            assert entry.balance - wallet.balance == row.sign * entry.amount
            assert (entry.sequence is not None) == row.has_sequence
            met.add(entry.type)
        if len(entries) > 1:
            assert entries[1].type == OPERATION_TYPES[entries[0].type].opposite
    assert met == set(OPERATION_TYPES)


# --- The order of the checks ------------------------------------------------------------------------
# Every check in the documented order: the refusal, the fault that causes it, and the commands it applies to.
WITH_AMOUNT = tuple(kind for kind in KINDS if kind != "VOID")
OF_TWO = ("TRANSFER", "REVERSAL TRANSFER_IN", "REVERSAL TRANSFER_OUT")
PAYS_ITSELF = ("WITHDRAW", "TRANSFER", "HOLD", "REVERSAL DEPOSIT", "REVERSAL TRANSFER_IN")
TAKES_ITSELF = ("DEPOSIT", "REVERSAL WITHDRAW", "REVERSAL CAPTURE", "REVERSAL TRANSFER_OUT")
PAYS_ANOTHER = ("TRANSFER", "REVERSAL TRANSFER_IN")
HIDDEN: dict[str, Any] = {"reads_all": False, "other": {"owner_id": STRANGER}}
TARGET_FAULTS: tuple[dict[str, Any], ...] = (
    {"max_balance": Decimal("119.98")},
    {"status": "CLOSED"},
    {"status": "FROZEN"},
)
CHECKS: tuple[tuple[type[Problem], dict[str, Any], Sequence[str]], ...] = (
    (ValidationError, {"amount": "40.001"}, WITH_AMOUNT),
    (ValidationError, {"expires_at": NOW}, ("HOLD",)),
    (CurrencyMismatch, {"other": {"currency": "USD"}}, OF_TWO),
    (WalletClosed, {"own": {"status": "CLOSED"}}, KINDS),
    (WalletClosed, {"other": {"status": "CLOSED"}}, OF_TWO),
    (WalletFrozen, {"own": {"status": "FROZEN"}}, WITH_AMOUNT),
    (WalletFrozen, {"other": {"status": "FROZEN"}}, OF_TWO),
    (HoldNotActive, {"hold": {"status": "VOIDED"}}, ("CAPTURE", "VOID")),
    (HoldNotActive, {"hold": {"expires_at": NOW}}, ("CAPTURE", "VOID")),
    (HoldAmountExceeded, {"hold": {"amount": Decimal("39.99")}}, ("CAPTURE",)),
    (OperationNotReversible, {"original": {"is_completed": False}}, REVERSALS),
    (ReversalExceedsOriginal, {"reversed": "0.01"}, REVERSALS),
    (InsufficientFunds, {"own": {"balance": Decimal("79.99")}}, PAYS_ITSELF),
    (InsufficientFunds, {"other": {"balance": Decimal("79.99")}}, ("REVERSAL TRANSFER_OUT",)),
    (BalanceLimitExceeded, {"own": {"max_balance": Decimal("119.98")}}, TAKES_ITSELF),
    (
        BalanceLimitExceeded,
        {"other": {"max_balance": Decimal("119.98")}},
        ("TRANSFER", "REVERSAL TRANSFER_IN"),
    ),
    *(
        (TargetCannotReceive, {**HIDDEN, "other": HIDDEN["other"] | fault}, PAYS_ANOTHER)
        for fault in TARGET_FAULTS
    ),
)


def can_refuse(fault: dict[str, Any], kind: str, reads_all: bool) -> bool:
    """Return whether the fault refuses the command of a caller who may read all wallets, or only own ones."""
    if reads_all or "reads_all" in fault:
        return not reads_all or "reads_all" not in fault
    is_of_target = bool(fault.get("other", {}).keys() & {"status", "max_balance"})
    return not (is_of_target and kind in PAYS_ANOTHER)


@pytest.mark.parametrize("reads_all", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_first_failed_check_is_the_refusal(kind: str, reads_all: bool) -> None:
    """Start with all faults of the command, then remove them in the order of the checks."""
    checks = [
        (problem, fault)
        for problem, fault, met_by in CHECKS
        if kind in met_by and can_refuse(fault, kind, reads_all)
    ]
    for number, (problem, _) in enumerate(checks):
        case = RuleCase(kind) if reads_all else RuleCase(kind).changed_by(HIDDEN)
        for _, fault in reversed(checks[number:]):
            case = case.changed_by(fault)
        assert type(case.decide()) is problem, checks[number]
    assert isinstance(RuleCase(kind).decide(), Decision)


@pytest.mark.parametrize(
    ("kind", "problem", "fault"),
    [(kind, problem, fault) for problem, fault, met_by in CHECKS for kind in met_by],
)
def test_each_failed_check_refuses(kind: str, problem: type[Problem], fault: dict[str, Any]) -> None:
    assert type(RuleCase(kind).changed_by(fault).decide()) is problem


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (kind, fault)
        for problem, fault, met_by in CHECKS
        for kind in KINDS
        if kind not in met_by and not (problem is TargetCannotReceive and kind in OF_TWO)  # seen, it refuses
    ],
)
def test_command_ignores_the_faults_of_other_commands(kind: str, fault: dict[str, Any]) -> None:
    assert isinstance(RuleCase(kind).changed_by(fault).decide(), Decision)


@pytest.mark.parametrize("kind", PAYS_ANOTHER)
@pytest.mark.parametrize(
    ("fault", "problem"),
    list(zip(TARGET_FAULTS, (BalanceLimitExceeded, WalletClosed, WalletFrozen), strict=True)),
)
def test_owner_of_both_wallets_gets_the_exact_refusal(
    kind: str, fault: dict[str, Any], problem: type[Problem]
) -> None:
    case = RuleCase(kind, reads_all=False, other={"owner_id": OWNER} | fault)
    assert type(case.decide()) is problem


def test_tested_checks_are_in_the_documented_order() -> None:
    documented = re.findall(r"^ *\d+\. .*?(\w+)(?: \(not recorded\))?$", rules.__doc__ or "", re.MULTILINE)
    tested = [problem.__name__ for problem, _, _ in CHECKS]
    assert list(dict.fromkeys(documented)) == list(dict.fromkeys(tested))


# --- Boundaries -------------------------------------------------------------------------------------
REFUSED_AT_THE_BOUNDARY: tuple[tuple[RuleCase, type[Problem]], ...] = (
    (RuleCase("DEPOSIT", "0.001"), ValidationError),
    (RuleCase("DEPOSIT", "1.5", own={"currency": "JPY"}), ValidationError),
    (RuleCase("TRANSFER", "1.2345", own={"currency": "KWD"}, other={"currency": "KWD"}), ValidationError),
    (RuleCase("HOLD", expires_at=NOW), ValidationError),
    (RuleCase("CAPTURE", hold={"expires_at": NOW}), HoldNotActive),
    (RuleCase("VOID", hold={"expires_at": NOW}), HoldNotActive),
    *(
        (RuleCase("CAPTURE", hold={"status": ended}), HoldNotActive)
        for ended in ("CAPTURED", "VOIDED", "EXPIRED")
    ),
    *(
        (RuleCase("VOID", hold={"status": ended}), HoldNotActive)
        for ended in ("CAPTURED", "VOIDED", "EXPIRED")
    ),
    (RuleCase("CAPTURE", "40.01"), HoldAmountExceeded),
    *(
        (RuleCase("REVERSAL DEPOSIT", original={"type": kind}), OperationNotReversible)
        for kind in ("HOLD", "VOID", "REVERSAL_IN", "REVERSAL_OUT")
    ),
    (RuleCase("REVERSAL WITHDRAW", "40.01"), ReversalExceedsOriginal),
    (RuleCase("REVERSAL TRANSFER_OUT", "10.01", reversed="30"), ReversalExceedsOriginal),
    (RuleCase("REVERSAL CAPTURE", None, reversed="40"), ReversalExceedsOriginal),
    (RuleCase("WITHDRAW", "60.01"), InsufficientFunds),
    (RuleCase("HOLD", "60.01"), InsufficientFunds),
    (RuleCase("TRANSFER", "60.01"), InsufficientFunds),
    (RuleCase("WITHDRAW", "110.01", own={"overdraft_limit": Decimal(50)}), InsufficientFunds),
    (RuleCase("REVERSAL DEPOSIT", None, own={"held": Decimal("60.01")}), InsufficientFunds),
    (RuleCase("REVERSAL TRANSFER_IN", None, own={"held": Decimal("60.01")}), InsufficientFunds),
    (RuleCase("REVERSAL TRANSFER_OUT", None, other={"held": Decimal("60.01")}), InsufficientFunds),
    (RuleCase("DEPOSIT", "50.01", own={"max_balance": Decimal(150)}), BalanceLimitExceeded),
    (RuleCase("DEPOSIT", "0.01", own={"balance": money.MAX_BALANCE}), BalanceLimitExceeded),
    (RuleCase("TRANSFER", "50.01", other={"max_balance": Decimal(150)}), BalanceLimitExceeded),
    (RuleCase("REVERSAL WITHDRAW", None, own={"max_balance": Decimal("139.99")}), BalanceLimitExceeded),
    (RuleCase("REVERSAL TRANSFER_IN", None, other={"max_balance": Decimal("139.99")}), BalanceLimitExceeded),
)


@pytest.mark.parametrize(("case", "problem"), REFUSED_AT_THE_BOUNDARY)
def test_command_beyond_its_boundary_is_refused(case: RuleCase, problem: type[Problem]) -> None:
    assert type(case.decide()) is problem


# The entries of a command, each as type, sequence, balance and held amount.
@pytest.mark.parametrize(
    ("case", "entries"),
    [
        (RuleCase("DEPOSIT", "0.01"), ["DEPOSIT 8 100.01 40"]),
        (RuleCase("DEPOSIT", "50", own={"max_balance": Decimal(150)}), ["DEPOSIT 8 150 40"]),
        (RuleCase("DEPOSIT", "1", own={"currency": "JPY"}), ["DEPOSIT 8 101 40"]),
        (RuleCase("WITHDRAW", "60"), ["WITHDRAW 8 40 40"]),
        (RuleCase("WITHDRAW", "110", own={"overdraft_limit": Decimal(50)}), ["WITHDRAW 8 -10 40"]),
        (RuleCase("WITHDRAW", "60", own={"max_balance": Decimal(100)}), ["WITHDRAW 8 40 40"]),
        (RuleCase("TRANSFER", "60"), ["TRANSFER_OUT 8 40 40", "TRANSFER_IN 8 160 40"]),
        (
            RuleCase("TRANSFER", "50", other={"max_balance": Decimal(150), "sequence": 0, "held": NOTHING}),
            ["TRANSFER_OUT 8 50 40", "TRANSFER_IN 1 150 0"],
        ),
        (
            RuleCase("TRANSFER", "0.001", own={"currency": "KWD"}, other={"currency": "KWD"}),
            ["TRANSFER_OUT 8 99.999 40", "TRANSFER_IN 8 100.001 40"],
        ),
        (RuleCase("HOLD", "60"), ["HOLD None 100 100"]),
        (RuleCase("HOLD", "60", expires_at=LATER), ["HOLD None 100 100"]),
        (RuleCase("HOLD", "110", own={"overdraft_limit": Decimal(50)}), ["HOLD None 100 150"]),
        (RuleCase("CAPTURE", None), ["CAPTURE 8 60 0"]),
        (RuleCase("CAPTURE", "40", hold={"expires_at": LATER}), ["CAPTURE 8 60 0"]),
        (RuleCase("CAPTURE", "0.01"), ["CAPTURE 8 99.99 0"]),
        # The captured amount is held, so a capture needs no available amount.
        (RuleCase("CAPTURE", None, own={"balance": Decimal(40)}), ["CAPTURE 8 0 0"]),
        (RuleCase("VOID"), ["VOID None 100 0"]),
        (RuleCase("VOID", own={"status": "FROZEN"}, hold={"expires_at": LATER}), ["VOID None 100 0"]),
        (RuleCase("REVERSAL DEPOSIT", None), ["REVERSAL_OUT 8 60 40"]),
        (RuleCase("REVERSAL DEPOSIT", None, own={"balance": Decimal(80)}), ["REVERSAL_OUT 8 40 40"]),
        (RuleCase("REVERSAL WITHDRAW", "0.01"), ["REVERSAL_IN 8 100.01 40"]),
        (RuleCase("REVERSAL CAPTURE", None, reversed="39.99"), ["REVERSAL_IN 8 100.01 40"]),
        (
            RuleCase("REVERSAL TRANSFER_OUT", "10", reversed="30"),
            ["REVERSAL_IN 8 110 40", "REVERSAL_OUT 8 90 40"],
        ),
        (RuleCase("REVERSAL TRANSFER_IN", None), ["REVERSAL_OUT 8 60 40", "REVERSAL_IN 8 140 40"]),
        (
            RuleCase("REVERSAL TRANSFER_IN", None, other={"max_balance": Decimal(140)}),
            ["REVERSAL_OUT 8 60 40", "REVERSAL_IN 8 140 40"],
        ),
    ],
)
def test_command_at_its_boundary_is_carried_out(case: RuleCase, entries: list[str]) -> None:
    decision = case.decide()
    assert isinstance(decision, Decision), decision
    found = [f"{entry.type} {entry.sequence} {entry.balance} {entry.held}" for entry in decision.entries]
    assert found == entries


def test_sides_of_a_transfer_and_its_reversal_are_linked() -> None:
    transfer = RuleCase("TRANSFER")
    command = transfer.command
    assert isinstance(command, MakeTransfer)
    decision = rules.decide(transfer.books, command, NOW)
    assert isinstance(decision, Decision)
    assert [(entry.id, entry.wallet_id) for entry in decision.entries] == [
        (command.id, OWN),
        (command.target_operation_id, OTHER),
    ]
    reversal = RuleCase("REVERSAL TRANSFER_OUT").decide()
    assert isinstance(reversal, Decision)
    assert [(entry.wallet_id, entry.reverses_id) for entry in reversal.entries] == [
        (OWN, ORIGINAL),
        (OTHER, COUNTERPART),
    ]


def test_accepted_command_is_not_validated_again() -> None:
    command = Deposit(wallet_id=OWN, amount=Decimal("1.0000"), accepted_at=EARLIER)
    assert isinstance(rules.decide(RuleCase("DEPOSIT").books, command, NOW), Decision)


def test_command_without_a_rule_raises_an_assertion() -> None:
    with pytest.raises(AssertionError, match="no amount"):
        rules.decide(RuleCase("DEPOSIT").books, Command(wallet_id=OWN), NOW)


# --- Properties -------------------------------------------------------------------------------------
@dataclass
class SimulatedWallets:
    """Wallets of two currencies, and a ledger of the test to compare their state with."""

    books: LedgerState
    now: datetime = NOW
    ledger: list[Entry] = field(default_factory=list)
    ends: Counter[UUID] = field(default_factory=Counter)
    originals: list[tuple[UUID, Original]] = field(default_factory=list)

    def carry_out(self, command: Command) -> None:
        before = deepcopy(self.books)
        decision = rules.decide(self.books, command, self.now)
        assert self.books == before, "a decision changes nothing until it is applied"
        if isinstance(decision, Problem):
            return
        self.books.apply(decision)
        entries = decision.entries
        assert all(self.books.wallets[entry.wallet_id].updated_at == self.now for entry in entries)
        assert sum(signed_amount(entry) for entry in entries) == external_amount(command, entries[0])
        self.ledger += entries
        self.originals += originals(command, entries)
        if isinstance(command, CaptureHold | VoidHold):
            self.ends[command.hold_id] += 1
            expires_at = before.holds[command.hold_id].expires_at
            assert expires_at is None or expires_at > self.now

    def assert_adds_up(self) -> None:
        for wallet in self.books.wallets.values():
            entries = [entry for entry in self.ledger if entry.wallet_id == wallet.id]
            moves = [entry for entry in entries if entry.sequence is not None]
            assert [entry.sequence for entry in moves] == list(range(1, wallet.sequence + 1))
            assert wallet.balance == sum(map(signed_amount, moves)) == (moves[-1].balance if moves else 0)
            assert wallet.available >= -wallet.overdraft_limit
            assert wallet.max_balance is None or wallet.balance <= wallet.max_balance
            self.assert_holds_add_up(wallet)
        assert all(ends == 1 for ends in self.ends.values())
        reversed_by_ledger: Counter[UUID] = Counter()
        for entry in self.ledger:
            if entry.reverses_id:
                reversed_by_ledger[entry.reverses_id] += entry.amount  # type: ignore[assignment]
        assert reversed_by_ledger == self.books.reversed
        for _, original in self.originals:
            assert self.books.reversed.get(original.id, NOTHING) <= original.amount

    def assert_holds_add_up(self, wallet: WalletState) -> None:
        holds = [hold for hold in self.books.holds.values() if hold.wallet_id == wallet.id]
        active = [hold for hold in holds if hold.status == "ACTIVE"]
        assert wallet.held == sum(hold.amount for hold in active)
        for hold in holds:
            assert (hold.ended_at is None) is (hold.status == "ACTIVE") is (self.ends[hold.id] == 0)
            assert (
                (hold.captured_amount is None) is (hold.operation_id is None) is (hold.status != "CAPTURED")
            )
            assert hold.captured_amount is None or 0 < hold.captured_amount <= hold.amount
        expiries = [hold.expires_at for hold in active if hold.expires_at]
        assert not expiries or (wallet.next_expiry_at and wallet.next_expiry_at <= min(expiries))


def signed_amount(entry: Entry) -> Decimal:
    if entry.sequence is None:
        return NOTHING
    return entry.amount if entry.type in ("DEPOSIT", "TRANSFER_IN", "REVERSAL_IN") else -entry.amount


def external_amount(command: Command, entry: Entry) -> Decimal:
    """Return the amount that the command adds to the sum of all wallets; a transfer adds 0."""
    match command:
        case Deposit(amount=amount):
            return amount
        case Withdraw(amount=amount):
            return -amount
        case CaptureHold():
            return -entry.amount
        case Reverse(original=Original(counterparty_id=None, type=kind)):
            return -entry.amount if kind == "DEPOSIT" else entry.amount
    return NOTHING


def originals(command: Command, entries: Sequence[Entry]) -> Iterator[tuple[UUID, Original]]:
    """Yield each entry as an original that can be reversed, with its wallet."""
    for entry, other in zip(entries, reversed(entries), strict=True):
        is_of_two = entry is not other
        yield (
            entry.wallet_id,
            Original(
                id=entry.id,
                type=entry.type,
                amount=entry.amount,
                is_completed=True,
                counterparty_id=other.wallet_id if is_of_two else None,
                counterpart_id=other.id if is_of_two else None,
            ),
        )


@dataclass(frozen=True)
class RandomStep:
    """A random command. `pick` chooses among the holds or operations that exist by then."""

    kind: str
    wallet: int
    other: int
    amount: Decimal
    takes_all: bool
    pick: int
    lasts: int | None  # the life of a hold, in steps


def command_of(step: RandomStep, simulation: SimulatedWallets) -> Command | None:
    ids = list(simulation.books.wallets)
    wallet_id, other_id = ids[step.wallet], ids[step.other]
    amount = None if step.takes_all else step.amount
    match step.kind:
        case "DEPOSIT":
            return Deposit(wallet_id=wallet_id, amount=step.amount)
        case "WITHDRAW":
            return Withdraw(wallet_id=wallet_id, amount=step.amount)
        case "TRANSFER" if wallet_id != other_id:
            return MakeTransfer(wallet_id=wallet_id, target_id=other_id, amount=step.amount)
        case "HOLD":
            expires_at = None if step.lasts is None else simulation.now + timedelta(seconds=step.lasts)
            return PlaceHold(wallet_id=wallet_id, amount=step.amount, expires_at=expires_at)
        case "CAPTURE" | "VOID" if simulation.books.holds:
            hold = pick(list(simulation.books.holds.values()), step)
            if step.kind == "VOID":
                return VoidHold(wallet_id=hold.wallet_id, hold_id=hold.id)
            return CaptureHold(wallet_id=hold.wallet_id, hold_id=hold.id, amount=amount)
        case "REVERSAL" if simulation.originals:
            own_id, original = pick(simulation.originals, step)
            return Reverse(wallet_id=own_id, original=original, amount=amount)
        case "FREEZE" | "THAW":
            wallet = simulation.books.wallets[wallet_id]
            status = {"FREEZE": "FROZEN", "THAW": "ACTIVE"}[step.kind]
            simulation.books.wallets[wallet_id] = replace(wallet, status=status)
    return None


def pick(things: Sequence[Any], step: RandomStep) -> Any:
    """Choose one of the six newest, which gives many attempts at each."""
    newest = things[-6:]
    return newest[step.pick % len(newest)]


COMMANDS = ("DEPOSIT", "WITHDRAW", "TRANSFER", "HOLD", "CAPTURE", "VOID", "REVERSAL")
WALLETS = 4
random_steps = st.builds(
    RandomStep,
    # More commands than freezes: frozen wallets refuse most commands.
    kind=st.sampled_from((*COMMANDS * 4, "FREEZE", "THAW", "THAW", "THAW")),
    wallet=st.integers(0, WALLETS - 1),
    other=st.integers(0, WALLETS - 1),
    amount=st.decimals(min_value="0.01", max_value="120", places=2),
    takes_all=st.booleans(),
    pick=st.integers(0, 5),
    lasts=st.none() | st.integers(0, 10),
)
opened = st.builds(
    lambda overdraft, max_balance: {"overdraft_limit": overdraft, "max_balance": max_balance},
    st.just(NOTHING) | st.decimals(min_value=0, max_value=80, places=2),
    st.none() | st.decimals(min_value=100, max_value=400, places=2),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(opened, min_size=WALLETS, max_size=WALLETS), st.lists(random_steps, max_size=120))
def test_random_commands_keep_the_ledger_consistent(
    limits: list[dict[str, Any]], commands: list[RandomStep]
) -> None:
    empty = replace(WALLET, balance=NOTHING, held=NOTHING, sequence=0)
    ids = [UUID(int=n) for n in range(WALLETS)]
    currencies = ["EUR", "EUR", "EUR", "USD"]
    wallets = {
        id: replace(empty, id=id, currency=currency, **limit)
        for id, currency, limit in zip(ids, currencies, limits, strict=True)
    }
    simulation = SimulatedWallets(LedgerState(wallets, {}, {}))
    for step in commands:
        simulation.now += timedelta(seconds=1)
        if command := command_of(step, simulation):
            simulation.carry_out(command)
        simulation.assert_adds_up()


amounts = st.decimals(min_value="0.01", max_value="500", places=2)


@pytest.mark.parametrize("kind", ["WITHDRAW", "HOLD", "TRANSFER"])
@given(balance=amounts, held=amounts, overdraft=amounts, amount=amounts)
def test_money_is_taken_exactly_if_it_is_available(
    kind: str, balance: Decimal, held: Decimal, overdraft: Decimal, amount: Decimal
) -> None:
    own = {"balance": balance, "held": held, "overdraft_limit": overdraft}
    verdict = RuleCase(kind, str(amount), own=own).decide()
    assert isinstance(verdict, InsufficientFunds) is (amount > balance - held + overdraft)


@given(st.lists(amounts, min_size=1, max_size=20), amounts)
def test_partial_reversals_never_exceed_the_original(parts: list[Decimal], amount: Decimal) -> None:
    books = RuleCase("DEPOSIT", own={"balance": Decimal(1000)}).books
    original = Original(id=UUID(int=9), type="DEPOSIT", amount=amount, is_completed=True)
    left = amount
    for part in parts:
        command = Reverse(wallet_id=OWN, original=original, amount=part)
        decision = rules.decide(books, command, NOW)
        assert isinstance(decision, Problem) is (part > left)
        if isinstance(decision, Decision):
            books.apply(decision)
            left -= part
    rest = rules.decide(books, Reverse(wallet_id=OWN, original=original), NOW)
    if left:
        assert isinstance(rest, Decision)
        assert rest.entries[0].amount == left
    else:
        assert isinstance(rest, ReversalExceedsOriginal)

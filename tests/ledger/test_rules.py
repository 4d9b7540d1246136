"""The rules of money, without a database: a table in the order of the checks, and laws that always hold."""

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
    description="",
    created_at=EARLIER,
    ended_at=None,
)


@dataclass(frozen=True)
class Case:
    """A command and what it meets: two wallets with 60 of 100 available, a hold of 40, an original of 40."""

    kind: str
    amount: str | None = "40"
    expires_at: datetime | None = None
    reads_all: bool = True
    own: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)
    hold: dict[str, Any] = field(default_factory=dict)
    original: dict[str, Any] = field(default_factory=dict)
    reversed: str = "0"

    def with_(self, changes: dict[str, Any]) -> "Case":
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


def test_entries_agree_with_the_table_of_types() -> None:
    """Each type is that of an entry of some command here."""
    met = set()
    for kind in KINDS:
        case = Case(kind)
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


# --- The order --------------------------------------------------------------------------------------
# Every check in the documented order: its refusal, what makes it fail, and the commands that meet it.
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


def concerns(fault: dict[str, Any], kind: str, reads_all: bool) -> bool:
    """Whether the fault refuses such a command of a caller who may read every wallet, or only their own."""
    if reads_all or "reads_all" in fault:
        return not reads_all or "reads_all" not in fault
    is_of_target = bool(fault.get("other", {}).keys() & {"status", "max_balance"})
    return not (is_of_target and kind in PAYS_ANOTHER)


@pytest.mark.parametrize("reads_all", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_check_that_fails_is_the_verdict(kind: str, reads_all: bool) -> None:
    """With all that can be wrong with it wrong, then less and less from the first check on."""
    checks = [
        (problem, fault)
        for problem, fault, met_by in CHECKS
        if kind in met_by and concerns(fault, kind, reads_all)
    ]
    for number, (problem, _) in enumerate(checks):
        case = Case(kind) if reads_all else Case(kind).with_(HIDDEN)
        for _, fault in reversed(checks[number:]):
            case = case.with_(fault)
        assert type(case.decide()) is problem, checks[number]
    assert isinstance(Case(kind).decide(), Decision)


@pytest.mark.parametrize(
    ("kind", "problem", "fault"),
    [(kind, problem, fault) for problem, fault, met_by in CHECKS for kind in met_by],
)
def test_each_check_is_enough_to_refuse(kind: str, problem: type[Problem], fault: dict[str, Any]) -> None:
    assert type(Case(kind).with_(fault).decide()) is problem


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (kind, fault)
        for problem, fault, met_by in CHECKS
        for kind in KINDS
        if kind not in met_by and not (problem is TargetCannotReceive and kind in OF_TWO)  # it minds, seen
    ],
)
def test_no_command_minds_what_does_not_concern_it(kind: str, fault: dict[str, Any]) -> None:
    assert isinstance(Case(kind).with_(fault).decide(), Decision)


@pytest.mark.parametrize("kind", PAYS_ANOTHER)
@pytest.mark.parametrize(
    ("fault", "problem"),
    list(zip(TARGET_FAULTS, (BalanceLimitExceeded, WalletClosed, WalletFrozen), strict=True)),
)
def test_an_owner_of_both_wallets_learns_the_reason(
    kind: str, fault: dict[str, Any], problem: type[Problem]
) -> None:
    case = Case(kind, reads_all=False, other={"owner_id": OWNER} | fault)
    assert type(case.decide()) is problem


def test_the_table_has_the_checks_that_are_documented_in_their_order() -> None:
    documented = re.findall(r"^ *\d+\. .*?(\w+)(?: \(not recorded\))?$", rules.__doc__ or "", re.MULTILINE)
    tested = [problem.__name__ for problem, _, _ in CHECKS]
    assert list(dict.fromkeys(documented)) == list(dict.fromkeys(tested))


# --- The boundaries ---------------------------------------------------------------------------------
REFUSED_AT_THE_BOUNDARY: tuple[tuple[Case, type[Problem]], ...] = (
    (Case("DEPOSIT", "0.001"), ValidationError),
    (Case("DEPOSIT", "1.5", own={"currency": "JPY"}), ValidationError),
    (Case("TRANSFER", "1.2345", own={"currency": "KWD"}, other={"currency": "KWD"}), ValidationError),
    (Case("HOLD", expires_at=NOW), ValidationError),
    (Case("CAPTURE", hold={"expires_at": NOW}), HoldNotActive),
    (Case("VOID", hold={"expires_at": NOW}), HoldNotActive),
    *(
        (Case("CAPTURE", hold={"status": ended}), HoldNotActive)
        for ended in ("CAPTURED", "VOIDED", "EXPIRED")
    ),
    *((Case("VOID", hold={"status": ended}), HoldNotActive) for ended in ("CAPTURED", "VOIDED", "EXPIRED")),
    (Case("CAPTURE", "40.01"), HoldAmountExceeded),
    *(
        (Case("REVERSAL DEPOSIT", original={"type": kind}), OperationNotReversible)
        for kind in ("HOLD", "VOID", "REVERSAL_IN", "REVERSAL_OUT")
    ),
    (Case("REVERSAL WITHDRAW", "40.01"), ReversalExceedsOriginal),
    (Case("REVERSAL TRANSFER_OUT", "10.01", reversed="30"), ReversalExceedsOriginal),
    (Case("REVERSAL CAPTURE", None, reversed="40"), ReversalExceedsOriginal),
    (Case("WITHDRAW", "60.01"), InsufficientFunds),
    (Case("HOLD", "60.01"), InsufficientFunds),
    (Case("TRANSFER", "60.01"), InsufficientFunds),
    (Case("WITHDRAW", "110.01", own={"overdraft_limit": Decimal(50)}), InsufficientFunds),
    (Case("REVERSAL DEPOSIT", None, own={"held": Decimal("60.01")}), InsufficientFunds),
    (Case("REVERSAL TRANSFER_IN", None, own={"held": Decimal("60.01")}), InsufficientFunds),
    (Case("REVERSAL TRANSFER_OUT", None, other={"held": Decimal("60.01")}), InsufficientFunds),
    (Case("DEPOSIT", "50.01", own={"max_balance": Decimal(150)}), BalanceLimitExceeded),
    (Case("DEPOSIT", "0.01", own={"balance": money.MAX_BALANCE}), BalanceLimitExceeded),
    (Case("TRANSFER", "50.01", other={"max_balance": Decimal(150)}), BalanceLimitExceeded),
    (Case("REVERSAL WITHDRAW", None, own={"max_balance": Decimal("139.99")}), BalanceLimitExceeded),
    (Case("REVERSAL TRANSFER_IN", None, other={"max_balance": Decimal("139.99")}), BalanceLimitExceeded),
)


@pytest.mark.parametrize(("case", "problem"), REFUSED_AT_THE_BOUNDARY)
def test_past_its_boundary_a_command_is_refused(case: Case, problem: type[Problem]) -> None:
    assert type(case.decide()) is problem


# What a command leaves: of each wallet the type, sequence, balance and held of its entry.
@pytest.mark.parametrize(
    ("case", "entries"),
    [
        (Case("DEPOSIT", "0.01"), ["DEPOSIT 8 100.01 40"]),
        (Case("DEPOSIT", "50", own={"max_balance": Decimal(150)}), ["DEPOSIT 8 150 40"]),
        (Case("DEPOSIT", "1", own={"currency": "JPY"}), ["DEPOSIT 8 101 40"]),
        (Case("WITHDRAW", "60"), ["WITHDRAW 8 40 40"]),
        (Case("WITHDRAW", "110", own={"overdraft_limit": Decimal(50)}), ["WITHDRAW 8 -10 40"]),
        (Case("WITHDRAW", "60", own={"max_balance": Decimal(100)}), ["WITHDRAW 8 40 40"]),
        (Case("TRANSFER", "60"), ["TRANSFER_OUT 8 40 40", "TRANSFER_IN 8 160 40"]),
        (
            Case("TRANSFER", "50", other={"max_balance": Decimal(150), "sequence": 0, "held": NOTHING}),
            ["TRANSFER_OUT 8 50 40", "TRANSFER_IN 1 150 0"],
        ),
        (
            Case("TRANSFER", "0.001", own={"currency": "KWD"}, other={"currency": "KWD"}),
            ["TRANSFER_OUT 8 99.999 40", "TRANSFER_IN 8 100.001 40"],
        ),
        (Case("HOLD", "60"), ["HOLD None 100 100"]),
        (Case("HOLD", "60", expires_at=LATER), ["HOLD None 100 100"]),
        (Case("HOLD", "110", own={"overdraft_limit": Decimal(50)}), ["HOLD None 100 150"]),
        (Case("CAPTURE", None), ["CAPTURE 8 60 0"]),
        (Case("CAPTURE", "40", hold={"expires_at": LATER}), ["CAPTURE 8 60 0"]),
        (Case("CAPTURE", "0.01"), ["CAPTURE 8 99.99 0"]),
        # What is captured was set aside: that nothing else is available does not matter.
        (Case("CAPTURE", None, own={"balance": Decimal(40)}), ["CAPTURE 8 0 0"]),
        (Case("VOID"), ["VOID None 100 0"]),
        (Case("VOID", own={"status": "FROZEN"}, hold={"expires_at": LATER}), ["VOID None 100 0"]),
        (Case("REVERSAL DEPOSIT", None), ["REVERSAL_OUT 8 60 40"]),
        (Case("REVERSAL DEPOSIT", None, own={"balance": Decimal(80)}), ["REVERSAL_OUT 8 40 40"]),
        (Case("REVERSAL WITHDRAW", "0.01"), ["REVERSAL_IN 8 100.01 40"]),
        (Case("REVERSAL CAPTURE", None, reversed="39.99"), ["REVERSAL_IN 8 100.01 40"]),
        (
            Case("REVERSAL TRANSFER_OUT", "10", reversed="30"),
            ["REVERSAL_IN 8 110 40", "REVERSAL_OUT 8 90 40"],
        ),
        (Case("REVERSAL TRANSFER_IN", None), ["REVERSAL_OUT 8 60 40", "REVERSAL_IN 8 140 40"]),
        (
            Case("REVERSAL TRANSFER_IN", None, other={"max_balance": Decimal(140)}),
            ["REVERSAL_OUT 8 60 40", "REVERSAL_IN 8 140 40"],
        ),
    ],
)
def test_up_to_its_boundary_a_command_is_carried_out(case: Case, entries: list[str]) -> None:
    decision = case.decide()
    assert isinstance(decision, Decision), decision
    found = [f"{entry.type} {entry.sequence} {entry.balance} {entry.held}" for entry in decision.entries]
    assert found == entries


def test_the_sides_of_a_transfer_and_of_its_reversal_are_linked() -> None:
    transfer = Case("TRANSFER")
    command = transfer.command
    assert isinstance(command, MakeTransfer)
    decision = rules.decide(transfer.books, command, NOW)
    assert isinstance(decision, Decision)
    assert [(entry.id, entry.wallet_id) for entry in decision.entries] == [
        (command.id, OWN),
        (command.target_operation_id, OTHER),
    ]
    reversal = Case("REVERSAL TRANSFER_OUT").decide()
    assert isinstance(reversal, Decision)
    assert [(entry.wallet_id, entry.reverses_id) for entry in reversal.entries] == [
        (OWN, ORIGINAL),
        (OTHER, COUNTERPART),
    ]


def test_what_was_accepted_for_later_is_not_asked_again_for_its_form() -> None:
    command = Deposit(wallet_id=OWN, amount=Decimal("1.0000"), accepted_at=EARLIER)
    assert isinstance(rules.decide(Case("DEPOSIT").books, command, NOW), Decision)


def test_a_command_without_a_rule_is_a_fault_not_a_verdict() -> None:
    with pytest.raises(AssertionError, match="no amount"):
        rules.decide(Case("DEPOSIT").books, Command(wallet_id=OWN), NOW)


# --- The laws ---------------------------------------------------------------------------------------
@dataclass
class World:
    """Wallets of two currencies, and a ledger of our own to hold the books against."""

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
        assert sum(signed(entry) for entry in entries) == outside(command, entries[0])
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
            assert wallet.balance == sum(map(signed, moves)) == (moves[-1].balance if moves else 0)
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


def signed(entry: Entry) -> Decimal:
    if entry.sequence is None:
        return NOTHING
    return entry.amount if entry.type in ("DEPOSIT", "TRANSFER_IN", "REVERSAL_IN") else -entry.amount


def outside(command: Command, entry: Entry) -> Decimal:
    """What comes into all wallets together, from outside. Between two of them nothing does."""
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
    """What the entries are to whoever wants to reverse them, with the wallet of each."""
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
class Step:
    """One thing that happens. `pick` chooses among what there is by then: holds, operations."""

    kind: str
    wallet: int
    other: int
    amount: Decimal
    takes_all: bool
    pick: int
    lasts: int | None  # of a hold, how many steps


def command_of(step: Step, world: World) -> Command | None:
    ids = list(world.books.wallets)
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
            expires_at = None if step.lasts is None else world.now + timedelta(seconds=step.lasts)
            return PlaceHold(wallet_id=wallet_id, amount=step.amount, expires_at=expires_at)
        case "CAPTURE" | "VOID" if world.books.holds:
            hold = pick(list(world.books.holds.values()), step)
            if step.kind == "VOID":
                return VoidHold(wallet_id=hold.wallet_id, hold_id=hold.id)
            return CaptureHold(wallet_id=hold.wallet_id, hold_id=hold.id, amount=amount)
        case "REVERSAL" if world.originals:
            own_id, original = pick(world.originals, step)
            return Reverse(wallet_id=own_id, original=original, amount=amount)
        case "FREEZE" | "THAW":
            wallet = world.books.wallets[wallet_id]
            status = {"FREEZE": "FROZEN", "THAW": "ACTIVE"}[step.kind]
            world.books.wallets[wallet_id] = replace(wallet, status=status)
    return None


def pick(things: Sequence[Any], step: Step) -> Any:
    """Of the newest: so that there are many attempts at one."""
    newest = things[-6:]
    return newest[step.pick % len(newest)]


COMMANDS = ("DEPOSIT", "WITHDRAW", "TRANSFER", "HOLD", "CAPTURE", "VOID", "REVERSAL")
WALLETS = 4
steps = st.builds(
    Step,
    # Commands several times over: a world that is mostly frozen shows little.
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
@given(st.lists(opened, min_size=WALLETS, max_size=WALLETS), st.lists(steps, max_size=120))
def test_whatever_is_asked_the_books_add_up(limits: list[dict[str, Any]], asked: list[Step]) -> None:
    empty = replace(WALLET, balance=NOTHING, held=NOTHING, sequence=0)
    ids = [UUID(int=n) for n in range(WALLETS)]
    currencies = ["EUR", "EUR", "EUR", "USD"]
    wallets = {
        id: replace(empty, id=id, currency=currency, **limit)
        for id, currency, limit in zip(ids, currencies, limits, strict=True)
    }
    world = World(LedgerState(wallets, {}, {}))
    for step in asked:
        world.now += timedelta(seconds=1)
        if command := command_of(step, world):
            world.carry_out(command)
        world.assert_adds_up()


amounts = st.decimals(min_value="0.01", max_value="500", places=2)


@pytest.mark.parametrize("kind", ["WITHDRAW", "HOLD", "TRANSFER"])
@given(balance=amounts, held=amounts, overdraft=amounts, amount=amounts)
def test_money_leaves_or_is_held_exactly_when_it_is_available(
    kind: str, balance: Decimal, held: Decimal, overdraft: Decimal, amount: Decimal
) -> None:
    own = {"balance": balance, "held": held, "overdraft_limit": overdraft}
    verdict = Case(kind, str(amount), own=own).decide()
    assert isinstance(verdict, InsufficientFunds) is (amount > balance - held + overdraft)


@given(st.lists(amounts, min_size=1, max_size=20), amounts)
def test_parts_are_reversed_until_nothing_is_left(parts: list[Decimal], amount: Decimal) -> None:
    books = Case("DEPOSIT", own={"balance": Decimal(1000)}).books
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

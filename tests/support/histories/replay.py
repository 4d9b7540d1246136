"""Replays the committed history of each wallet from its opening, with the state at each position.

The place of an operation or change in its wallet's history is its
position: 0 is the opening. `states[n]` is the wallet after position n.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import takewhile
from typing import NamedTuple

from tests.support.histories import rules
from tests.support.histories.findings import Findings
from tests.support.histories.ledger import Change, Hold, Ledger, Operation, Wallet
from tests.support.histories.rules import NOTHING, Past

# A batch is decided at one time, and its operations get times a microsecond apart. So an operation can be
# slightly later than the state of the holds and other wallets that it was decided on.
MAX_BATCH_SPAN = timedelta(milliseconds=5)


class Expiring(NamedTuple):
    expires_at: datetime
    hold_id: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class State:
    """A wallet after one of its operations or changes."""

    at: datetime
    balance: Decimal = NOTHING
    sequence: int = 0
    status: str = "ACTIVE"
    label: str = ""
    set_aside: Decimal = NOTHING  # by all holds without a capture or void
    expiring: tuple[Expiring, ...] = ()  # these holds with an expiry, in its order

    def held(self, at: datetime) -> Decimal:
        return self.set_aside - sum((hold.amount for hold in self._expired(at)), NOTHING)

    def held_between(self, begin: datetime, end: datetime) -> set[Decimal]:
        """Return the possible held amounts during this time; a hold releases its amount when it expires."""
        moments = [hold.expires_at for hold in self._expired(end) if begin < hold.expires_at]
        return {self.held(moment) for moment in (begin, *moments)}

    def may_be_empty(self, begin: datetime, end: datetime) -> set[bool]:
        """Return whether the wallet can be empty and non-empty during this time."""
        return {not self.balance and not held for held in self.held_between(begin, end)}

    def _expired(self, at: datetime) -> Iterator[Expiring]:
        return takewhile(lambda hold: hold.expires_at <= at, self.expiring)

    def without_expired(self, at: datetime) -> "State":
        expired = list(self._expired(at))
        if not expired:
            return self
        set_aside = self.set_aside - sum((hold.amount for hold in expired), NOTHING)
        return replace(self, set_aside=set_aside, expiring=self.expiring[len(expired) :])


@dataclass(slots=True)
class Story:
    """The history of one wallet from its opening."""

    wallet: Wallet
    events: list[Operation | Change]  # event n has position n + 1
    states: list[State] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)  # of the states
    holds: dict[str, Hold] = field(default_factory=dict)
    placed: dict[str, Operation] = field(default_factory=dict)
    ended: dict[str, Operation] = field(default_factory=dict)
    expiries: set[datetime] = field(default_factory=set)

    def last_before(self, at: datetime) -> int:
        """Return the last position before this time."""
        return bisect_left(self.times, at) - 1

    def last_until(self, at: datetime) -> int:
        return bisect_right(self.times, at) - 1


class Replay:
    """Replays all wallets of a ledger and reports each step that does not follow from the state before."""

    def __init__(self, ledger: Ledger, findings: Findings) -> None:
        self._found = findings.add
        self.stories = {wallet.id: Story(wallet, []) for wallet in ledger.wallets}
        self.operations = {operation.id: operation for operation in ledger.operations}
        self.positions: dict[str, int] = {}  # by the id of the operation or change
        self.counterparts = {
            operation.transfer_id: operation
            for operation in ledger.operations
            if operation.transfer_id and not operation.is_own
        }
        self.pasts: dict[str, Past] = {}
        self._taken_back: dict[str, Decimal] = defaultdict(Decimal)
        self._sort(ledger)
        for story in self.stories.values():
            self._replay_story(story)

    def _sort(self, ledger: Ledger) -> None:
        for hold in ledger.holds:
            self.stories[hold.wallet_id].holds[hold.id] = hold
        events: list[Operation | Change] = [*ledger.operations]
        events += [change for change in ledger.changes if change.type == "CHANGED"]
        for event in sorted(events, key=lambda event: event.created_at):
            self.stories[event.wallet_id].events.append(event)
        noted: dict[str, list[Change]] = defaultdict(list)
        for change in ledger.changes:
            if change.type == "HOLD_EXPIRED":
                noted[change.changes["hold_id"]].append(change)
        for hold in ledger.holds:
            times = [change.created_at for change in noted.pop(hold.id, [])]
            if times != ([hold.expires_at] if hold.status == "EXPIRED" else []):
                self._found("holds", hold.wallet_id, f"its expiry was written down at {times}", hold)
        for changes in noted.values():
            self._found("holds", changes[0].wallet_id, "what expired is no hold", *changes)

    # --- Steps --------------------------------------------------------------------------------------
    def _replay_story(self, story: Story) -> None:
        wallet = story.wallet
        opened = next((event for event in story.events[:1] if event.created_at <= wallet.created_at), None)
        if opened:
            self._found("time", wallet.id, "something happened before it was opened", opened)
        state = State(wallet.created_at, label=_first_label(story))
        story.states.append(state)
        story.times.append(state.at)
        for position, event in enumerate(story.events, 1):
            if event.created_at <= state.at:
                self._found("time", wallet.id, "time does not rise from one to the next", event)
            self.positions[event.id] = position
            state = self._change(state, event) if isinstance(event, Change) else self._do(story, state, event)
            story.states.append(state)
            story.times.append(state.at)
        self._expect_end(story, state)

    def _change(self, state: State, change: Change) -> State:
        """Apply the change, whose `changes` have the old and the new values."""
        status = change.changes.get("status", (None, None))[1]
        reasons = {
            rules.refusal_of_change(state.status, is_empty, status)
            for is_empty in state.may_be_empty(change.created_at - MAX_BATCH_SPAN, change.created_at)
        }
        if None not in reasons:
            self._found("verdict", change.wallet_id, f"by the rules {' or '.join(map(str, reasons))}", change)
        for name, (old, new) in change.changes.items():
            if name in ("label", "status"):
                if getattr(state, name) != old:
                    was = getattr(state, name)
                    self._found("wallet", change.wallet_id, f"its {name} was {was!r}, not {old!r}", change)
                state = replace(state, **{name: new})
        return replace(state, at=change.created_at)

    def _do(self, story: Story, state: State, operation: Operation) -> State:
        at = operation.created_at
        self.pasts[operation.id] = self._past(story, operation)
        state = replace(state.without_expired(at - MAX_BATCH_SPAN), at=at)
        if not operation.is_completed:
            if operation.sequence is not None or operation.balance_after is not None:
                self._found("balance", operation.wallet_id, "it was refused, but has a balance", operation)
            return state
        if operation.reverses_id:
            self._taken_back[operation.reverses_id] += operation.amount
        state = self._hold(story, state, operation)
        if not rules.SIGNS[operation.type]:
            return state
        expected = rules.moved(operation, state.balance, state.sequence)
        if operation != expected:
            detail = f"number {expected.sequence} would leave {expected.balance_after}"
            self._found("balance", operation.wallet_id, detail, operation)
        # The replay continues from the stored balance, so a wrong balance is reported once.
        balance, sequence = operation.balance_after, operation.sequence
        return replace(
            state,
            balance=state.balance if balance is None else balance,
            sequence=state.sequence if sequence is None else sequence,
        )

    def _past(self, story: Story, operation: Operation) -> Past:
        hold_id, original = operation.hold_id, self.operations.get(operation.reverses_id or "")
        if hold_id and operation.type in ("CAPTURE", "VOID"):
            placed = story.placed.get(hold_id)
            if placed is None:
                return Past()
            is_ended = hold_id in story.ended
            return rules.past_of_hold(placed.amount, placed.expires_at, is_ended, operation.created_at)
        if original and self.positions.get(original.id):
            return rules.past_of_original(original, self._taken_back[original.id])
        return Past()

    def _hold(self, story: Story, state: State, operation: Operation) -> State:
        if operation.type == "HOLD":
            story.placed[operation.id] = operation
            state = replace(state, set_aside=state.set_aside + operation.amount)
            if operation.expires_at is None:
                return state
            story.expiries.add(operation.expires_at)
            new = Expiring(operation.expires_at, operation.id, operation.amount)
            return replace(state, expiring=tuple(sorted((*state.expiring, new))))
        if operation.type in ("CAPTURE", "VOID") and operation.hold_id:
            placed = story.placed.get(operation.hold_id)
            if placed is None or operation.hold_id in story.ended:
                return state  # the verdict reports this
            story.ended[operation.hold_id] = operation
            left = tuple(hold for hold in state.expiring if hold.hold_id != operation.hold_id)
            if placed.expires_at is not None and len(left) == len(state.expiring):
                return state  # the hold has expired
            return replace(state, set_aside=state.set_aside - placed.amount, expiring=left)
        return state

    # --- Final state --------------------------------------------------------------------------------
    def _expect_end(self, story: Story, state: State) -> None:
        wallet = story.wallet
        for name in ("balance", "sequence", "status", "label"):
            if getattr(wallet, name) != getattr(state, name):
                detail = f"its {name} is {getattr(wallet, name)!r}, by its history {getattr(state, name)!r}"
                self._found("wallet", wallet.id, detail)
        held = sum((hold.amount for hold in story.holds.values() if hold.status == "ACTIVE"), NOTHING)
        if wallet.held != held:
            self._found("wallet", wallet.id, f"it holds {wallet.held}, its holds {held}")
        if wallet.updated_at != state.at and wallet.updated_at not in story.expiries:
            self._found("wallet", wallet.id, f"it was changed at {wallet.updated_at}, not at {state.at}")
        for hold in story.holds.values():
            if hold.id not in story.placed:
                self._found("holds", wallet.id, "no operation placed it", hold)
        for placed in story.placed.values():
            hold_row = story.holds.get(placed.id)
            if hold_row is None:
                self._found("holds", wallet.id, "it was placed and is not there", placed)
            else:
                self._expect_hold(placed, story.ended.get(placed.id), hold_row)

    def _expect_hold(self, placed: Operation, end: Operation | None, hold: Hold) -> None:
        expected = rules.placed(placed)
        if end is not None:
            expected = rules.ended(expected, end)
        elif hold.status == "EXPIRED":
            expected = rules.expired(expected)
        if hold != expected:
            self._found("holds", hold.wallet_id, f"by its history it is {expected}", hold)


def _first_label(story: Story) -> str:
    """Return the label at the opening: the old value of its first change, or the current label."""
    for event in story.events:
        if isinstance(event, Change) and "label" in event.changes:
            return str(event.changes["label"][0])
    return story.wallet.label

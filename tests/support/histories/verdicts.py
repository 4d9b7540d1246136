"""Checks each operation against the rules, given the state that it was decided on."""

from collections.abc import Iterator, Mapping, Sequence

from tests.support.histories.commands import Form
from tests.support.histories.findings import Findings
from tests.support.histories.ledger import Operation, Wallet
from tests.support.histories.replay import MAX_BATCH_SPAN, Replay, State
from tests.support.histories.rules import OPPOSITES, SIGNS, Side, refusal, rest


class Verdicts:
    def __init__(self, replay: Replay, before: Mapping[str, Sequence[Form]], findings: Findings) -> None:
        """Judge the refusals of a replay.

        `before` maps each operation that an atomic bulk refused to the earlier forms of the bulk: the
        operation was decided as if these had been executed.
        """
        self._replay = replay
        self._before = before
        self._found = findings.add

    def judge(self) -> None:
        for operation in self._replay.operations.values():
            if operation.is_own:
                self._expect_verdict(operation)
            if operation.transfer_id and operation.is_completed:
                self._expect_both_sides(operation, operation.transfer_id)

    def _expect_verdict(self, operation: Operation) -> None:
        past = self._replay.pasts[operation.id]
        verdicts = {
            refusal(operation, past, mine, theirs)
            for mine in self._own_sides(operation)
            for theirs in self._other_sides(operation)
        }
        if operation.reason not in verdicts:
            actual = operation.reason or "completed"
            expected = " or ".join(str(verdict or "completed") for verdict in verdicts)
            self._found("verdict", operation.wallet_id, f"{actual}, but by the rules {expected}", operation)
        if operation.is_completed and operation.takes_rest and operation.amount != rest(operation, past):
            self._found(
                "verdict", operation.wallet_id, f"{rest(operation, past)} was left to take", operation
            )

    def _own_sides(self, operation: Operation) -> Iterator[Side]:
        story = self._replay.stories[operation.wallet_id]
        state = story.states[self._replay.positions[operation.id] - 1]
        return self._sides(story.wallet, state, operation)

    def _other_sides(self, operation: Operation) -> Iterator[Side | None]:
        """Return the states of the second wallet. A refusal leaves no entry there, so its time is vague."""
        story = self._replay.stories.get(operation.counterparty_id or "")
        if story is None:
            yield None
            return
        at = operation.created_at
        counterpart = self._replay.counterparts.get(operation.id)
        if counterpart:
            first = last = self._replay.positions[counterpart.id] - 1
        else:
            last = max(0, story.last_before(at))
            first = max(0, story.last_until(at - MAX_BATCH_SPAN))
        for state in story.states[first : last + 1]:
            yield from self._sides(story.wallet, state, operation)

    def _sides(self, wallet: Wallet, state: State, operation: Operation) -> Iterator[Side]:
        balance = state.balance
        for form in self._before.get(operation.id, ()):
            if form.wallet_id == wallet.id:
                balance += SIGNS[form.type] * (form.amount or 0)
            if form.counterparty_id == wallet.id:
                balance -= SIGNS[form.type] * (form.amount or 0)
        for held in state.held_between(operation.created_at - MAX_BATCH_SPAN, operation.created_at):
            yield Side(wallet, state.status, balance, held)

    def _expect_both_sides(self, operation: Operation, transfer_id: str) -> None:
        own = self._replay.operations.get(transfer_id)
        other = self._replay.counterparts.get(transfer_id)
        if own is None or other is None:
            self._found("half a transfer", operation.wallet_id, "the other side is missing", operation)
        elif operation is other and not self._mirror(own, other):
            self._found("half a transfer", operation.wallet_id, "the sides differ", own, other)

    def _mirror(self, own: Operation, other: Operation) -> bool:
        here = self._replay.operations.get(own.reverses_id or "")
        there = self._replay.operations.get(other.reverses_id or "")
        return (
            (other.wallet_id, other.counterparty_id) == (own.counterparty_id, own.wallet_id)
            and (other.amount, other.created_at, other.status) == (own.amount, own.created_at, own.status)
            and other.type == OPPOSITES.get(own.type)
            and (here and here.transfer_id) == (there and there.transfer_id)
        )

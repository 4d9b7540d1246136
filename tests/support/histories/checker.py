"""Decides whether the responses to clients and the committed ledger form one consistent history.

The order of the ledger is checked. Each step of a wallet has to follow from its previous state (replay.py,
verdicts.py). Each answered command exists exactly once, as answered, and there is nothing else (matching.py).
The order respects real time: a request answered before another was sent comes first, and reads show a state
that was current during the read (reads.py).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from tests.support.histories import bodies
from tests.support.histories.commands import Command, Fate, Form, Reader, form_of
from tests.support.histories.findings import Findings, Rule, Violation
from tests.support.histories.journal import NEVER, Call, History
from tests.support.histories.ledger import Change, Ledger, Operation
from tests.support.histories.matching import (
    Bulk,
    Group,
    SharedKey,
    bulks_of,
    groups_of,
    is_alike,
    is_by_another,
    match,
    shared_keys_of,
)
from tests.support.histories.reads import MAX_CLOCK_DIFFERENCE, Impossible, Reads
from tests.support.histories.replay import Replay
from tests.support.histories.rules import fits, refusal_of_change
from tests.support.histories.verdicts import Verdicts


def check(history: History, ledger: Ledger) -> list[Violation]:
    """Return all violations, or none if the responses and the ledger are one history."""
    return _Check(history, ledger).run()


@dataclass(frozen=True, slots=True)
class Fact:
    """A write or a read of a wallet between two times.

    A write has one position. The state that was read is that of some position from `first` to `last`.
    """

    began: float
    ended: float
    first: int
    last: int
    is_read: bool
    source: object


class _Check:
    def __init__(self, history: History, ledger: Ledger) -> None:
        self.history = history
        self.findings = Findings()
        self.replay = Replay(ledger, self.findings)
        self.reads = Reads(history, self.replay, {row.id: row for row in ledger.inbox})
        self.ledger = ledger
        self.facts: dict[str, list[Fact]] = defaultdict(list)  # by wallet
        self.acceptances: dict[str, list[Fact]] = defaultdict(list)
        self.exists_since: dict[
            str, float
        ] = {}  # the time of the first response, by the id of a wallet, operation or hold
        self.done_since: dict[str, float] = {}
        self.began: dict[str, float] = {}  # the earliest time of each operation
        self.wallets_of_id = _wallets_of_id(ledger)
        self.shared_keys: dict[str, SharedKey] = {}

    def run(self) -> list[Violation]:
        if any(len(wallets) > 1 for wallets in self.wallets_of_id.values()):
            return self._duplicate_ids()  # the other checks assume unique ids
        reader = Reader({hold.id: hold for hold in self.ledger.holds}, self.replay.operations)
        groups = groups_of(command for call in self.history for command in reader.commands(call))
        match(groups, self.ledger, self.findings)
        bulks = bulks_of(groups)
        self.shared_keys = shared_keys_of(bulks)
        self._expect_openings()
        self._expect_one_bulk_of_each_key()
        for group in groups:
            self._expect_as_answered(group)
            self._note(group)
        for call, bulk in bulks:
            self._expect_whole(call, bulk)
        self._expect_changes()
        Verdicts(self.replay, dict(_decided_together(bulks)), self.findings).judge()
        for call in self.history:
            self._expect_possible(call)
        for call in self.history:
            if call.outcome == 409 and call.request.method == "PATCH":
                self._expect_refused_change(call)
        for group in groups:
            for command in group.commands:
                self._expect_right_refusal(group, command)
        self._expect_order()
        return self.findings

    # --- Responses and operations -------------------------------------------------------------------
    def _expect_as_answered(self, group: Group) -> None:
        settled, row = group.settled, group.row
        if row is None:
            if settled:
                wallet_id = settled[0].form.wallet_id if settled[0].form else ""
                self.findings.add("lost", wallet_id, "it was answered and is not there", *settled)
            return
        if group.is_refused:
            self.findings.add("refused, but applied", row.wallet_id, "", *group.commands, row)
        alike = [command for command in group.commands if command.form == form_of(row)]
        if not alike or any(command.form != form_of(row) for command in settled):
            self.findings.add(
                "not as answered", row.wallet_id, "the request was different", *group.commands, row
            )
        if not settled:
            return
        counterpart = self.replay.counterparts.get(row.id)
        if different := list(bodies.answer(settled[0], row, counterpart)):
            self.findings.add("not as answered", row.wallet_id, "; ".join(different), settled[0], row)
        for first, again in pairwise(settled):
            if first.result.comparable != again.result.comparable:
                self.findings.add("another answer", row.wallet_id, "to a repeat", first, again)
        if sum(not command.result.is_replay for command in settled) > 1:
            self.findings.add("another answer", row.wallet_id, "as if it were new, twice", *settled)

    def _expect_whole(self, call: Call, bulk: Bulk) -> None:
        rows = [
            None if call.outcome != 200 and is_by_another(command, group) else group.row
            for command, group in bulk
        ]
        shared = self.shared_keys.get(call.request.key or "")
        if bulk[0][0].is_atomic and (shared is None or shared.is_first(call)) and not _is_whole(rows):
            done = sum(row is not None and row.is_completed for row in rows)
            self.findings.add("half a bulk", "", f"{done} of {len(rows)} were carried out", call)
        last: dict[str, int] = {}
        for command, group in bulk:
            if group.row is None or command.result.is_replay or command.result.fate is not Fate.SETTLED:
                continue
            position = self.replay.positions.get(group.row.id, 0)
            if position and position < last.get(group.row.wallet_id, 0):
                self.findings.add("order", group.row.wallet_id, "of a bulk", command, group.row)
            last[group.row.wallet_id] = position

    def _duplicate_ids(self) -> Findings:
        found = Findings()
        for id, wallets in self.wallets_of_id.items():
            if len(wallets) > 1:
                rows = [row for row in (*self.ledger.operations, *self.ledger.inbox) if row.id == id]
                found.add("id of two operations", wallets[0], id, *rows)
        return found

    def _expect_one_bulk_of_each_key(self) -> None:
        for key, shared in self.shared_keys.items():
            calls = shared.carried_out
            if not all(is_alike(calls[0], call) for call in calls):
                self.findings.add("key of two bulks", "", key, *calls)

    # --- Order --------------------------------------------------------------------------------------
    def _note(self, group: Group) -> None:
        row = group.row
        if row is None or group.is_refused:
            return
        self.exists_since[row.id] = group.accepted
        self.began[row.id] = group.began
        sides = [row]
        if row.is_completed and (counterpart := self.replay.counterparts.get(row.id)):
            sides.append(counterpart)
        for side in sides:
            self.done_since[side.id] = group.ended
            position = self.replay.positions.get(side.id)
            if position is not None:  # None: it is still in the inbox
                fact = Fact(group.began, group.ended, position, position, False, row)
                self.facts[side.wallet_id].append(fact)
                if row.accepted_at is not None:
                    fact = Fact(group.began, group.accepted, position, position, False, row)
                    self.acceptances[side.wallet_id].append(fact)

    def _expect_order(self) -> None:
        for wallet_id, facts in self.facts.items():
            self._expect_real_time(wallet_id, facts, "order")
        for wallet_id, facts in self.acceptances.items():
            self._expect_real_time(wallet_id, facts, "order of acceptance")
        for story in self.replay.stories.values():
            rows = [event for event in story.events if isinstance(event, Operation) and event.accepted_at]
            for earlier, later in pairwise(rows):
                assert earlier.accepted_at
                assert later.accepted_at
                if earlier.accepted_at > later.accepted_at:
                    self.findings.add(
                        "order of acceptance", story.wallet.id, "the later first", earlier, later
                    )

    def _expect_real_time(self, wallet_id: str, facts: Sequence[Fact], rule: Rule) -> None:
        """Check that a request sees every position that was known to a client before the request began."""
        begins = [(fact.began, False, number) for number, fact in enumerate(facts)]
        ends = [(fact.ended, True, number) for number, fact in enumerate(facts) if fact.ended < NEVER]
        known, by = -1, None
        for _, is_end, number in sorted(begins + ends):
            fact = facts[number]
            if is_end and fact.first > known:
                known, by = fact.first, fact
            elif not is_end and fact.is_read and fact.last < known:
                detail = f"position {known} was known before, it shows {fact.last}"
                self.findings.add("stale read", wallet_id, detail, fact.source, by and by.source)
            elif not is_end and not fact.is_read and fact.first <= known:
                detail = f"position {known} was known before the request, it has position {fact.first}"
                self.findings.add(rule, wallet_id, detail, fact.source, by and by.source)

    # --- Wallets ------------------------------------------------------------------------------------
    def _expect_openings(self) -> None:
        for call in self.history:
            if call.request.method != "POST" or call.request.path != "/wallets":
                continue
            body = call.request.body or {}
            story = self.replay.stories.get(body["id"])
            if call.outcome == 201:
                self.exists_since[body["id"]] = min(call.ended, self.exists_since.get(body["id"], NEVER))
            if story is None:
                if call.outcome == 201:
                    self.findings.add("lost", body["id"], "the wallet was opened and is not there", call)
                continue
            maximum = body.get("maxBalance")
            requested = (
                body.get("currency", "RUB"),
                Decimal(body.get("overdraftLimit", 0)),
                maximum and Decimal(maximum),
            )
            wallet = story.wallet
            if (wallet.currency, wallet.overdraft_limit, wallet.max_balance) != requested:
                self.findings.add("not as answered", wallet.id, "the request was different", call, wallet)

    def _expect_changes(self) -> None:
        """Match the changes of wallets by their unique labels."""
        changes = {
            change.changes["label"][1]: change
            for change in self.ledger.changes
            if change.type == "CHANGED" and "label" in change.changes
        }
        for call in self.history:
            if call.request.method != "PATCH":
                continue
            body = call.request.body or {}
            change = changes.pop(body["label"], None)
            if change is None:
                if call.outcome == 200:
                    self.findings.add("lost", _named(call), "the change is not there", call)
                continue
            if not call.may_have_happened and call.outcome != 200:
                self.findings.add("refused, but applied", change.wallet_id, "", call, change)
            self._expect_change(call, change)
        for change in changes.values():
            self.findings.add("unrequested", change.wallet_id, "no request is like it", change)

    def _expect_change(self, call: Call, change: Change) -> None:
        position = self.replay.positions[change.id]
        status = (call.request.body or {}).get("status")
        after = self.replay.stories[change.wallet_id].states[position]
        if change.wallet_id != _named(call) or status not in (None, after.status):
            self.findings.add("not as answered", change.wallet_id, "the request was different", call, change)
        self.facts[change.wallet_id].append(Fact(call.began, call.ended, position, position, False, change))

    def _expect_refused_change(self, call: Call) -> None:
        """Check that the rules refuse the change in a state of the wallet during the request."""
        assert call.answer
        wallet_id, new_status = _named(call), (call.request.body or {}).get("status")
        facts, states = self.facts[wallet_id], self.replay.stories[wallet_id].states
        first = max((fact.first for fact in facts if fact.ended < call.began), default=0)
        after = [fact.first for fact in facts if not fact.is_read and fact.began > call.ended]
        end = self.history.moment(call.ended) + MAX_CLOCK_DIFFERENCE
        reasons = {
            refusal_of_change(state.status, is_empty, new_status)
            for state in states[first : min(after, default=len(states))]
            for is_empty in state.may_be_empty(state.at, max(state.at, end))
        }
        if call.answer.json["code"] not in reasons:
            self.findings.add("wrong refusal", wallet_id, f"by the rules {reasons}", call)

    # --- Responses without a record -----------------------------------------------------------------
    def _expect_possible(self, call: Call) -> None:
        """Check a read, and that no response is a server error."""
        if call.answer is None or call.outcome in (429, 503):
            return
        if call.answer.status >= 500:
            self.findings.add("server error", _named(call), "clients must not get server errors", call)
        elif call.outcome == 200 and call.request.method in ("GET", "PATCH"):
            self._see(call)
        elif call.request.method == "GET":
            self._expect_unknown(call)

    def _see(self, call: Call) -> None:
        assert call.answer
        try:
            is_change = call.request.method == "PATCH"
            seen = self.reads.wallet(call, call.answer.json) if is_change else self.reads.seen(call)
        except Impossible as error:
            self.findings.add("impossible read", _named(call), str(error), call)
        else:
            if seen is not None:
                fact = Fact(call.began, call.ended, seen.first, seen.last, True, call)
                self.facts[seen.wallet_id].append(fact)

    def _expect_unknown(self, call: Call) -> None:
        """Check that the object of a 404 response was not known before the request."""
        if call.outcome != 404:
            self.findings.add("wrong refusal", _named(call), "of a read", call)
        elif self.exists_since.get(_named(call), NEVER) < call.began:
            self.findings.add("stale read", _named(call), "it was known to be there", call)

    def _expect_right_refusal(self, group: Group, command: Command) -> None:
        if (
            command.result.fate is Fate.REFUSED
            and command.result.status
            and not self._is_right(group, command)
        ):
            wallet_id = command.form.wallet_id if command.form else ""
            self.findings.add("wrong refusal", wallet_id, str(command.result.body.get("code")), command)

    def _is_right(self, group: Group, command: Command) -> bool:
        form, began = command.form, command.call.began
        match command.result.body["code"]:
            case "too_many_requests":
                return True
            case "hold_not_found" | "operation_not_found":
                return self.done_since.get(_named(command.call), NEVER) >= began
            case "wallet_not_found" if form:
                wallets = [id for id in (form.wallet_id, form.counterparty_id) if id]
                return any(self.exists_since.get(id, NEVER) >= began for id in wallets)
            case "idempotency_key_reused":
                return self._is_reused(group, command)
            case "validation_error" if form:
                return not self._fits(command) or (
                    form.expires_at is not None
                    and form.expires_at <= self.history.moment(command.call.ended) + MAX_CLOCK_DIFFERENCE
                )
        return False

    def _is_reused(self, group: Group, command: Command) -> bool:
        """Return whether the id names an operation of another wallet, or the key a different request."""
        if self._is_used_elsewhere(command):
            return True
        shared = self.shared_keys.get(command.call.request.key or "")
        if shared and command.call.outcome == 422:
            others = [call for call, _ in shared.bulks if not is_alike(call, command.call)]
            return any(map(shared.may_be_first, others))
        if any(other.call is command.call and other.form != command.form for other in group.commands):
            return True  # by an earlier item of the same bulk
        is_another = group.row is not None and form_of(group.row) != command.form
        return is_another and group.began <= command.call.ended

    def _is_used_elsewhere(self, command: Command) -> bool:
        id = command.key or ""
        wallets = self.wallets_of_id.get(id)
        is_elsewhere = wallets and command.form and command.form.wallet_id not in wallets
        return bool(is_elsewhere) and self.began.get(id, NEVER) <= command.call.ended

    def _fits(self, command: Command) -> bool:
        """Return whether the amount has at most the digits of the currency, except zeros at the end."""
        form = command.form
        story = self.replay.stories.get(form.wallet_id) if form else None
        if story is None or form is None or form.amount is None:
            return True
        return fits(form.amount, story.wallet.currency)


def _wallets_of_id(ledger: Ledger) -> dict[str, list[str]]:
    """Return by id the wallets whose operations have it; a valid ledger has one for each id."""
    wallets = defaultdict(list)
    for row in (*ledger.operations, *ledger.inbox):
        wallets[row.id].append(row.wallet_id)
    return dict(wallets)


def _is_refused_at_once(row: Operation) -> bool:
    return row.status == "REJECTED" and row.accepted_at is None


def _named(call: Call) -> str:
    """Return the id of the wallet, operation or hold in the path."""
    return (*call.request.path.split("?")[0].split("/"), "")[2]


def _is_whole(rows: Sequence[Operation | None]) -> bool:
    """Return whether all items were carried out, or none with one refusal; accepted: all or none."""
    there = [row for row in rows if row is not None]
    if any(row.accepted_at for row in there):
        return len(there) == len(rows)
    done = [row for row in there if row.is_completed]
    return len(done) == len(rows) or (not done and len({row.id for row in there}) <= 1)


def _decided_together(bulks: Sequence[tuple[Call, Bulk]]) -> Iterator[tuple[str, list[Form]]]:
    """Yield the id of each operation refused in an atomic bulk, with the forms of the earlier items.

    An earlier item that was a replay is left out, because it was not carried out again.
    """
    for _, bulk in bulks:
        for number, (command, group) in enumerate(bulk):
            row = group.row
            if row is None or not command.is_atomic or is_by_another(command, group):
                continue
            if command.form == form_of(row) and _is_refused_at_once(row):
                before = [(other.form, its.row) for other, its in bulk[:number]]
                yield row.id, [form for form, done in before if form and not (done and done.is_completed)]

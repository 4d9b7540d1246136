"""Match each command with its operation. Every operation must belong to a command."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.support.histories.commands import Command, Fate, Form, form_of
from tests.support.histories.findings import Findings
from tests.support.histories.journal import NEVER, Call, NotReached
from tests.support.histories.ledger import Ledger, Operation


@dataclass(slots=True, eq=False)
class Group:
    """All sendings of one command: the commands with one wallet and key, or one command without a key."""

    commands: list[Command] = field(default_factory=list)
    row: Operation | None = None

    @property
    def settled(self) -> list[Command]:
        return [command for command in self.commands if command.result.fate is Fate.SETTLED]

    @property
    def is_refused(self) -> bool:
        return all(command.result.fate is Fate.REFUSED for command in self.commands)

    @property
    def began(self) -> float:
        """Return the earliest time at which it can have been carried out."""
        as_new = [command for command in self.settled if not command.result.is_replay]
        possible = as_new or [command for command in self.commands if command.result.fate is not Fate.REFUSED]
        return min((command.call.began for command in possible), default=NEVER)

    @property
    def ended(self) -> float:
        """Return the time by which it was carried out."""
        return min(
            (command.call.ended for command in self.settled if command.result.status != 202), default=NEVER
        )

    @property
    def accepted(self) -> float:
        """Return the time by which it was carried out or in the inbox."""
        return min((command.call.ended for command in self.settled), default=NEVER)


def groups_of(commands: Iterable[Command]) -> list[Group]:
    by_key: dict[tuple[str, str], Group] = {}
    groups = []
    for command in commands:
        if command.key is None or command.form is None:
            groups.append(Group([command]))
            continue
        place = (command.form.wallet_id, command.key)
        if place not in by_key:
            by_key[place] = Group()
            groups.append(by_key[place])
        by_key[place].commands.append(command)
    return groups


def match(groups: Sequence[Group], ledger: Ledger, findings: Findings) -> None:
    """Assign a row to each group. Rows without a group are violations."""
    own = [row for row in (*ledger.operations, *ledger.inbox) if row.is_own]
    rows = _Rows(own, findings)
    claimed: dict[str, Group] = {}
    for group in groups:
        group.row = rows.of(group)
        if group.row is None:
            continue
        if group.row.id in claimed:
            commands = [*claimed[group.row.id].commands, *group.commands]
            findings.add("not as answered", group.row.wallet_id, "two commands are one operation", *commands)
        claimed[group.row.id] = group
    _explain([row for row in own if row.id not in claimed], groups, findings)


class _Rows:
    """The operations, indexed by the fields that identify their command."""

    def __init__(self, rows: Sequence[Operation], findings: Findings) -> None:
        self._by_id: dict[str, Operation] = {}
        self._by_key: dict[tuple[str, str], Operation] = {}
        self._voids = {row.hold_id: row for row in rows if row.type == "VOID" and row.is_completed}
        for row in rows:
            place = (row.wallet_id, row.idempotency_key or row.id)
            if place in self._by_key:
                findings.add("applied twice", row.wallet_id, "under one key", row)
            self._by_id[row.id] = row
            self._by_key.setdefault(place, row)

    def of(self, group: Group) -> Operation | None:
        first = group.commands[0]
        if first.key is not None and first.form is not None:
            return self._by_key.get((first.form.wallet_id, first.key))
        if first.result.fate is not Fate.SETTLED:
            return None
        result = first.result
        return self._voids.get(result.body["id"]) if result.id is None else self._by_id.get(result.id)


def _explain(left: Sequence[Operation], groups: Sequence[Group], findings: Findings) -> None:
    """Assign the remaining rows to commands without a response, in the order of both."""
    waiting: dict[Form, list[Group]] = defaultdict(list)
    answered: set[Form | None] = set()
    refused: dict[Form | None, Group] = {}
    for group in groups:
        form = group.commands[0].form
        if group.row is not None:
            answered.add(form)
        elif group.is_refused:
            refused[form] = group
        elif group.commands[0].key is None and form is not None:
            waiting[form].append(group)
    for unanswered in waiting.values():
        unanswered.sort(key=lambda group: group.began, reverse=True)
    for row in sorted(left, key=lambda row: row.created_at):
        form = form_of(row)
        if row.idempotency_key is None and waiting.get(form):
            waiting[form].pop().row = row
        elif form in answered or form in waiting:
            findings.add("applied twice", row.wallet_id, "it was requested once", row)
        elif form in refused:
            refused.pop(form).row = row
        else:
            findings.add("unrequested", row.wallet_id, "no request is like it", row)


Bulk = list[tuple[Command, Group]]


def bulks_of(groups: Sequence[Group]) -> list[tuple[Call, Bulk]]:
    """Return each bulk with its commands in order."""
    bulks: dict[int, tuple[Call, Bulk]] = {}
    for group in groups:
        for command in group.commands:
            if command.is_bulk:
                bulks.setdefault(id(command.call), (command.call, []))[1].append((command, group))
    for _, bulk in bulks.values():
        bulk.sort(key=lambda item: item[0].number)
    return list(bulks.values())


@dataclass(slots=True, eq=False)
class SharedKey:
    """The bulks that were sent with one Idempotency-Key."""

    bulks: list[tuple[Call, Bulk]] = field(default_factory=list)

    @property
    def carried_out(self) -> list[Call]:
        """Return the bulks known to be carried out, by a response or by an operation of theirs alone."""
        return [call for call, bulk in self.bulks if is_honoured(call) or self._is_applied(bulk)]

    def may_be_first(self, call: Call) -> bool:
        """Return whether this call can own the key, given the responses and the ledger."""
        if carried_out := self.carried_out:
            return any(is_alike(call, other) for other in carried_out)
        return not isinstance(call.lost, NotReached) and call.outcome not in (422, 429)

    def is_first(self, call: Call) -> bool:
        """Return whether only this call and equal ones can own the key."""
        possible = [other for other, _ in self.bulks if self.may_be_first(other)]
        return call in possible and all(is_alike(call, other) for other in possible)

    def _is_applied(self, bulk: Bulk) -> bool:
        return any(
            group.row is not None
            and command.form == form_of(group.row)
            and not any(
                other.form == command.form and not is_alike(other.call, command.call)
                for other in group.commands
            )
            for command, group in bulk
        )


def is_by_another(command: Command, group: Group) -> bool:
    """Return whether the operation belongs to another request with the same key."""
    others = [other for other in group.commands if other.call is not command.call]
    is_other = group.row is not None and command.form != form_of(group.row)
    return is_other or any(
        other.result.fate is Fate.SETTLED and not other.result.is_replay for other in others
    )


def is_honoured(call: Call) -> bool:
    return call.outcome in (200, 409)


def is_alike(one: Call, other: Call) -> bool:
    return one.request.body == other.request.body


def shared_keys_of(bulks: Sequence[tuple[Call, Bulk]]) -> dict[str, SharedKey]:
    keys: dict[str, SharedKey] = defaultdict(SharedKey)
    for call, bulk in bulks:
        if call.request.key is not None:
            keys[call.request.key].bulks.append((call, bulk))
    return dict(keys)

"""The history checker accepts a correct history and names each kind of violation."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.client import Answer
from tests.support.histories.checker import check
from tests.support.histories.commands import Form
from tests.support.histories.findings import Rule
from tests.support.histories.journal import NEVER, ApiRequest, Call, History, NoAnswer, NotReached
from tests.support.histories.ledger import Ledger, Operation, Wallet
from tests.support.histories.load import Chooser, Known, is_safe_to_repeat
from tests.support.histories.pretend import Body, SimulatedLedger, SimulatedService
from tests.support.histories.rules import Past, Side

CLIENTS = 6
REUSED = Answer(422, {}, b'{"code": "idempotency_key_reused"}')
BEGIN = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class OverlappingClients:
    """Clients with overlapping requests to a simulated service that handles them in sequence.

    A request is carried out at a random time between its begin and its end. Some are carried out without a
    response, others get neither; some clients retry during this time.
    """

    service: SimulatedService
    seed: int = 0
    calls: list[Call] = field(default_factory=list)
    now: float = 0.0

    def run(self, requests: int = 400) -> History:
        dice = random.Random(self.seed)  # noqa: S311
        known = self._open()
        choosers = [
            Chooser(client, random.Random(f"{self.seed}-{client}"), known, lambda: self._moment(self.now))  # noqa: S311
            for client in range(1, CLIENTS + 1)
        ]
        due: list[tuple[float, int, Callable[[], None]]] = []

        def at(moment: float, action: Callable[[], None]) -> None:
            heapq.heappush(due, (moment, len(self.calls) + len(due) + dice.getrandbits(40), action))

        def begin(chooser: Chooser, request: ApiRequest, goes_on: bool = True) -> None:
            call = Call(chooser._client, request, self.now)
            self.calls.append(call)
            if len(self.calls) > requests:
                self.calls.pop()
                return
            carried_out = self.now + dice.random() * 0.02
            ended = carried_out + dice.random() * 0.02
            fate = dice.random()
            if self.is_early(request):
                ended, carried_out = carried_out, ended + 0.3
                fate = 1.0
            if fate < 0.02:
                call.lost = NotReached("refused")
            elif fate < 0.04:
                call.lost = NoAnswer("nothing was done")
            else:
                is_heard = fate > 0.08
                if not is_heard:
                    call.lost = NoAnswer("given up")
                at(carried_out, lambda: carry_out(call, ended if is_heard else NEVER))
            if not goes_on:
                return
            if rival := chooser.rival(request):
                at(self.now + dice.random() * 0.01, lambda: begin(chooser, rival, goes_on=False))
            again = is_safe_to_repeat(request) and call.lost is not None
            follow = request if again else None
            pause = 0.001 if again and dice.random() < 0.5 else ended - self.now + 0.0001
            at(self.now + pause, lambda: begin(chooser, follow or chooser()))

        def carry_out(call: Call, ended: float) -> None:
            answer = self.service.ask(call.request, self._moment(self.now))
            if ended < NEVER:
                call.answer, call.ended = self.service.answered(call.request, answer), ended
                at(max(ended, self.now), lambda: known.learn(call))
            if dice.random() < 0.1:
                self.service.drain()

        for chooser in choosers:
            at(dice.random() * 0.01, lambda chooser=chooser: begin(chooser, chooser()))  # type: ignore[misc]
        while due:
            self.now, _, action = heapq.heappop(due)
            action()
        self.service.drain()
        return History(self.calls, list(self.service.books.wallets), BEGIN.timestamp())

    def is_early(self, _request: ApiRequest) -> bool:
        """Return whether the request is answered before it is carried out."""
        return False

    def _open(self) -> Known:
        fields: list[Body] = [{}, {"overdraftLimit": "50"}, {"maxBalance": "60"}, {"currency": "JPY"}, {}]
        ids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(len(fields))]
        for id, limits in zip(ids, fields, strict=True):
            call = Call(0, ApiRequest("POST", "/wallets", {"id": id, **limits}), self.now)
            call.answer = self.service.ask(call.request, self._moment(self.now + 0.001))
            call.ended = self.now = self.now + 0.002
            self.calls.append(call)
        return Known(ids[:1], ids[1:])

    @staticmethod
    def _moment(now: float) -> datetime:
        return BEGIN + timedelta(seconds=now)


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
@pytest.mark.slow
def test_correct_history_has_no_violations(seed: int) -> None:
    service = SimulatedService(seed)
    history = OverlappingClients(service, seed).run()
    assert check(history, service.books.ledger) == []


# --- Services with one fault ------------------------------------------------------------------------
class Faulty(SimulatedService):
    """A correct service that makes one error once its history is long enough."""

    rule: Rule  # the expected violation
    also: set[Rule] = set()  # violations that may follow from it
    is_done = False
    requests = 1000

    @staticmethod
    def is_first_and_last(request: ApiRequest, answer: Answer) -> bool:
        """Return whether the request was carried out now and no client sends it again."""
        return answer.status == 201 and not is_safe_to_repeat(request)

    def once(self) -> bool:
        """Return True for the one error. A bulk is skipped, as it may be undone."""
        is_bulk = self.request is not None and self.request.path == "/operations"
        if self.is_done or is_bulk or len(self.books.operations) < 60:
            return False
        self.is_done = True
        return True


class LostUpdate(Faulty):
    """Two operations start from the same balance."""

    rule: Rule = "balance"

    def balance_of(self, wallet: Wallet) -> Decimal:
        rows = [row for row in self.books.operations.values() if row.wallet_id == wallet.id and row.sequence]
        if len(rows) > 2 and self.once():
            balance = sorted(rows, key=lambda row: row.sequence or 0)[-2].balance_after
            assert balance is not None
            return balance
        return wallet.balance


class DoubleApply(Faulty):
    rule: Rule = "applied twice"

    def decide(self, form: Form, row: Operation) -> tuple[int, Body]:
        response = super().decide(form, row)
        if response[0] == 201 and row.type == "DEPOSIT" and self.once():
            again = self._row(form, self._id(), None, self._later_than(form))
            assert super().decide(form, again)[0] in (201, 409)
        return response


class LostOperation(Faulty):
    rule: Rule = "lost"
    before: SimulatedLedger

    def ask(self, request: ApiRequest, now: datetime) -> Answer:
        self.before = self.books.copy()
        return super().ask(request, now)

    def answered(self, request: ApiRequest, answer: Answer) -> Answer:
        if self.is_first_and_last(request, answer) and b'"balance": "' in answer.content and self.once():
            self.books = self.before
        return answer


class LostAcceptance(Faulty):
    rule: Rule = "lost"
    also: set[Rule] = {"stale read", "half a bulk"}  # if a client reads it, or if it is a bulk item

    def take(self) -> tuple[Form, Operation]:
        if len(self.books.inbox) > 1 and self.once():
            self.books.inbox.pop(0)
        return super().take()


class LaterAcceptedFirst(Faulty):
    rule: Rule = "order of acceptance"

    def take(self) -> tuple[Form, Operation]:
        form, first = self.books.inbox[0]
        for number, (other, row) in enumerate(self.books.inbox):
            is_later = first.accepted_at and row.accepted_at and first.accepted_at < row.accepted_at
            if is_later and other.wallet_id == form.wallet_id and self.once():
                return self.books.inbox.pop(number)
        return super().take()


class StaleRead(Faulty):
    rule: Rule = "stale read"
    old: SimulatedLedger | None = None

    def read_wallet(self, wallet_id: str) -> Body:
        self.old = self.old or self.books.copy()
        old = self.old.wallets.get(wallet_id)
        if old and self.books.wallets[wallet_id].sequence > 8 + old.sequence and self.once():
            now, self.books = self.books, self.old
            response = super().read_wallet(wallet_id)
            self.books = now
            return response
        return super().read_wallet(wallet_id)


class UncommittedRead(Faulty):
    rule: Rule = "impossible read"

    def read_wallet(self, wallet_id: str) -> Body:
        response = super().read_wallet(wallet_id)
        return (
            response | {"balance": response["balance"] + 1, "available": response["available"] + 1}
            if self.once()
            else response
        )


class WrongReplay(Faulty):
    """The replay of an answered request has a wrong response."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.answered_keys: set[str] = set()

    def answered(self, request: ApiRequest, answer: Answer) -> Answer:
        if request.key is None or answer.status != 201 or b'"balance": "' not in answer.content:
            return answer
        if request.key in self.answered_keys and answer.headers and self.once():
            return self.wrong(answer)
        self.answered_keys.add(request.key)
        return answer

    def wrong(self, answer: Answer) -> Answer:
        raise NotImplementedError


class ReplayWithOtherContent(WrongReplay):
    rule: Rule = "another answer"
    also: set[Rule] = {"not as answered"}  # if the replay was sent first

    def wrong(self, answer: Answer) -> Answer:
        return replace(answer, content=answer.content.replace(b'"sequence": ', b'"sequence": 1'))


class ReplayAnsweredAsNew(WrongReplay):
    rule: Rule = "another answer"

    def wrong(self, answer: Answer) -> Answer:
        return replace(answer, headers={})


class OtherAnswer(Faulty):
    rule: Rule = "not as answered"

    def answered(self, request: ApiRequest, answer: Answer) -> Answer:
        if self.is_first_and_last(request, answer) and b'"balance": "' in answer.content and self.once():
            return replace(answer, content=answer.content.replace(b'"sequence": ', b'"sequence": 1'))
        return answer


class HalfATransfer(Faulty):
    rule: Rule = "half a transfer"

    def write_other(self, row: Operation) -> None:
        if not (row.type == "TRANSFER_IN" and self.once()):
            super().write_other(row)


class HalfABulk(Faulty):
    """The first refusal ends an atomic bulk, and the earlier items stay applied."""

    rule: Rule = "half a bulk"
    also: set[Rule] = {"refused, but applied"}

    def undo(  # noqa: PLR0913, PLR0917
        self,
        before: SimulatedLedger,
        number: int,
        form: Form,
        key: str | None,
        status: int,
        body: Body,
        replayed: bool,
    ) -> tuple[int, Body, bool]:
        now = self.books
        response = super().undo(before, number, form, key, status, body, replayed)
        if not self.is_done and not replayed and any(row.is_completed for row in _newer(now, before)):
            self.books, self.is_done = now, True
        return response


def _newer(now: SimulatedLedger, before: SimulatedLedger) -> list[Operation]:
    return [row for id, row in now.operations.items() if id not in before.operations]


class AppliedAfter429(Faulty):
    rule: Rule = "refused, but applied"

    def answered(self, request: ApiRequest, answer: Answer) -> Answer:
        if self.is_first_and_last(request, answer) and request.path != "/wallets" and self.once():
            return Answer(429, {}, b'{"code": "too_many_requests"}')
        return answer


class UnrequestedOperation(Faulty):
    rule: Rule = "unrequested"

    def decide(self, form: Form, row: Operation) -> tuple[int, Body]:
        response = super().decide(form, row)
        if self.once():
            own = Form(wallet_id=row.wallet_id, type="DEPOSIT", amount=Decimal(1), description="a present")
            super().decide(own, self._row(own, self._id(), None, self._later_than(own)))
        return response


class Overdrawn(Faulty):
    rule: Rule = "verdict"

    def refusal(self, row: Operation, past: Past, mine: Side, theirs: Side | None) -> str | None:
        reason = super().refusal(row, past, mine, theirs)
        return None if reason == "insufficient_funds" and self.once() else reason


class CapturedTwice(Faulty):
    rule: Rule = "verdict"
    also: set[Rule] = {"holds", "impossible read"}

    def refusal(self, row: Operation, past: Past, mine: Side, theirs: Side | None) -> str | None:
        reason = super().refusal(row, past, mine, theirs)
        return None if reason == "hold_not_active" and row.type == "CAPTURE" and self.once() else reason


class FrozenWalletMoves(Faulty):
    rule: Rule = "verdict"
    requests = 2000  # few requests use a frozen wallet

    def refusal(self, row: Operation, past: Past, mine: Side, theirs: Side | None) -> str | None:
        reason = super().refusal(row, past, mine, theirs)
        return (
            None
            if reason == "wallet_frozen" and row.type in ("DEPOSIT", "TRANSFER_OUT") and self.once()
            else reason
        )


class ReversedTooMuch(Faulty):
    rule: Rule = "verdict"

    def refusal(self, row: Operation, past: Past, mine: Side, theirs: Side | None) -> str | None:
        reason = super().refusal(row, past, mine, theirs)
        return None if reason == "reversal_exceeds_original" and self.once() else reason


class WrongReason(Faulty):
    rule: Rule = "verdict"

    def refusal(self, row: Operation, past: Past, mine: Side, theirs: Side | None) -> str | None:
        reason = super().refusal(row, past, mine, theirs)
        return "wallet_closed" if reason == "insufficient_funds" and self.once() else reason


class NeedlessRefusal(Faulty):
    rule: Rule = "verdict"

    def refusal(self, row: Operation, past: Past, mine: Side, theirs: Side | None) -> str | None:
        reason = super().refusal(row, past, mine, theirs)
        return "insufficient_funds" if reason is None and row.type == "WITHDRAW" and self.once() else reason


class WrongNotFound(Faulty):
    rule: Rule = "wrong refusal"

    def carry_out(
        self, form: Form, key: str | None, chosen: str | None, later: bool = False
    ) -> tuple[int, Body, bool]:
        if self.once():
            return 404, {"code": "wallet_not_found"}, False
        return super().carry_out(form, key, chosen, later)


class LowHalfTakenForTheId(Faulty):
    """Some ids are refused because others have the same low half.

    One fault may not be enough: if a rival used the id at the same time, the refusal was right.
    """

    rule: Rule = "wrong refusal"
    times = 5
    before: SimulatedLedger

    def ask(self, request: ApiRequest, now: datetime) -> Answer:
        self.before = self.books.copy()
        return super().ask(request, now)

    def answered(self, request: ApiRequest, answer: Answer) -> Answer:
        id = (request.body or {}).get("id", "")
        is_new = answer.status == 201 and not answer.headers and request.path != "/wallets"
        is_alike = any(other.endswith(id[18:]) for other in self.before.operations)
        if id and is_new and is_alike and self.times:
            self.times, self.is_done, self.books = self.times - 1, True, self.before
            return REUSED
        return answer


class Reusing(Faulty):
    """A request is carried out once with the id or key of another request."""

    is_tried = False

    def ask(self, request: ApiRequest, now: datetime) -> Answer:
        before, self.is_tried = self.books.copy(), False
        answer = super().ask(request, now)
        if not self.is_tried:
            return answer
        self.is_done = _size(self.books) > _size(before)
        if self.is_done:
            return self.response(answer)
        self.books = before
        return REUSED

    def response(self, answer: Answer) -> Answer:
        return answer


def _size(books: SimulatedLedger) -> int:
    return len(books.operations) + len(books.inbox)


class IdUsedTwice(Reusing):
    rule: Rule = "id of two operations"

    def is_used(self, id: str) -> bool:
        row = self.books.operations.get(id)
        if self.is_done or row is None or row.type != "DEPOSIT":
            return super().is_used(id)
        self.books.operations[f"{id}, first"] = self.books.operations.pop(id)
        self.is_tried = True
        return False


class ChangedBulkCarriedOut(Reusing):
    """The items of the first bulk are replayed, and the others are carried out."""

    rule: Rule = "key of two bulks"

    def is_another(self, first: Body, body: Body) -> bool:
        self.is_tried = not self.is_done and first != body
        return first != body and not self.is_tried


class ChangedBulkRefusedAndCarriedOut(ChangedBulkCarriedOut):
    rule: Rule = "refused, but applied"
    also: set[Rule] = {"key of two bulks"}

    def response(self, _answer: Answer) -> Answer:
        return REUSED


class RepeatedBulkRefused(Faulty):
    """A repeated bulk is refused as a different one."""

    rule: Rule = "wrong refusal"

    def answered(self, request: ApiRequest, answer: Answer) -> Answer:
        is_repeat = request.path == "/operations" and request.key is not None and answer.headers
        if self.is_done or not is_repeat:
            return answer
        self.is_done = True
        return REUSED


class ServerError(Faulty):
    rule: Rule = "server error"

    def answered(self, request: ApiRequest, answer: Answer) -> Answer:
        return Answer(500, {}, b"{}") if self.once() else answer


def _with_subclasses(fault: type[Faulty]) -> list[type[Faulty]]:
    return [fault, *(each for subclass in fault.__subclasses__() for each in _with_subclasses(subclass))]


FAULTS = [fault for fault in _with_subclasses(Faulty) if fault not in (Faulty, WrongReplay, Reusing)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.slow
def test_fault_is_found_and_named(fault: type[Faulty], seed: int) -> None:
    service = fault(seed)
    history = OverlappingClients(service, seed).run(service.requests)
    assert service.is_done, "the fault did not happen"
    expect_violations(history, service.books.ledger, service.rule, service.also)


def expect_violations(history: History, ledger: Ledger, rule: Rule, also: set[Rule]) -> None:
    found = check(history, ledger)
    rules = {violation.rule for violation in found}
    assert rule in rules
    assert rules <= {rule} | also, "\n".join(map(str, found))


# --- Contradictions of real time --------------------------------------------------------------------
class EarlyAnswerClients(OverlappingClients):
    """One operation is answered shortly before it is carried out."""

    is_done = False

    def is_early(self, request: ApiRequest) -> bool:
        is_move = request.path.endswith("/operation") and request.wallet_id.endswith("0")
        is_new = request.key and all(call.request.key != request.key for call in self.calls[:-1])
        if self.is_done or not is_move or not is_new or request.is_async or len(self.calls) < 200:
            return False
        self.is_done = True
        return True


@pytest.mark.parametrize("seed", range(5))
def test_response_before_the_commit_is_found(seed: int) -> None:
    service = SimulatedService(seed)
    clients = EarlyAnswerClients(service, seed)
    history = clients.run(800)
    found = {violation.rule for violation in check(history, service.books.ledger)}
    assert clients.is_done
    assert found & {"order", "stale read"}
    assert found <= {"order", "stale read", "wrong refusal"}


@pytest.mark.parametrize("seed", range(5))
def test_order_that_contradicts_real_time_is_found(seed: int) -> None:
    """The first of two successive operations was requested after the second had been answered."""
    service = SimulatedService(seed)
    history = OverlappingClients(service, seed).run()
    answered = {
        call.answer.json["id"]: call
        for call in history
        if call.answer and call.answer.status == 201 and not call.is_replay and call.request.wallet_id
    }
    rows = [row for row in service.books.ledger.operations if row.wallet_id.endswith("0")]
    first, second = next(
        (answered[one.id], answered[two.id])
        for one, two in pairwise(rows[40:])
        if one.id in answered and two.id in answered
    )
    first.began, first.ended = second.ended + 0.0001, second.ended + 0.0002
    found = {violation.rule for violation in check(history, service.books.ledger)}
    assert "order" in found
    assert found <= {"order", "stale read", "impossible read"}


# --- Changes of the ledger --------------------------------------------------------------------------
def _other_balance(books: SimulatedLedger) -> None:
    wallet = max(books.wallets.values(), key=lambda wallet: wallet.sequence)
    books.wallets[wallet.id] = replace(wallet, balance=wallet.balance + 1)


def _other_hold(books: SimulatedLedger) -> None:
    hold = next(hold for hold in books.holds.values() if hold.status == "CAPTURED")
    books.holds[hold.id] = replace(hold, status="VOIDED")


def _no_expiry(books: SimulatedLedger) -> None:
    books.changes.remove(next(change for change in books.changes if change.type == "HOLD_EXPIRED"))


def _other_amount(books: SimulatedLedger) -> None:
    row = next(row for row in books.operations.values() if row.status == "REJECTED" and row.amount > 1)
    books.operations[row.id] = replace(row, amount=row.amount - Decimal("0.01"))


def _same_time(books: SimulatedLedger) -> None:
    rows = [row for row in books.operations.values() if row.wallet_id.endswith("0")]
    books.operations[rows[30].id] = replace(rows[30], created_at=rows[29].created_at)


def _closed_with_money(books: SimulatedLedger) -> None:
    number, change = next(
        (number, change) for number, change in enumerate(books.changes) if "status" in change.changes
    )
    old = change.changes["status"][0]
    books.changes[number] = replace(change, changes=change.changes | {"status": [old, "CLOSED"]})


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_other_balance, "wallet"),
        (_closed_with_money, "verdict"),
        (_other_hold, "holds"),
        (_no_expiry, "holds"),
        (_other_amount, "not as answered"),
        (_same_time, "time"),
    ],
)
def test_changed_ledger_is_found(change: Callable[[SimulatedLedger], None], rule: Rule) -> None:
    service = SimulatedService()
    history = OverlappingClients(service).run(800)
    change(service.books)
    assert rule in {violation.rule for violation in check(history, service.books.ledger)}


def test_needless_refusal_of_a_change_is_found() -> None:
    service = SimulatedService()
    history = OverlappingClients(service).run(800)
    changed = next(call for call in history if call.request.method == "PATCH" and call.outcome == 200)
    changed.answer = Answer(409, {}, b'{"code": "wallet_closed"}')
    assert "wrong refusal" in {violation.rule for violation in check(history, service.books.ledger)}

"""A simulated service in memory that handles requests in sequence, for the tests of the checker.

Each step is a separate method, which a test can replace by a faulty one.
"""

import json
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.support.client import Answer
from tests.support.histories import bodies, rules
from tests.support.histories.commands import Command, Form, Reader
from tests.support.histories.journal import ApiRequest, Call
from tests.support.histories.ledger import Change, Hold, Ledger, Operation, Wallet
from tests.support.histories.rules import NOTHING, OPPOSITES, Past, Side, fits, refusal, rest

TICK = timedelta(microseconds=1)
Body = dict[str, Any]


@dataclass
class SimulatedLedger:
    wallets: dict[str, Wallet] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    inbox: list[tuple[Form, Operation]] = field(default_factory=list)
    responses: dict[tuple[str, str], tuple[Form, int, Body]] = field(
        default_factory=dict
    )  # by wallet and key

    def copy(self) -> "SimulatedLedger":
        return SimulatedLedger(
            dict(self.wallets),
            dict(self.operations),
            dict(self.holds),
            list(self.changes),
            list(self.inbox),
            dict(self.responses),
        )

    @property
    def ledger(self) -> Ledger:
        return Ledger(
            list(self.wallets.values()),
            sorted(self.operations.values(), key=lambda row: row.created_at),
            sorted(self.changes, key=lambda change: change.created_at),
            list(self.holds.values()),
            [row for _, row in self.inbox],
        )


class Refused(Exception):
    def __init__(self, status: int, code: str, operation_id: str | None = None) -> None:
        self.status = status
        self.body: Body = {"code": code} | ({"operationId": operation_id} if operation_id else {})


class SimulatedService:
    def __init__(self, seed: int = 0) -> None:
        self.books = SimulatedLedger()
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.request: ApiRequest | None = None  # None: the inbox is drained
        self.bulks: dict[str, Body] = {}  # by key: the first one
        self._dice = random.Random(seed)  # noqa: S311

    def answered(self, request: ApiRequest, answer: Answer) -> Answer:
        """Return the response that the client gets."""
        return answer

    def ask(self, request: ApiRequest, now: datetime) -> Answer:
        self.now = max(now, self.now + TICK)
        self.request = request
        replayed = False
        try:
            match request.method:
                case "GET":
                    status, body = 200, self._read(request.path)
                case "PATCH":
                    status, body = 200, self._change(request)
                case _ if request.path == "/wallets":
                    status, body = 201, self._open(request.body or {})
                case _ if request.path == "/operations":
                    status, body, replayed = self._bulk(request)
                case _:
                    status, body, replayed = self._single(request)
        except Refused as error:
            status, body = error.status, error.body
        headers = {"idempotent-replayed": "true"} if replayed else {}
        return Answer(status, headers, json.dumps(body, default=_text).encode())

    # --- Commands -----------------------------------------------------------------------------------
    def _single(self, request: ApiRequest) -> tuple[int, Body, bool]:
        [command] = self._reader().commands(Call(0, request, 0))
        if command.form is None:
            raise Refused(404, "hold_not_found" if "/holds/" in request.path else "operation_not_found")
        chosen = (request.body or {}).get("id")
        return self.carry_out(command.form, command.key, chosen, request.is_async)

    def _bulk(self, request: ApiRequest) -> tuple[int, Body, bool]:
        if request.key is not None:
            first = self.bulks.setdefault(request.key, request.body or {})
            if self.is_another(first, request.body or {}):
                raise Refused(422, "idempotency_key_reused")
        commands = list(self._reader().commands(Call(0, request, 0)))
        before, results = self.books.copy(), []
        # A refused bulk is refused again, even if an earlier item would be refused now.
        refused = [command for command in commands if self._was_refused(command)]
        for number, command in enumerate(commands):
            if command.is_atomic and refused and command is not refused[0]:
                continue
            assert command.form
            status, body, replayed = self.carry_out(command.form, command.key, None, request.is_async)
            if status >= 400 and command.is_atomic:
                return self.undo(before, number, command.form, command.key, status, body, replayed)
            name = "problem" if status >= 400 else "transfer" if "source" in body else "operation"
            results.append({"status": status, "replayed": replayed, name: body})
        return 200, {"results": results}, all(result["replayed"] for result in results)

    def is_another(self, first: Body, body: Body) -> bool:
        return first != body

    def _was_refused(self, command: Command) -> bool:
        assert command.form
        shown = self.books.responses.get((command.form.wallet_id, command.key or ""))
        return shown is not None and shown[1] == 409

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
        """Undo a refused atomic bulk, except for the record of its refusal."""
        row = self.books.operations.get(body.get("operationId", ""))
        self.books = before
        if row and not replayed:
            self._write(row)
            if key is not None:
                self.books.responses[form.wallet_id, key] = form, status, body
        place = [{"field": f"operations.{number}"}]
        return 400 if status == 400 else 409, body | {"errors": place}, replayed

    def carry_out(
        self, form: Form, key: str | None, chosen: str | None, later: bool = False
    ) -> tuple[int, Body, bool]:
        place = form.wallet_id, key or ""
        if key is not None and place in self.books.responses:
            first, status, body = self.books.responses[place]
            return (422, {"code": "idempotency_key_reused"}, False) if first != form else (status, body, True)
        if chosen is not None and self.is_used(chosen):
            return 422, {"code": "idempotency_key_reused"}, False
        at = self._later_than(form)
        is_late = form.expires_at is not None and form.expires_at <= at
        if is_late or (form.amount and not fits(form.amount, self.books.wallets[form.wallet_id].currency)):
            return 400, {"code": "validation_error"}, False
        row = self._row(form, chosen or self._id(), key, at)
        status, body = self._accept(form, row) if later else self.decide(form, row)
        if key is not None:
            self.books.responses[place] = form, status, body
        return status, body, False

    def is_used(self, id: str) -> bool:
        """Return whether the id names an operation of any wallet."""
        return id in self.books.operations or any(row.id == id for _, row in self.books.inbox)

    def _row(self, form: Form, id: str, key: str | None, at: datetime) -> Operation:
        past = self._past(form, at)
        row = Operation(
            id=id,
            wallet_id=form.wallet_id,
            type=form.type,
            amount=form.amount or NOTHING,
            status="PENDING",
            created_at=at,
            idempotency_key=key,
            transfer_id=id if form.counterparty_id else None,
            counterparty_id=form.counterparty_id,
            hold_id=form.hold_id,
            reverses_id=form.reverses_id,
            expires_at=form.expires_at,
            takes_rest=form.amount is None,
            description=form.description,
        )
        if form.amount is not None:
            return row
        return replace(row, amount=rest(row, past) or self.books.operations[form.reverses_id or ""].amount)

    def _accept(self, form: Form, row: Operation) -> tuple[int, Body]:
        row = replace(row, accepted_at=self.now)
        self.books.inbox.append((form, row))
        return 202, _operation_body(row, bodies.accepted(row))

    def drain(self) -> None:
        self.now += TICK
        self.request = None
        while self.books.inbox:
            form, row = self.take()
            again = self._row(form, row.id, row.idempotency_key, self._later_than(form))
            self.decide(form, replace(again, accepted_at=row.accepted_at))

    def take(self) -> tuple[Form, Operation]:
        return self.books.inbox.pop(0)

    def decide(self, form: Form, row: Operation) -> tuple[int, Body]:
        past = self._past(form, row.created_at)
        mine = self.side(form.wallet_id)
        reason = self.refusal(
            row, past, mine, self.side(form.counterparty_id) if form.counterparty_id else None
        )
        if reason is not None:
            row = replace(row, status="REJECTED", reason=reason)
            self._write(row)
            return 409, {"code": reason, "operationId": row.id}
        row = self._moved(replace(row, status="COMPLETED"))
        self._write(row)
        other = self._other_side(form, row) if form.counterparty_id else None
        if other:
            self.write_other(other)
        return (200 if row.type == "VOID" else 201), self._body(row, other)

    def refusal(self, row: Operation, past: Past, mine: Side, theirs: Side | None) -> str | None:
        return refusal(row, past, mine, theirs)

    def _other_side(self, form: Form, row: Operation) -> Operation:
        reverses = form.reverses_id and self._counterpart(self.books.operations[form.reverses_id])
        other = replace(
            row,
            id=self._id(),
            wallet_id=row.counterparty_id or "",
            counterparty_id=row.wallet_id,
            type=OPPOSITES[row.type],
            idempotency_key=None,
            reverses_id=reverses.id if reverses else None,
        )
        return self._moved(other)

    def write_other(self, row: Operation) -> None:
        self._write(row)

    def _moved(self, row: Operation) -> Operation:
        if not rules.SIGNS[row.type]:
            return row
        wallet = self.books.wallets[row.wallet_id]
        return rules.moved(row, self.balance_of(wallet), wallet.sequence)

    def balance_of(self, wallet: Wallet) -> Decimal:
        return wallet.balance

    def _write(self, row: Operation) -> None:
        self.books.operations[row.id] = row
        wallet = replace(self.books.wallets[row.wallet_id], updated_at=row.created_at)
        if row.sequence is not None and row.balance_after is not None:
            wallet = replace(wallet, balance=row.balance_after, sequence=row.sequence)
        self.books.wallets[wallet.id] = wallet
        if row.is_completed and row.type in ("HOLD", "CAPTURE", "VOID"):
            self._write_hold(row)

    def _write_hold(self, row: Operation) -> None:
        if row.type == "HOLD":
            hold = rules.placed(row)
        else:
            hold = rules.ended(self.books.holds[row.hold_id or ""], row)
        self.books.holds[hold.id] = hold
        self._hold_anew(row.wallet_id)

    # --- Wallets ------------------------------------------------------------------------------------
    def _open(self, body: Body) -> Body:
        wallet = Wallet(
            id=body["id"],
            currency=body.get("currency", "RUB"),
            overdraft_limit=Decimal(body.get("overdraftLimit", 0)),
            max_balance=Decimal(body["maxBalance"]) if "maxBalance" in body else None,
            created_at=self.now,
            updated_at=self.now,
        )
        self.books.wallets.setdefault(wallet.id, wallet)
        return {"id": wallet.id}

    def _change(self, request: ApiRequest) -> Body:
        wallet = self._expired(request.wallet_id)
        requested = request.body or {}
        changes = {name: [getattr(wallet, name), new] for name, new in requested.items()}
        changes = {name: values for name, values in changes.items() if values[0] != values[1]}
        is_empty = not wallet.balance and not wallet.held
        reason = rules.refusal_of_change(wallet.status, is_empty, requested.get("status"))
        if changes and reason:
            raise Refused(409, reason)
        at = max(self.now, wallet.updated_at + TICK)
        change = Change(id=self._id(), wallet_id=wallet.id, type="CHANGED", changes=changes, created_at=at)
        self.books.changes.append(change)
        self.books.wallets[wallet.id] = replace(wallet, updated_at=at, **requested)
        return self._wallet_body(wallet.id)

    def _expired(self, wallet_id: str) -> Wallet:
        """Record the expired holds."""
        for hold in self._active(wallet_id):
            if hold.expires_at and hold.expires_at <= self.now:
                self.books.holds[hold.id] = rules.expired(hold)
                change = Change(
                    id=self._id(),
                    wallet_id=wallet_id,
                    type="HOLD_EXPIRED",
                    changes={"hold_id": hold.id},
                    created_at=hold.expires_at,
                )
                self.books.changes.append(change)
                wallet = self.books.wallets[wallet_id]
                at = max(wallet.updated_at, hold.expires_at)
                self.books.wallets[wallet_id] = replace(wallet, updated_at=at)
        return self._hold_anew(wallet_id)

    def _hold_anew(self, wallet_id: str) -> Wallet:
        held = sum((hold.amount for hold in self._active(wallet_id)), NOTHING)
        self.books.wallets[wallet_id] = replace(self.books.wallets[wallet_id], held=held)
        return self.books.wallets[wallet_id]

    def _active(self, wallet_id: str) -> list[Hold]:
        return [
            hold
            for hold in self.books.holds.values()
            if (hold.wallet_id, hold.status) == (wallet_id, "ACTIVE")
        ]

    # --- Reads --------------------------------------------------------------------------------------
    def _read(self, path: str) -> Body:
        path, _, query = path.partition("?")
        match path.strip("/").split("/"):
            case ["wallets", wallet_id]:
                return self.read_wallet(wallet_id)
            case ["wallets", wallet_id, "operations"]:
                return self._list(wallet_id, int(query.removeprefix("limit=")))
            case ["wallets", wallet_id, "balance"]:
                return self._balance(wallet_id, query.removeprefix("at="))
            case ["operations", operation_id]:
                pending = {row.id: row for _, row in self.books.inbox}
                if row := pending.get(operation_id):
                    return bodies.accepted(row)
                if operation_id not in self.books.operations:
                    raise Refused(404, "operation_not_found")
                return bodies.operation(self.books.operations[operation_id])
        hold = self.books.holds[path.split("/")[2]]
        self._expired(hold.wallet_id)
        return _hold_body(self.books.holds[hold.id])

    def read_wallet(self, wallet_id: str) -> Body:
        self._expired(wallet_id)
        return self._wallet_body(wallet_id)

    def _wallet_body(self, wallet_id: str) -> Body:
        wallet = self.books.wallets[wallet_id]
        names = ("id", "status", "label", "sequence", "balance", "held")
        shown = {name: getattr(wallet, name) for name in names}
        return shown | {"available": wallet.balance - wallet.held, "updatedAt": wallet.updated_at}

    def _list(self, wallet_id: str, limit: int) -> Body:
        rows = [row for row in self.books.operations.values() if row.wallet_id == wallet_id]
        rows = sorted(rows, key=lambda row: row.created_at, reverse=True)
        listed = [row for row in rows if row.type not in ("HOLD", "VOID")]
        return {"items": [bodies.operation(row) for row in listed[:limit]]}

    def _balance(self, wallet_id: str, requested: str) -> Body:
        at = (
            datetime.fromisoformat(requested)
            if requested
            else max(self.now, self.books.wallets[wallet_id].updated_at)
        )
        rows = [row for row in self.books.operations.values() if row.wallet_id == wallet_id and row.sequence]
        last = max(
            (row for row in rows if row.created_at <= at), key=lambda row: row.created_at, default=None
        )
        held = NOTHING
        for hold in self.books.holds.values():
            end = hold.ended_at or hold.expires_at
            if hold.wallet_id == wallet_id and hold.created_at <= at and (end is None or end > at):
                held += hold.amount
        balance = last.balance_after if last and last.balance_after is not None else NOTHING
        shown = {"balance": balance, "sequence": last.sequence if last else 0}
        return shown | {"held": held, "available": balance - held, "at": at}

    # --- State --------------------------------------------------------------------------------------
    def _reader(self) -> Reader:
        return Reader(self.books.holds, self.books.operations)

    def side(self, wallet_id: str) -> Side:
        wallet = self._expired(wallet_id)
        return Side(wallet, wallet.status, wallet.balance, wallet.held)

    def _past(self, form: Form, at: datetime) -> Past:
        if form.hold_id:
            hold = self.books.holds[form.hold_id]
            return rules.past_of_hold(hold.amount, hold.expires_at, hold.status != "ACTIVE", at)
        if form.reverses_id:
            original = self.books.operations[form.reverses_id]
            back = [row.amount for row in self.books.operations.values() if self._reverses(row, original)]
            return rules.past_of_original(original, sum(back, NOTHING))
        return Past()

    def _reverses(self, row: Operation, original: Operation) -> bool:
        return row.reverses_id == original.id and row.is_completed

    def _counterpart(self, row: Operation) -> Operation | None:
        same = [other for other in self.books.operations.values() if other.transfer_id == row.transfer_id]
        return next((other for other in same if other.id != row.id), None)

    def _later_than(self, form: Form) -> datetime:
        wallets = [self._expired(id) for id in (form.wallet_id, form.counterparty_id) if id]
        return max(self.now, *(wallet.updated_at + TICK for wallet in wallets))

    def _body(self, row: Operation, other: Operation | None) -> Body:
        if row.type in ("HOLD", "VOID"):
            return bodies.hold_then(row)
        body = bodies.operation(row)
        if row.type != "TRANSFER_OUT" or other is None:
            return body
        return {"id": row.id, "source": body, "target": bodies.operation(other)}

    def _id(self) -> str:
        return str(UUID(int=self._dice.getrandbits(128), version=4))


def _operation_body(row: Operation, body: Body) -> Body:
    return {"id": row.id, "source": body, "target": None} if row.type == "TRANSFER_OUT" else body


def _hold_body(hold: Hold) -> Body:
    return {
        "id": hold.id,
        "amount": hold.amount,
        "status": hold.status,
        "capturedAmount": hold.captured_amount,
        "endedAt": hold.ended_at,
        "createdAt": hold.created_at,
    }


def _text(value: Decimal | datetime) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)

"""The clients' journal against the ledger: what was answered is there once, as it was answered."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import UUID

import environ
from django.conf import settings
from django.db.utils import ConnectionHandler

from tests.faults.clients import Asked, Connection, ask
from tests.faults.database import Database
from wallets.ledger import verify

REPEATS = 50  # answers that are asked for again, evenly over the journal


class Row(NamedTuple):
    key: str
    id: str
    wallet_id: str
    type: str
    amount: Decimal
    status: str
    reason: str | None
    sequence: int | None
    balance: Decimal | None


Ledger = dict[str, Row]


def reconcile(
    journal: Sequence[Asked], database: Database, address: tuple[str, int], wallet_ids: Collection[str]
) -> None:
    operations = [asked for asked in journal if asked.is_operation]
    expect_nothing_applied(operations, ledger(database, wallet_ids))
    with closing(Connection(address)) as connection:
        settle(operations, connection)
        entries = ledger(database, wallet_ids)
        expect_each_once(operations, entries)
        expect_same_answers_again(operations, connection)
    expect_reads_of_one_history(journal, entries)
    expect_all_opened(journal, database)
    expect_verified(database, wallet_ids)


def ledger(database: Database, wallet_ids: Collection[str]) -> Ledger:
    rows = database.ask(
        "SELECT idempotency_key, id::text, wallet_id::text, type, amount, status, reason, sequence,"
        " balance_after FROM operation WHERE wallet_id = ANY(%s::uuid[])",
        list(wallet_ids),
    )
    entries = {row[0]: Row(*row) for row in rows}
    assert len(entries) == len(rows), "a key stands twice in the ledger"
    return entries


def expect_nothing_applied(operations: Sequence[Asked], entries: Ledger) -> None:
    """429 says so; only 503 and a lost answer leave it open."""
    refused = [asked for asked in operations if asked.answer and asked.answer.status == 429]
    applied = [asked for asked in refused if asked.request.key in entries]
    assert not applied, f"{len(applied)} of {len(refused)} were answered 429 and applied: {applied[:3]}"


def settle(operations: Sequence[Asked], connection: Connection) -> None:
    """Ask again, with its key, for everything that was refused or not answered."""
    for asked in operations:
        if not asked.is_settled:
            again = ask(connection, asked.request)
            assert again.is_settled, (asked, again)
            asked.again = again


def expect_each_once(operations: Sequence[Asked], entries: Ledger) -> None:
    assert {asked.request.key for asked in operations} == entries.keys()
    for asked in operations:
        assert asked.request.key
        expect_as_answered(asked, asked.known.json, entries[asked.request.key])


def expect_as_answered(asked: Asked, told: Any, row: Row) -> None:
    body = asked.request.body
    assert body
    assert (row.wallet_id, row.type) == (asked.request.wallet_id, body["operationType"]), asked
    assert row.amount == Decimal(body["amount"]), asked
    if row.status == "REJECTED":
        assert (told.get("operationId"), told.get("code")) == (row.id, row.reason), asked
    else:
        assert (told.get("id"), told["sequence"]) == (row.id, row.sequence), asked
        assert Decimal(told["balance"]) == row.balance, asked


def expect_same_answers_again(operations: Sequence[Asked], connection: Connection) -> None:
    for asked in operations[:: max(1, len(operations) // REPEATS)]:
        again = ask(connection, asked.request)
        assert again.known.headers["idempotent-replayed"] == "true"
        assert _comparable(again.known.json) == _comparable(asked.known.json)


def _comparable(told: Any) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "requestId"}


def expect_reads_of_one_history(journal: Sequence[Asked], entries: Ledger) -> None:
    """A read shows a state that was, and none that is older than what anybody knew when it was asked."""
    balances = {(row.wallet_id, row.sequence): row.balance for row in entries.values() if row.sequence}
    known: dict[str, int] = defaultdict(int)
    facts = sorted((fact for asked in journal for fact in _facts(asked)), key=lambda fact: fact[:2])
    for _, is_beginning, wallet_id, sequence, balance in facts:
        if is_beginning:
            assert sequence >= known[wallet_id], f"sequence {sequence}, but {known[wallet_id]} was known"
        else:
            known[wallet_id] = max(known[wallet_id], sequence)
        assert balances.get((wallet_id, sequence), 0) == balance


def _facts(asked: Asked) -> list[tuple[float, bool, str, int, Decimal]]:
    """What an answer knew of its wallet: for the moment it was asked, and for the moment it was heard."""
    if not asked.answer or asked.answer.status not in (200, 201) or not asked.request.wallet_id:
        return []
    if asked.answer.headers.get("idempotent-replayed"):
        return []  # of an earlier moment
    told = asked.answer.json
    state = (asked.request.wallet_id, told["sequence"], Decimal(told["balance"]))
    return [(asked.sent_at, True, *state), (asked.ended_at, False, *state)]


def expect_all_opened(journal: Sequence[Asked], database: Database) -> None:
    opened = {
        asked.request.body["id"]
        for asked in journal
        if asked.request.path == "/wallets" and asked.request.body and asked.outcome == 201
    }
    found = database.ask("SELECT count(*) FROM wallet WHERE id = ANY(%s::uuid[])", list(opened))
    assert found[0][0] == len(opened)


def expect_verified(database: Database, wallet_ids: Collection[str]) -> None:
    config = settings.DATABASES["reader"] | environ.Env.db_url_config(database.cluster.url())
    connection = ConnectionHandler({"default": config})["default"]
    with closing(connection), patch.object(verify, "connection", connection):
        assert verify.verify([UUID(wallet_id) for wallet_id in wallet_ids]) == []

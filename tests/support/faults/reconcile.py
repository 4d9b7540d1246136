"""The clients' journal against the ledger: what was answered is there once, as it was answered."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from unittest.mock import patch
from uuid import UUID

import environ
from django.conf import settings
from django.db.utils import ConnectionHandler

from tests.support.faults.clients import Asked, ask
from tests.support.faults.database import Database
from tests.support.histories.checker import check
from tests.support.histories.journal import NEVER, Call, Connection, History
from tests.support.histories.ledger import read
from wallets.ledger import consistent_read, verify

REPEATS = 50  # answers that are asked for again, evenly over the journal


def reconcile(
    journal: Sequence[Asked], database: Database, address: tuple[str, int], wallet_ids: Collection[str]
) -> None:
    calls = [call(asked) for asked in journal]
    # Before anything is asked again: then what was refused must not be there.
    expect_one_history(calls, database, wallet_ids)
    operations = [asked for asked in journal if asked.is_operation]
    with closing(Connection(address)) as connection:
        calls += map(call, settle(operations, connection))
        calls += map(call, ask_again(operations, connection))
    expect_one_history(calls, database, wallet_ids)
    expect_verified(database, wallet_ids)


def call(asked: Asked) -> Call:
    ended = asked.ended_at if asked.answer else NEVER
    return Call(0, asked.request, asked.sent_at, ended, asked.answer, asked.lost)


def expect_one_history(calls: Sequence[Call], database: Database, wallet_ids: Collection[str]) -> None:
    opened = [
        call.request.body["id"] for call in calls if call.request.path == "/wallets" and call.request.body
    ]
    history = History(calls, [*wallet_ids, *opened], time.time() - time.monotonic())
    found = check(history, read(database.cluster.url(), history.wallet_ids))
    # Which answers there may be is for each test to say.
    wrong = [violation for violation in found if violation.rule != "server error"]
    assert not wrong, "\n".join(map(str, wrong[:5]))


def settle(operations: Sequence[Asked], connection: Connection) -> Iterator[Asked]:
    """Ask again, with its key, for everything that was refused or not answered."""
    for asked in operations:
        if not asked.is_settled:
            again = ask(connection, asked.request)
            assert again.is_settled, (asked, again)
            yield again


def ask_again(operations: Sequence[Asked], connection: Connection) -> Iterator[Asked]:
    for asked in operations[:: max(1, len(operations) // REPEATS)]:
        again = ask(connection, asked.request)
        assert again.answer
        assert again.answer.headers["idempotent-replayed"] == "true"
        yield again


def expect_verified(database: Database, wallet_ids: Collection[str]) -> None:
    config = settings.DATABASES["reader"] | environ.Env.db_url_config(database.cluster.url())
    connection = ConnectionHandler({"default": config})["default"]
    with closing(connection), patch.object(consistent_read, "connection", connection):
        assert verify.verify([UUID(wallet_id) for wallet_id in wallet_ids]) == []

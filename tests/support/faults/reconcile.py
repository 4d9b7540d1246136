"""Compare the clients' journal with the ledger: each answered operation exists once, as answered."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from unittest.mock import patch
from uuid import UUID

import environ
from django.conf import settings
from django.db.utils import ConnectionHandler

from tests.support.faults.clients import SentRequest, ask
from tests.support.faults.database import Database
from tests.support.histories.checker import check
from tests.support.histories.journal import NEVER, Call, Connection, History
from tests.support.histories.ledger import read
from wallets.ledger import consistent_read, verify

REPLAYS = 50  # requests that are sent again, evenly over the journal


def reconcile(
    journal: Sequence[SentRequest], database: Database, address: tuple[str, int], wallet_ids: Collection[str]
) -> None:
    calls = [call(sent) for sent in journal]
    # Check before any request is sent again: a refused request must not be in the ledger.
    expect_one_history(calls, database, wallet_ids)
    operations = [sent for sent in journal if sent.is_operation]
    with closing(Connection(address)) as connection:
        calls += map(call, settle(operations, connection))
        calls += map(call, ask_again(operations, connection))
    expect_one_history(calls, database, wallet_ids)
    expect_verified(database, wallet_ids)


def call(sent: SentRequest) -> Call:
    ended = sent.ended_at if sent.answer else NEVER
    return Call(0, sent.request, sent.sent_at, ended, sent.answer, sent.lost)


def expect_one_history(calls: Sequence[Call], database: Database, wallet_ids: Collection[str]) -> None:
    opened = [
        call.request.body["id"] for call in calls if call.request.path == "/wallets" and call.request.body
    ]
    history = History(calls, [*wallet_ids, *opened], time.time() - time.monotonic())
    found = check(history, read(database.cluster.url(), history.wallet_ids))
    # Each test checks which responses are allowed.
    wrong = [violation for violation in found if violation.rule != "server error"]
    assert not wrong, "\n".join(map(str, wrong[:5]))


def settle(operations: Sequence[SentRequest], connection: Connection) -> Iterator[SentRequest]:
    """Send every refused or unanswered request again, with its key."""
    for sent in operations:
        if not sent.is_settled:
            again = ask(connection, sent.request)
            assert again.is_settled, (sent, again)
            yield again


def ask_again(operations: Sequence[SentRequest], connection: Connection) -> Iterator[SentRequest]:
    for sent in operations[:: max(1, len(operations) // REPLAYS)]:
        again = ask(connection, sent.request)
        assert again.answer
        assert again.answer.headers["idempotent-replayed"] == "true"
        yield again


def expect_verified(database: Database, wallet_ids: Collection[str]) -> None:
    config = settings.DATABASES["reader"] | environ.Env.db_url_config(database.cluster.url())
    connection = ConnectionHandler({"default": config})["default"]
    with closing(connection), patch.object(consistent_read, "connection", connection):
        assert verify.verify([UUID(wallet_id) for wallet_id in wallet_ids]) == []

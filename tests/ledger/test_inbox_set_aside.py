"""Inbox entries that fail are retried, then set aside until an operator retries or rejects them."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.contrib.admin.models import LogEntry
from django.db import Error, connection
from django.test import Client

from tests.admin.test_wallets_and_operations import logged_in, new_user, shown, text_of
from tests.conftest import Books
from tests.ledger.test_inbox import (
    deposit_later,
    drain_all,
    later,
    left,
    operation,
    status,
    transfer,
    withdraw_later,
)
from tests.observability.test_metrics import scrape
from tests.support.client import Api
from tests.support.cluster import cluster
from wallets import database_retry
from wallets.ledger import inbox_failures
from wallets.ledger.inbox import Drain, drain, waiting
from wallets.ledger.inbox_failures import CannotBeRejected, NotSetAside, reject, retry
from wallets.models import InboxEntry, Operation

INBOX = "/admin/wallets/inboxentry/"
OPERATIONS = "/admin/wallets/operation/"
MAX = inbox_failures.MAX_ATTEMPTS


@pytest.fixture
def database() -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Return a superuser's connection, which can make changes that no request can make."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as opened:
        yield opened


Database = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(autouse=True)
def _only_own_entries(database: Database) -> Iterator[None]:
    drain_all()
    database.execute("DELETE FROM inbox")
    yield
    database.execute("DELETE FROM inbox")


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without a pause."""
    monkeypatch.setattr(inbox_failures, "RETRY_PAUSES_SECONDS", (0,) * (MAX - 1))


def add_entry(database: Database, wallet_id: str, type: str, **columns: Any) -> UUID:
    row = {"id": uuid4(), "wallet_id": wallet_id, "type": type, "amount": 1, **columns}
    names = ", ".join(row)
    values = ", ".join(f"%({name})s" for name in row)
    database.execute(f"INSERT INTO inbox ({names}, created_at) VALUES ({values}, now())", row)
    id: UUID = row["id"]
    return id


def entry(id: UUID | str) -> InboxEntry:
    return InboxEntry.objects.defer("metadata").get(id=id)


def set_aside(api: Api, database: Database, wallet_id: str | None = None) -> UUID:
    """Set aside a valid deposit, as if its earlier attempts had failed."""
    accepted = deposit_later(api, wallet_id or api.open(), 5)
    database.execute(
        "UPDATE inbox SET attempts = %s, last_error = 'disk full', set_aside_at = now() WHERE id = %s",
        [MAX, accepted.json["id"]],
    )
    return UUID(accepted.json["id"])


# --- Entries that cannot be carried out -------------------------------------------------------------
def reversal_of_nothing(api: Api, database: Database, wallet_id: str) -> UUID:
    return add_entry(database, wallet_id, "REVERSAL_OUT", reverses_id=uuid4())


def capture_of_no_hold(api: Api, database: Database, wallet_id: str) -> UUID:
    return add_entry(database, wallet_id, "CAPTURE", hold_id=uuid4(), takes_rest=False)


def capture_of_anothers_hold(api: Api, database: Database, wallet_id: str) -> UUID:
    hold_id = api.hold(api.open(deposit="5"), 5).json["id"]
    return add_entry(database, wallet_id, "CAPTURE", hold_id=hold_id, takes_rest=False)


def type_that_is_never_accepted(api: Api, database: Database, wallet_id: str) -> UUID:
    return add_entry(database, wallet_id, "HOLD")


def transfer_to_no_wallet(api: Api, database: Database, wallet_id: str) -> UUID:
    return add_entry(database, wallet_id, "TRANSFER_OUT", counterparty_id=uuid4())


def id_of_another_operation(api: Api, database: Database, wallet_id: str) -> UUID:
    return add_entry(database, wallet_id, "DEPOSIT", id=UUID(api.deposit(wallet_id, 1).json["id"]))


def metadata_that_cannot_be_read(api: Api, database: Database, wallet_id: str) -> UUID:
    nested = '{"a": ' + "[" * 2000 + "]" * 2000 + "}"
    return add_entry(database, wallet_id, "DEPOSIT", metadata=nested)


KINDS = [
    reversal_of_nothing,
    capture_of_no_hold,
    capture_of_anothers_hold,
    type_that_is_never_accepted,
    transfer_to_no_wallet,
    id_of_another_operation,
    metadata_that_cannot_be_read,
]
Kind = Callable[[Api, Database, str], UUID]


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_failing_entry_is_set_aside(api: Api, database: Database, kind: Kind) -> None:
    wallet_id, other = api.open(), api.open()
    entry_id = kind(api, database, wallet_id)
    deposit_later(api, wallet_id, 3)
    before = api.balance(wallet_id)
    for attempt in range(1, MAX):
        deposit_later(api, other, 1)
        assert drain(500) == 1  # the other wallet's
        assert (entry(entry_id).attempts, entry(entry_id).set_aside_at) == (attempt, None)
        assert api.balance(wallet_id) == before  # its later entries wait
    drain(500)
    found = entry(entry_id)
    assert found.attempts == MAX
    assert found.set_aside_at is not None
    assert found.last_error
    drain_all()
    assert float(api.balance(wallet_id)) == float(before) + 3
    assert float(api.balance(other)) == MAX - 1
    assert left(wallet_id, other) == 1
    assert entry(entry_id).attempts == MAX


@pytest.mark.usefixtures("no_pauses")
def test_capture_without_its_hold_delays_no_other_wallet(api: Api, database: Database) -> None:
    """An attacker's capture fails, and transfers to the attacker must not delay other wallets."""
    attacker, victim, stranger = api.open(deposit="10"), api.open(deposit="5"), api.open()
    hold_id = api.hold(attacker, 10).json["id"]
    capture = later(api, f"/holds/{hold_id}/capture", {}).json["id"]
    paying = later(api, "/transfers", transfer(victim, attacker, 1))
    chained = later(api, "/transfers", transfer(victim, stranger, 2))
    own = withdraw_later(api, victim, 1)
    unrelated = deposit_later(api, stranger, 1)
    database.execute("UPDATE inbox SET hold_id = gen_random_uuid() WHERE id = %s", [capture])
    for _ in range(MAX + 1):
        drain(500)
    assert entry(capture).set_aside_at is not None
    found = [operation(api, accepted)["status"] for accepted in (chained, own, unrelated)]
    assert found == ["COMPLETED"] * 3
    assert api.get(f"/transfers/{paying.json['source']['id']}").json["status"] == "COMPLETED"
    assert api.operation(capture)["status"] == "PENDING"
    assert (api.balance(victim), api.balance(attacker)) == ("1.00", "11.00")
    Books((victim, stranger)).verify()


def test_next_attempt_waits_for_its_pause(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_failures, "RETRY_PAUSES_SECONDS", (3600,) * (MAX - 1))
    entry_id = reversal_of_nothing(api, database, api.open())
    for _ in range(3):
        drain(500)
    assert entry(entry_id).attempts == 1
    database.execute("UPDATE inbox SET next_attempt_at = now() WHERE id = %s", [entry_id])
    drain(500)
    assert entry(entry_id).attempts == 2


def test_retry_pauses_grow() -> None:
    pauses = inbox_failures.RETRY_PAUSES_SECONDS
    assert list(pauses) == sorted(set(pauses))
    assert sum(pauses) < 60  # the other entries of its wallets wait for this time


def test_temporary_failure_keeps_the_order(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_failures, "RETRY_PAUSES_SECONDS", (0,) * (MAX - 1))
    source, target = api.open(deposit="5"), api.open()
    hold_id = api.hold(source, 5).json["id"]
    capture = later(api, f"/holds/{hold_id}/capture", {})
    database.execute("UPDATE inbox SET hold_id = gen_random_uuid() WHERE id = %s", [capture.json["id"]])
    payment = later(api, "/transfers", transfer(source, target, 1))
    drain(500)
    assert entry(capture.json["id"]).attempts == 1
    database.execute("UPDATE inbox SET hold_id = %s WHERE id = %s", [hold_id, capture.json["id"]])
    drain_all()
    assert operation(api, capture)["status"] == "COMPLETED"
    assert api.get(f"/transfers/{payment.json['id']}").json["reason"] == "insufficient_funds"
    assert left(source, target) == 0
    Books((source, target)).verify()


@pytest.mark.usefixtures("no_pauses")
def test_wallet_retries_one_entry_at_a_time(api: Api, database: Database) -> None:
    wallet_id, victim = api.open(deposit="5"), api.open()
    first = reversal_of_nothing(api, database, wallet_id)
    others = [reversal_of_nothing(api, database, wallet_id) for _ in range(3)]
    later(api, "/transfers", transfer(wallet_id, victim, 5))
    withdrawal = withdraw_later(api, victim, 5)
    for _ in range(MAX + 4):
        drain(500)
    assert entry(first).attempts == MAX
    assert [entry(id).attempts for id in others] == [1, 1, 1]
    assert all(entry(id).set_aside_at for id in others)
    assert operation(api, withdrawal)["status"] == "COMPLETED"


def test_recorded_error_is_bounded_and_may_have_any_character(api: Api) -> None:
    accepted = deposit_later(api, api.open(), 1)
    (claimed,) = [found for found in _claimed() if str(found.id) == accepted.json["id"]]
    inbox_failures.record_failure(claimed, ValueError("\x00\ud800 " + "x" * 1000))
    assert len(entry(accepted.json["id"]).last_error) == 500
    drain_all()


def _claimed() -> list[Any]:
    from wallets.ledger.inbox_claim import Turns

    return Turns().claim(500, [])


# --- Entries that end the process or its connection -------------------------------------------------
@pytest.fixture
def connection_ending_wallet(api: Api, database: Database) -> Iterator[str]:
    """Return a wallet whose operations end the connection that inserts them."""
    wallet_id = api.open()
    database.execute(
        "CREATE FUNCTION end_connection() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        " $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END$$"
    )
    database.execute(
        "CREATE TRIGGER end_connection BEFORE INSERT ON operation FOR EACH ROW"
        f" WHEN (NEW.wallet_id = '{wallet_id}') EXECUTE FUNCTION end_connection()"
    )
    yield wallet_id
    database.execute("DROP FUNCTION end_connection CASCADE")


def run_or_reconnect(own: Drain) -> int:
    """Run the drain. Reconnect after a lost connection, as the worker does."""
    try:
        return own.run(500)
    except Error as error:
        if not database_retry.is_connection_lost(error):
            raise
        database_retry.reconnect("default")
        return 0


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("has_died", [False, True], ids=["connection lost", "process ended"])
def test_entry_that_ends_its_connection_is_set_aside(
    api: Api, connection_ending_wallet: str, has_died: bool
) -> None:
    other = api.open()
    accepted = [deposit_later(api, other, 1) for _ in range(3)]
    failing = deposit_later(api, connection_ending_wallet, 1)
    accepted += [deposit_later(api, other, 1) for _ in range(3)]
    own = Drain(careful=has_died)
    for _ in range(40):
        if has_died:
            own = Drain(careful=True)  # a new process has no memory of the failures
        run_or_reconnect(own)
        if entry(failing.json["id"]).set_aside_at:
            break
    found = entry(failing.json["id"])
    assert found.attempts == MAX
    assert found.last_error == inbox_failures.ENDED
    run_or_reconnect(own := Drain())
    run_or_reconnect(own)
    assert {operation(api, one)["status"] for one in accepted} == {"COMPLETED"}
    assert api.balance(other) == "6.00"


def test_careful_drain_grows_and_loses_nothing(api: Api) -> None:
    wallet_id = api.open()
    for _ in range(10):
        deposit_later(api, wallet_id, 1)
    own = Drain(careful=True)
    assert [own.run(500) for _ in range(5)] == [1, 2, 4, 3, 0]
    assert api.balance(wallet_id) == "10.00"
    Books((wallet_id,)).verify()


def test_careful_attempt_skips_a_locked_wallet(api: Api, database: Database) -> None:
    wallet_id = api.open()
    accepted = deposit_later(api, wallet_id, 1)
    with psycopg.connect(cluster.url("postgres")) as other:
        other.execute("SELECT FROM wallet WHERE id = %s FOR UPDATE", [wallet_id])
        assert Drain(careful=True).run(500) == 0
    assert entry(accepted.json["id"]).attempts == 0


# --- Visibility -------------------------------------------------------------------------------------
def test_set_aside_entry_stays_pending_and_its_key_taken(api: Api, database: Database) -> None:
    wallet_id = api.open()
    first = deposit_later(api, wallet_id, 5, key="k")
    database.execute("UPDATE inbox SET set_aside_at = now() WHERE id = %s", [first.json["id"]])
    drain_all()
    assert operation(api, first) == first.json
    assert deposit_later(api, wallet_id, 5, key="k").json == first.json
    assert deposit_later(api, wallet_id, 6, key="k").code == "idempotency_key_reused"


def test_status_counts_waiting_and_set_aside_entries(api: Api, database: Database) -> None:
    set_aside(api, database)
    assert status() == "the inbox is empty; 1 are set aside\n"
    deposit_later(api, api.open(), 1)
    assert (waiting().entries, waiting().set_aside) == (1, 1)
    assert status().endswith(" s; 1 are set aside\n")


@pytest.mark.usefixtures("no_pauses")
def test_metrics_count_failures_and_set_aside_entries(api: Api, database: Database) -> None:
    before = scrape(api)
    assert before.sum("walletsvc_inbox_set_aside") == 0
    reversal_of_nothing(api, database, api.open())
    for _ in range(MAX):
        drain(500)
    after = scrape(api)
    assert after.sum("walletsvc_inbox_set_aside") == 1
    assert after.sum("walletsvc_inbox_entries") == after.sum("walletsvc_inbox_age_seconds") == 0
    name = "walletsvc_inbox_failures_total"
    assert after.sum(name) - before.sum(name) == MAX


# --- Retrying ---------------------------------------------------------------------------------------
def test_retried_entry_is_carried_out_before_later_entries(api: Api, database: Database) -> None:
    wallet_id = api.open()
    entry_id = set_aside(api, database, wallet_id)
    withdrawal = withdraw_later(api, wallet_id, 5)
    retry(entry_id)
    found = entry(entry_id)
    assert (found.attempts, found.last_error, found.set_aside_at) == (0, "", None)
    drain_all()
    assert operation(api, withdrawal)["status"] == "COMPLETED"
    Books((wallet_id,)).verify()


@pytest.mark.usefixtures("no_pauses")
def test_retried_entry_that_fails_again_is_set_aside_again(api: Api, database: Database) -> None:
    entry_id = reversal_of_nothing(api, database, api.open())
    for _ in range(2):
        for _ in range(MAX):
            drain(500)
        assert entry(entry_id).set_aside_at is not None
        retry(entry_id)


@pytest.mark.parametrize("decide", [retry, reject])
def test_only_set_aside_entries_can_be_retried_or_rejected(
    api: Api, database: Database, decide: Callable[[UUID], None]
) -> None:
    wallet_id = api.open()
    accepted = UUID(deposit_later(api, wallet_id, 1).json["id"])
    for entry_id in (accepted, uuid4()):
        with pytest.raises(NotSetAside):
            decide(entry_id)
    assert left(wallet_id) == 1
    assert not Operation.objects.filter(wallet_id=wallet_id).exists()


# --- Rejecting --------------------------------------------------------------------------------------
def test_rejected_entry_is_in_the_history_and_moves_no_money(api: Api, database: Database) -> None:
    wallet_id = api.open(deposit="1")
    entry_id = set_aside(api, database, wallet_id)
    accepted = api.operation(str(entry_id))
    reject(entry_id)
    rejected = api.history(wallet_id)[0]
    assert rejected["reason"] == "rejected_by_operator"
    unlike = {name for name in rejected if rejected[name] != accepted[name]}
    assert unlike == {"status", "reason", "createdAt"}
    assert (left(wallet_id), api.balance(wallet_id)) == (0, "1.00")
    Books((wallet_id,)).verify()
    with pytest.raises(NotSetAside):
        reject(entry_id)


def test_rejected_transfer_is_in_the_history_of_its_source(api: Api, database: Database) -> None:
    source, target = api.open(deposit="5"), api.open()
    accepted = later(api, "/transfers", transfer(source, target, 5)).json
    database.execute("UPDATE inbox SET set_aside_at = now() WHERE id = %s", [accepted["id"]])
    reject(UUID(accepted["id"]))
    done = api.get(f"/transfers/{accepted['id']}").json
    assert (done["status"], done["reason"], done["target"]) == ("REJECTED", "rejected_by_operator", None)
    Books((source, target)).verify()


def test_replay_of_a_rejected_entry_gets_the_first_response(api: Api, database: Database) -> None:
    wallet_id = api.open()
    first = deposit_later(api, wallet_id, 5, key="k")
    database.execute("UPDATE inbox SET set_aside_at = now() WHERE id = %s", [first.json["id"]])
    reject(UUID(first.json["id"]))
    for again in (deposit_later(api, wallet_id, 5, key="k"), api.deposit(wallet_id, 5, key="k")):
        assert (again.status, again.json) == (202, first.json)


@pytest.mark.parametrize(
    "kind",
    [capture_of_no_hold, capture_of_anothers_hold, reversal_of_nothing, transfer_to_no_wallet],
)
def test_rejection_ignores_the_objects_that_the_entry_names(api: Api, database: Database, kind: Kind) -> None:
    wallet_id = api.open(deposit="9")
    entry_id = kind(api, database, wallet_id)
    database.execute("UPDATE inbox SET set_aside_at = now() WHERE id = %s", [entry_id])
    was = entry(entry_id)
    reject(entry_id)
    done = Operation.objects.get(id=entry_id)
    assert (done.status, done.reason, done.sequence) == ("REJECTED", "rejected_by_operator", None)
    assert (done.hold_id, done.reverses_id, done.takes_rest) == (was.hold_id, was.reverses_id, was.takes_rest)
    assert (done.counterparty_id, done.accepted_at) == (was.counterparty_id, was.created_at)
    assert (left(wallet_id), api.balance(wallet_id)) == (0, "9.00")
    assert api.deposit(wallet_id, 1).status == 201  # the chain continues
    Books((wallet_id,)).verify()


def test_rejection_refused_by_the_ledger_changes_nothing(api: Api, database: Database) -> None:
    wallet_id = api.open()
    entry_id = id_of_another_operation(api, database, wallet_id)
    database.execute("UPDATE inbox SET set_aside_at = now() WHERE id = %s", [entry_id])
    with pytest.raises(CannotBeRejected):
        reject(entry_id)
    assert left(wallet_id) == 1
    assert len(api.history(wallet_id)) == 1


def test_rejection_of_a_locked_entry_changes_nothing(api: Api, database: Database) -> None:
    entry_id = set_aside(api, database)
    client = operator()
    with psycopg.connect(cluster.url("postgres")) as other:
        other.execute("SELECT FROM inbox WHERE id = %s FOR UPDATE", [entry_id])
        response = client.post(f"{INBOX}{entry_id}/reject/", {"comment": "x"}, follow=True)
        assert "busy for too long" in text_of(response)
    assert entry(entry_id).set_aside_at is not None
    assert audit_of(entry_id) == []


# --- The admin --------------------------------------------------------------------------------------
def operator(*permissions: str) -> Client:
    return logged_in(
        new_user(*(permissions or ("view_inboxentry", "view_operation", "view_wallet", "adjust_wallet")))
    )


def audit_of(entry_id: UUID) -> list[str]:
    found = LogEntry.objects.filter(object_id=str(entry_id)).order_by("id")
    return list(found.values_list("change_message", flat=True))


def test_list_shows_and_filters_set_aside_entries(api: Api, database: Database) -> None:
    wallet_id = api.open()
    entry_id = set_aside(api, database, wallet_id)
    waits = deposit_later(api, wallet_id, 1).json["id"]
    client = operator()
    for query, ids in (
        ({}, {str(entry_id), waits}),
        ({"state": "set-aside"}, {str(entry_id)}),
        ({"state": "waiting"}, {waits}),
        ({"state": "nonsense"}, {str(entry_id), waits}),
    ):
        html = shown(client, INBOX, **query)
        assert set(re.findall(rf'href="{INBOX}([0-9a-f-]{{36}})/change/', html)) == ids
    html = shown(client, INBOX)
    assert "disk full" in html
    assert re.search(r"<strong>1</strong>\s+set aside", html)
    assert "disk full" in shown(client, f"{INBOX}{entry_id}/change/")


def test_operator_retries_an_entry(api: Api, database: Database) -> None:
    entry_id = set_aside(api, database)
    client, where = operator(), f"{INBOX}{entry_id}/retry/"
    assert f'"{where}"' in shown(client, f"{INBOX}{entry_id}/change/")
    assert "set aside after 5 attempts" in shown(client, where)
    assert entry(entry_id).set_aside_at is not None  # a GET request changes nothing
    assert "Retried." in text_of(client.post(where, follow=True))
    assert audit_of(entry_id) == ["Retried"]
    assert "no longer set aside" in text_of(client.post(where, follow=True))  # a double click
    assert audit_of(entry_id) == ["Retried"]
    assert f'"{where}"' not in shown(client, f"{INBOX}{entry_id}/change/")
    drain_all()
    response = client.post(where)
    assert (response.status_code, response["Location"]) == (302, f"{OPERATIONS}{entry_id}/change/")


def test_operator_rejects_an_entry_with_a_comment(api: Api, database: Database) -> None:
    wallet_id = api.open()
    entry_id = set_aside(api, database, wallet_id)
    client, where = operator(), f"{INBOX}{entry_id}/reject/"
    assert "No money moves" in shown(client, where)
    for nothing in ({}, {"comment": " "}, {"comment": "x" * 501}):
        assert client.post(where, nothing).status_code == 200
        assert entry(entry_id).set_aside_at is not None
    response = client.post(where, {"comment": "Order cancelled"}, follow=True)
    assert response.redirect_chain[-1][0] == f"{OPERATIONS}{entry_id}/change/"
    assert "rejected_by_operator" in text_of(response)
    assert audit_of(entry_id) == ["Rejected: Order cancelled"]
    again = client.post(where, {"comment": "Order cancelled"}, follow=True)
    assert "The entry has been processed: the operation is REJECTED" in text_of(again)
    assert audit_of(entry_id) == ["Rejected: Order cancelled"]
    assert len(api.history(wallet_id)) == 1
    Books((wallet_id,)).verify()


def test_entry_retried_before_the_rejection_is_not_rejected(api: Api, database: Database) -> None:
    entry_id = set_aside(api, database)
    client = operator()
    retry(entry_id)
    response = client.post(f"{INBOX}{entry_id}/reject/", {"comment": "x"}, follow=True)
    assert "no longer set aside" in text_of(response)
    assert entry(entry_id).set_aside_at is None
    assert audit_of(entry_id) == []


def test_failed_rejection_is_shown_and_not_audited(api: Api, database: Database) -> None:
    wallet_id = api.open()
    entry_id = id_of_another_operation(api, database, wallet_id)
    database.execute("UPDATE inbox SET set_aside_at = now() WHERE id = %s", [entry_id])
    response = operator().post(f"{INBOX}{entry_id}/reject/", {"comment": "x"}, follow=True)
    assert "The ledger cannot record the rejection" in text_of(response)
    assert audit_of(entry_id) == []
    assert left(wallet_id) == 1


@pytest.mark.parametrize("what", ["retry", "reject"])
@pytest.mark.parametrize(
    "permissions", [("view_inboxentry",), ("view_inboxentry", "change_wallet"), ("adjust_wallet",)]
)
def test_retry_and_reject_need_their_permissions(
    api: Api, database: Database, what: str, permissions: tuple[str, ...]
) -> None:
    entry_id = set_aside(api, database)
    client, where = operator(*permissions), f"{INBOX}{entry_id}/{what}/"
    assert client.get(where).status_code == 403
    assert client.post(where, {"comment": "x"}).status_code == 403
    assert Client().post(where, {"comment": "x"}).status_code == 302
    assert entry(entry_id).set_aside_at is not None
    if "view_inboxentry" in permissions:
        assert f'"{where}"' not in shown(client, f"{INBOX}{entry_id}/change/")


def test_error_of_an_entry_is_escaped(api: Api, database: Database) -> None:
    entry_id = set_aside(api, database)
    markup = "<script>alert(1)</script>"
    database.execute("UPDATE inbox SET last_error = %s WHERE id = %s", [markup, entry_id])
    client = operator()
    for where in (INBOX, f"{INBOX}{entry_id}/change/", f"{INBOX}{entry_id}/reject/"):
        html = shown(client, where)
        assert markup not in html
        assert "&lt;script&gt;alert(1)" in html


def test_set_aside_list_uses_its_index(database: Database) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("EXPLAIN SELECT FROM inbox WHERE set_aside_at IS NOT NULL ORDER BY position LIMIT 51")
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("RESET enable_seqscan")
    assert "inbox_set_aside_idx" in plan

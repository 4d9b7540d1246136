"""Holds, transfers, the inbox and the balance chart in the admin."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.admin.test_wallets_and_operations import logged_in, new_user, new_wallet, page, plan_of, shown
from tests.conftest import Unchanged
from tests.support.cluster import cluster
from wallets import chart
from wallets.ledger import inbox, submit
from wallets.ledger.commands import CaptureHold, Deposit, MakeTransfer, PlaceHold, Reverse, VoidHold, Withdraw
from wallets.ledger.decisions import Posted
from wallets.ledger.lookups import original
from wallets.models import Hold, InboxEntry, Operation, Wallet
from wallets.money import FRACTION_DIGITS
from wallets.problems import Problem

pytestmark = pytest.mark.usefixtures("quick_hashing")

HOLDS = "/admin/wallets/hold/"
INBOX = "/admin/wallets/inboxentry/"
OPERATIONS = "/admin/wallets/operation/"
TRANSFERS = "/admin/wallets/transfer/"
LISTS = (HOLDS, INBOX, OPERATIONS, TRANSFERS)


@pytest.fixture
def client() -> Client:
    return logged_in(new_user("view_wallet", "view_operation", "view_hold", "view_inboxentry"))


@pytest.fixture
def queries() -> Iterator[Callable[[], list[str]]]:
    with CaptureQueriesContext(connection) as captured:
        yield lambda: [query["sql"] for query in captured.captured_queries]


Queries = Callable[[], list[str]]


def place(wallet: Wallet, amount: str, **fields: Any) -> UUID:
    return submit(PlaceHold(wallet_id=wallet.id, amount=Decimal(amount), **fields)).operation.id


def pay(source: Wallet, target: Wallet, amount: str, **fields: Any) -> Posted:
    command = MakeTransfer(wallet_id=source.id, target_id=target.id, amount=Decimal(amount), **fields)
    return submit(command)


def accept(wallet: Wallet, amount: str, **fields: Any) -> UUID:
    command = Deposit(wallet_id=wallet.id, amount=Decimal(amount), is_async=True, **fields)
    return submit(command).operation.id


def expired_hold(wallet: Wallet, amount: str) -> UUID:
    """An expired hold that no transaction has recorded."""
    hold_id = place(wallet, amount, expires_at=datetime.now(UTC) + timedelta(seconds=0.3))
    while not Hold.objects.as_of_now(Hold.Status.EXPIRED).filter(id=hold_id).exists():
        time.sleep(0.05)
    assert Hold.objects.get(id=hold_id).status == Hold.Status.ACTIVE
    return hold_id


def address(where: str, id: UUID | None) -> str:
    return f"{where}{id}/change/"


def rows_in(html: str, where: str) -> list[str]:
    return re.findall(rf'href="{where}([0-9a-f-]{{36}})/change/', html)


# --- Lists ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def crowded_tables() -> Iterator[None]:
    """Add rows of 300 wallets, and statistics: in a small table any index costs as little as another."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
        database.execute("SET session_replication_role = replica")  # the holds need no operations
        database.execute(
            "INSERT INTO wallet (id, currency, label)"
            " SELECT gen_random_uuid(), 'EUR', 'crowd' FROM generate_series(1, 300)"
        )
        database.execute(
            "INSERT INTO inbox (id, wallet_id, type, amount, created_at)"
            " SELECT gen_random_uuid(), id, 'DEPOSIT', 1, now() FROM wallet, generate_series(1, 10)"
            " WHERE label = 'crowd'"
        )
        database.execute(
            "INSERT INTO hold (id, wallet_id, amount, status, created_at)"
            " SELECT gen_random_uuid(), id, 1, 'ACTIVE', now() - random() * interval '90 days'"
            " FROM wallet, generate_series(1, 10) WHERE label = 'crowd'"
        )
        database.execute("ANALYZE inbox, hold, wallet")
        yield
        database.execute("DELETE FROM inbox USING wallet WHERE wallet.id = wallet_id AND label = 'crowd'")
        database.execute("DELETE FROM hold USING wallet WHERE wallet.id = wallet_id AND label = 'crowd'")


@pytest.mark.usefixtures("crowded_tables")
@pytest.mark.parametrize(
    ("where", "query", "index"),
    [
        (HOLDS, {}, "hold_newest_idx"),
        (HOLDS, {"created_at_from": "2026-01-01T00:00"}, "hold_newest_idx"),
        (HOLDS, {"q": "WALLET"}, "hold_wallet_idx"),
        (HOLDS, {"q": "HOLD"}, "hold_pk"),
        (TRANSFERS, {}, "operation_transfer_newest_idx"),
        (INBOX, {}, "inbox_position_idx"),
        (INBOX, {"q": "WALLET"}, "inbox_wallet_idx"),
        (INBOX, {"q": "ENTRY"}, "inbox_pk"),
    ],
)
def test_list_uses_an_index_and_every_count_has_a_limit(
    client: Client, queries: Queries, where: str, query: dict[str, str], index: str
) -> None:
    wallet = new_wallet("1")
    ids = {"WALLET": str(wallet.id), "HOLD": str(place(wallet, "1")), "ENTRY": str(accept(wallet, "1"))}
    shown(client, where, **{name: ids.get(value, value) for name, value in query.items()})
    (read,) = (sql for sql in queries() if "LIMIT 51" in sql)
    assert index in plan_of(read, "seqscan", "bitmapscan", "hashjoin", "mergejoin")
    assert not [sql for sql in queries() if "COUNT(" in sql.upper() and "LIMIT" not in sql]


@pytest.mark.parametrize("query", [{"q": "\x00"}, {"status": "\x00"}, {"status": "NONE"}, {"q": "order-7"}])
def test_invalid_query_of_a_list_is_no_error(client: Client, query: dict[str, str]) -> None:
    for where in LISTS:
        assert client.get(where, query, follow=True).status_code == 200


# --- Holds ------------------------------------------------------------------------------------------
def test_holds_are_filtered_by_their_current_status(client: Client) -> None:
    wallet = new_wallet("100")
    holds = {
        "ACTIVE": place(wallet, "1"),
        "CAPTURED": place(wallet, "2"),
        "VOIDED": place(wallet, "3"),
    }
    submit(CaptureHold(wallet_id=wallet.id, hold_id=holds["CAPTURED"]))
    submit(VoidHold(wallet_id=wallet.id, hold_id=holds["VOIDED"]))
    holds["EXPIRED"] = expired_hold(wallet, "4")
    for status, hold_id in holds.items():
        html = shown(client, HOLDS, q=str(wallet.id), status=status)
        assert rows_in(html, HOLDS) == [str(hold_id)]
        assert status in shown(client, address(HOLDS, hold_id))


def test_holds_are_filtered_by_currency(client: Client) -> None:
    wallet = new_wallet("100", currency="KWD")
    hold_id = place(wallet, "1")
    assert rows_in(shown(client, HOLDS, q=str(wallet.id), currency="KWD"), HOLDS) == [str(hold_id)]
    assert rows_in(shown(client, HOLDS, q=str(wallet.id), currency="EUR"), HOLDS) == []


def test_hold_page_lists_all_operations_on_the_hold(client: Client) -> None:
    wallet = new_wallet("100")
    hold_id = place(wallet, "20", description="Order 7")
    captured = submit(CaptureHold(wallet_id=wallet.id, hold_id=hold_id, amount=Decimal(15))).operation
    with pytest.raises(Problem) as refusal:
        submit(VoidHold(wallet_id=wallet.id, hold_id=hold_id))
    html = shown(client, address(HOLDS, hold_id))
    assert set(rows_in(html, OPERATIONS)) == {str(hold_id), str(captured.id), str(refusal.value.operation_id)}
    assert page(wallet) in html
    for text in ("20.00 EUR", "15.00 EUR", "CAPTURED", "Order 7", "hold_not_active"):
        assert text in html


def test_operation_links_to_the_hold_it_placed_or_ended(client: Client) -> None:
    wallet = new_wallet("100")
    hold_id = place(wallet, "20")
    ended = submit(VoidHold(wallet_id=wallet.id, hold_id=hold_id)).operation
    for operation_id in (hold_id, ended.id):
        assert rows_in(shown(client, address(OPERATIONS, operation_id)), HOLDS) == [str(hold_id)]
    with pytest.raises(Problem) as refusal:
        place(wallet, "1000")
    assert rows_in(shown(client, address(OPERATIONS, refusal.value.operation_id)), HOLDS) == []


# --- Transfers and reversals ------------------------------------------------------------------------
def test_transfer_page_lists_both_sides_and_reversals(client: Client) -> None:
    source, target = new_wallet("100", label="Anna"), new_wallet(label="Hotel")
    paid = pay(source, target, "30", description="Room 12")
    assert paid.counterpart
    wallet_id, to_reverse = original(paid.operation.id)
    back = submit(Reverse(wallet_id=wallet_id, original=to_reverse, amount=Decimal(5)))
    assert back.counterpart
    html = shown(client, address(TRANSFERS, paid.operation.id))
    sides = [paid.operation.id, paid.counterpart.id, back.operation.id, back.counterpart.id]
    assert rows_in(html, OPERATIONS) == [str(side) for side in sides]
    assert {page(source), page(target)} <= set(re.findall(r'href="([^"]+)"', html))
    for text in ("Transfer Out", "Transfer In", "Reversal In", "Reversal Out", "70.00", "75.00", "Room 12"):
        assert text in html


def test_refused_transfer_has_a_page(client: Client) -> None:
    source, target = new_wallet(), new_wallet(label="Hotel Adler")
    with pytest.raises(Problem) as refusal:
        pay(source, target, "30")
    html = shown(client, address(TRANSFERS, refusal.value.operation_id))
    assert "insufficient_funds" in html
    assert "Hotel Adler" in html


def test_transfer_is_listed_only_for_its_source_wallet(client: Client) -> None:
    source, target = new_wallet("100"), new_wallet("100")
    paid = pay(source, target, "30", key="rent")
    submit(Withdraw(wallet_id=source.id, amount=Decimal(1)))
    for term in (str(source.id), f"{source.id} rent", str(paid.operation.id)):
        assert rows_in(shown(client, TRANSFERS, q=term), TRANSFERS) == [str(paid.operation.id)]
    assert rows_in(shown(client, TRANSFERS, q=str(target.id)), TRANSFERS) == []


def test_sides_of_a_transfer_and_reversals_link_to_each_other(client: Client) -> None:
    source, target = new_wallet("100"), new_wallet()
    paid = pay(source, target, "30")
    assert paid.counterpart
    wallet_id, to_reverse = original(paid.counterpart.id)
    back = submit(Reverse(wallet_id=wallet_id, original=to_reverse))
    assert back.counterpart

    def links(operation_id: UUID, where: str) -> set[str]:
        own = {str(operation_id)} if where == OPERATIONS else set()  # the page links to itself
        return set(rows_in(shown(client, address(OPERATIONS, operation_id)), where)) - own

    out, into = paid.operation.id, paid.counterpart.id
    assert links(out, OPERATIONS) == {str(into), str(back.counterpart.id)}
    assert links(into, OPERATIONS) == {str(out), str(back.operation.id)}
    assert links(back.operation.id, OPERATIONS) == {str(into), str(back.counterpart.id)}
    assert links(out, TRANSFERS) == links(into, TRANSFERS) == {str(out)}
    assert links(back.operation.id, TRANSFERS) == set()


# --- Inbox ------------------------------------------------------------------------------------------
def test_inbox_lists_waiting_entries_oldest_first(client: Client) -> None:
    wallet = new_wallet()
    entries = [str(accept(wallet, "1")) for _ in range(3)]
    html = shown(client, INBOX, q=str(wallet.id))
    assert rows_in(html, INBOX) == entries
    waiting = InboxEntry.objects.count()
    assert re.search(rf"<strong>{waiting}</strong> waiting, the oldest for <strong>[0-9]+\s\w+", html)


def test_count_of_inbox_entries_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet = new_wallet()
    for _ in range(3):
        accept(wallet, "1")
    monkeypatch.setattr("wallets.admin.inbox.MAX_COUNTED_ENTRIES", 2)
    assert "<strong>more than 2</strong> waiting" in shown(client, INBOX)


def test_page_of_a_processed_entry_redirects_to_its_operation(client: Client) -> None:
    wallet = new_wallet()
    entry_id = accept(wallet, "7", key="late")
    assert "7.00 EUR" in shown(client, address(INBOX, entry_id))
    while inbox.drain(100):
        pass
    response = client.get(address(INBOX, entry_id))
    assert response.status_code == 302
    assert response["Location"] == address(OPERATIONS, entry_id)
    html = shown(client, response["Location"])
    assert "The entry has been processed: the operation is COMPLETED" in html
    assert "Accepted asynchronously (UTC)" in html
    assert client.get(address(INBOX, uuid4())).status_code == 302


# --- A wallet's page --------------------------------------------------------------------------------
def test_wallet_page_shows_held_amount_and_active_holds(client: Client) -> None:
    wallet = new_wallet("100")
    active = place(wallet, "11", description="Tickets")
    expired_hold(wallet, "30")
    html = shown(client, page(wallet))
    assert rows_in(html, HOLDS) == [str(active)]
    assert re.search(r">\s*11\.00\s*<", html)
    assert re.search(r">\s*89\.00\s*<", html)
    assert "41.00" not in html
    assert f"{HOLDS}?q={wallet.id}" in html
    assert re.search(r">\s*89\.00\s*<", shown(client, "/admin/wallets/wallet/", q=str(wallet.id)))


def test_wallet_page_hides_holds_and_chart_without_permission() -> None:
    wallet = new_wallet("100")
    place(wallet, "11", description="Secret order")
    html = shown(logged_in(new_user("view_wallet")), page(wallet))
    assert "Secret" not in html
    assert "<svg role" not in html


def test_wallet_page_draws_the_balance(client: Client) -> None:
    wallet = new_wallet("100")
    submit(Withdraw(wallet_id=wallet.id, amount=Decimal("40.5")))
    submit(Deposit(wallet_id=wallet.id, amount=Decimal("0.5")))
    html = shown(client, page(wallet))
    (picture,) = re.findall(r"<svg role=\"img\".*?</svg>", html, re.DOTALL)
    label = re.search(r'aria-label="(Balance in EUR from [^"]*)"', picture)
    assert label
    assert "at the end 60.00" in label[1]
    assert f"<title>{label[1]}</title>" in picture
    assert "script" not in picture
    assert "http" not in picture


def test_wallet_without_movements_has_no_chart(client: Client) -> None:
    wallet = new_wallet()
    with pytest.raises(Problem):
        submit(Withdraw(wallet_id=wallet.id, amount=Decimal(1)))
    assert "<svg role" not in shown(client, page(wallet))


# --- Chart ------------------------------------------------------------------------------------------
def test_chart_makes_one_query_for_a_bounded_number_of_points(queries: Queries) -> None:
    wallet = new_wallet()
    for n in range(chart.MAX_SLICES + 20):
        submit(Deposit(wallet_id=wallet.id, amount=Decimal(1), key=f"key-{n}"))
    wallet.refresh_from_db()
    before = len(queries())
    drawn = chart.balance_chart(wallet, wallet.updated_at)
    assert len(queries()[before:]) == 1
    assert drawn
    assert drawn.line.count("H") <= chart.MAX_SLICES + 1
    assert "highest 120.00, at the end 120.00" in drawn.summary


def test_chart_line_steps_at_the_time_of_each_change() -> None:
    wallet = new_wallet("100")
    submit(Withdraw(wallet_id=wallet.id, amount=Decimal(50)))
    wallet.refresh_from_db()
    first, second = Operation.objects.filter(wallet=wallet).order_by("sequence")
    end = second.created_at + (second.created_at - wallet.created_at)
    drawn = chart.balance_chart(wallet, end)
    assert drawn
    across = round((first.created_at - wallet.created_at) / (end - wallet.created_at) * chart.PICTURE_SIZE, 1)
    assert drawn.line == f"M0.0 {chart.PICTURE_SIZE:.1f}H{across}V0.0H500.0V500.0H{chart.PICTURE_SIZE}"
    assert [mark.text for mark in drawn.marks] == ["0", "50", "100"]


def test_chart_begins_with_the_balance_before_its_period() -> None:
    wallet = new_wallet("100")
    later = wallet.updated_at + chart.MAX_PERIOD + timedelta(days=1)
    drawn = chart.balance_chart(wallet, later)
    assert drawn
    assert drawn.line == f"M0.0 0.0H{chart.PICTURE_SIZE}"
    assert "lowest 100.00, highest 100.00, at the end 100.00" in drawn.summary
    assert drawn.times[-1] == f"{later:%Y-%m-%d}"


@pytest.mark.parametrize(
    ("low", "high", "currency", "marks"),
    [
        ("0", "115.60", "EUR", ["0", "50", "100", "150"]),
        ("-30", "100", "EUR", ["-50", "0", "50", "100"]),
        ("-20", "0", "EUR", ["-20", "-10", "0"]),
        ("0", "0.01", "EUR", ["0.00", "0.01"]),
        ("0", "0", "EUR", ["0.00", "0.01"]),
        ("0", "1", "JPY", ["0", "1"]),
        ("0", "0.005", "KWD", ["0.000", "0.002", "0.004", "0.006"]),
        ("0", "1" + "0" * 23, "EUR", ["0", "5" + "0" * 22, "1" + "0" * 23]),
    ],
)
def test_chart_marks_are_round_numbers_that_enclose_all_balances(
    low: str, high: str, currency: str, marks: list[str]
) -> None:
    steps = chart.round_steps(Decimal(low), Decimal(high), FRACTION_DIGITS[currency])
    assert [f"{step:f}" for step in steps] == marks


# --- Read-only pages and permissions ----------------------------------------------------------------
def test_holds_transfers_and_inbox_are_read_only(unchanged: Unchanged) -> None:
    root = logged_in(new_user(is_superuser=True))
    source, target = new_wallet("100"), new_wallet()
    rows = (
        (HOLDS, place(source, "5")),
        (TRANSFERS, pay(source, target, "5").operation.id),
        (INBOX, accept(source, "5")),
    )
    entries = list(InboxEntry.objects.filter(wallet=source).values())
    holds = list(Hold.objects.filter(wallet=source).values())
    with unchanged(str(source.id), str(target.id)):
        for where, row_id in rows:
            values = {"amount": "1000", "status": "VOIDED", "_save": "Save"}
            assert root.post(address(where, row_id), values).status_code == 403
            assert root.post(f"{where}{row_id}/delete/", {"post": "yes"}).status_code == 403
            assert root.post(f"{where}add/", values).status_code == 403
            root.post(where, {"action": "delete_selected", "_selected_action": str(row_id), "post": "yes"})
    assert list(InboxEntry.objects.filter(wallet=source).values()) == entries
    assert list(Hold.objects.filter(wallet=source).values()) == holds


@pytest.mark.parametrize(
    ("where", "permission"),
    [
        (HOLDS, "view_hold"),
        (INBOX, "view_inboxentry"),
        (OPERATIONS, "view_operation"),
        (TRANSFERS, "view_operation"),
    ],
)
def test_each_list_needs_its_view_permission(where: str, permission: str) -> None:
    others = {"view_wallet", "view_hold", "view_inboxentry", "view_operation"} - {permission}
    assert logged_in(new_user(*others)).get(where).status_code == 403
    assert logged_in(new_user(permission)).get(where).status_code == 200
    assert Client().get(where).status_code == 302


def test_transfers_have_no_permission_of_their_own() -> None:
    assert not Permission.objects.filter(codename__endswith="_transfer").exists()


def test_untrusted_text_is_escaped(client: Client) -> None:
    evil = "<script>alert(1)</script>"
    source, target = new_wallet("100", label=evil), new_wallet(label=evil)
    hold_id = place(source, "1", description=evil)
    paid = pay(source, target, "1", description=evil, metadata={evil: evil})
    entry_id = accept(source, "1", description=evil, metadata={evil: evil})
    for where, row_id in ((HOLDS, hold_id), (TRANSFERS, paid.operation.id), (INBOX, entry_id)):
        for html in (shown(client, where, q=str(source.id)), shown(client, address(where, row_id))):
            assert evil not in html
            assert "&lt;script&gt;alert(1)" in html

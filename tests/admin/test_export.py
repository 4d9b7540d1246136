"""Export of the admin's lists as CSV: its rows, its limits, its permission and its record."""

import csv
import io
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.admin.test_movements import HOLDS, INBOX, TRANSFERS, pay, place
from tests.admin.test_wallets_and_operations import (
    OPERATIONS,
    WALLETS,
    logged_in,
    new_user,
    new_wallet,
    plan_of,
    shown,
)
from wallets.admin import export
from wallets.ledger import submit
from wallets.ledger.commands import Deposit, Withdraw
from wallets.ledger.wallet_changes import WalletUpdate, change_wallet
from wallets.models import Operation, User, Wallet
from wallets.problems import Problem

pytestmark = pytest.mark.usefixtures("quick_hashing")

LISTS = (OPERATIONS, TRANSFERS, HOLDS, WALLETS)
VIEW = ("view_wallet", "view_operation", "view_hold", "view_inboxentry")
Row = dict[str, str]


@pytest.fixture
def operator() -> User:
    return new_user(*VIEW, "export_wallet")


@pytest.fixture
def client(operator: User) -> Client:
    return logged_in(operator)


@pytest.fixture
def queries() -> Iterator[Callable[[], list[str]]]:
    with CaptureQueriesContext(connection) as captured:
        yield lambda: [query["sql"] for query in captured.captured_queries]


def post(client: Client, where: str, query: dict[str, str], **options: Any) -> Any:
    return client.post(f"{where}export/?{urlencode(query)}", **options)


def content(client: Client, where: str, **query: str) -> str:
    response = post(client, where, query)
    assert response.status_code == 200
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    return b"".join(response.streaming_content).decode()


def exported(client: Client, where: str, **query: str) -> list[Row]:
    return list(csv.DictReader(io.StringIO(content(client, where, **query).removeprefix("\ufeff"))))


def deposits(wallet: Wallet, count: int) -> list[str]:
    """Return the ids of new operations, newest first."""
    made = [submit(Deposit(wallet_id=wallet.id, amount=Decimal(1))).operation.id for _ in range(count)]
    return [str(id) for id in made[::-1]]


# --- Rows -------------------------------------------------------------------------------------------
def test_operations_are_exported_as_filtered(client: Client) -> None:
    wallet = new_wallet("1")
    fields: dict[str, Any] = {"reference": "order-7", "key": "key-7", "metadata": {"order": 7}}
    with pytest.raises(Problem):
        submit(Withdraw(wallet_id=wallet.id, amount=Decimal("2.5"), description="Übung", **fields))
    (row,) = exported(client, OPERATIONS, q=str(wallet.id), status__exact="REJECTED")
    assert row == {
        **dict.fromkeys(("balance", "sequence", "transferId", "holdId", "reversesId", "actor"), ""),
        "counterpartyWalletId": "",
        "createdAt": row["createdAt"],
        "id": str(Operation.objects.get(wallet=wallet, status="REJECTED").id),
        "walletId": str(wallet.id),
        "operationType": "WITHDRAW",
        "amount": "2.50",
        "currency": "EUR",
        "status": "REJECTED",
        "reason": "insufficient_funds",
        "idempotencyKey": "key-7",
        "reference": "order-7",
        "description": "Übung",
        "metadata": '{"order":7}',
    }


def test_transfers_and_holds_are_exported(client: Client) -> None:
    source, target = new_wallet("10"), new_wallet()
    paid = pay(source, target, "3", reference="rent")
    (transfer,) = exported(client, TRANSFERS, q=str(source.id))
    assert (transfer["id"], transfer["amount"]) == (str(paid.operation.id), "3.00")
    assert (transfer["counterpartyWalletId"], transfer["reference"]) == (str(target.id), "rent")
    hold_id = place(source, "4", reference="room")
    (hold,) = exported(client, HOLDS, q=str(source.id))
    assert (hold["id"], hold["amount"], hold["status"]) == (str(hold_id), "4.00", "ACTIVE")
    assert hold["reference"] == "room"


def test_wallets_are_exported(client: Client) -> None:
    mark = uuid4().hex
    owner = new_user(username=f"carol-{mark}")
    wallet = new_wallet("7", external_id=mark, owner_id=owner.pk, label="Travel")
    change_wallet(wallet.id, WalletUpdate(status="FROZEN"))
    (row,) = exported(client, WALLETS, q=mark)
    assert (row["id"], row["externalId"], row["owner"]) == (str(wallet.id), mark, f"carol-{mark}")
    assert (row["balance"], row["available"], row["status"]) == ("7.00", "7.00", "FROZEN")


def test_export_protects_texts_from_formulas_and_starts_with_a_mark(client: Client) -> None:
    wallet = new_wallet()
    formula = '=HYPERLINK("https://example.com")'
    submit(Deposit(wallet_id=wallet.id, amount=Decimal(1), reference=formula, description=formula))
    text = content(client, OPERATIONS, q=str(wallet.id))
    assert text.startswith("\ufeffcreatedAt,id,walletId,")
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    assert row["reference"] == row["description"] == f"'{formula}"


# --- Limits -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("count", "is_cut"), [(3, False), (4, False), (5, True)])
def test_export_reads_pages_and_says_if_it_was_cut(
    client: Client, monkeypatch: pytest.MonkeyPatch, count: int, is_cut: bool
) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 2)
    monkeypatch.setattr(export, "MAX_ROWS", 4)
    wallet = new_wallet()
    expected = deposits(wallet, count)[:4]
    lines = content(client, OPERATIONS, q=str(wallet.id)).splitlines()[1:]
    assert [line.split(",")[1] for line in lines[: len(expected)]] == expected
    assert lines[len(expected) :] == ([f'"{export.CUT_AT_MAX_ROWS}"'] if is_cut else [])


def test_export_of_a_cut_search_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = str(uuid4())
    wallet = new_wallet()
    for _ in range(3):
        submit(Deposit(wallet_id=wallet.id, amount=Decimal(1), reference=reference))
    monkeypatch.setattr("wallets.admin.search.MAX_MATCHES", 2)
    monkeypatch.setattr("wallets.contract.search.MAX_MATCHES", 2)
    lines = content(client, OPERATIONS, q=reference).splitlines()
    assert len(lines) == 4
    assert "some of them are not in this list" in lines[-1]


def test_slow_page_ends_the_export_with_a_line(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet = new_wallet("1")
    response = post(client, OPERATIONS, {"q": str(wallet.id)})
    with monkeypatch.context() as patched:
        patched.setattr("wallets.admin.lists.QUERY_TIMEOUT_SECONDS", 0.05)
        patched.setattr(export, "_IN_ORDER_OF_INDEX", "SELECT pg_sleep(5)")
        lines = b"".join(response.streaming_content).decode().splitlines()
    assert lines[1:] == [export.CUT_BY_DATABASE]


@pytest.mark.parametrize("where", LISTS)
def test_pages_are_read_by_key_and_not_by_offset(
    client: Client, queries: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 1)
    monkeypatch.setattr(export, "MAX_ROWS", 2)
    source = new_wallet("100")
    for amount in ("1", "2", "3"):
        pay(source, new_wallet(), amount)
        place(source, amount)
    content(client, where)
    table = {HOLDS: "hold", WALLETS: "wallet"}.get(where, "operation")
    pages = [sql for sql in queries() if f'FROM "{table}"' in sql and sql.endswith("LIMIT 1")]
    assert len(pages) == 3
    assert not [sql for sql in pages if "OFFSET" in sql]
    for sql in pages:
        assert "_newest_idx" in plan_of(sql, "seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin")


@pytest.mark.parametrize("query", [{"q": "\x00"}, {"status__exact": "\x00"}, {"p": "999"}, {"none": "1"}])
def test_export_with_an_invalid_query_redirects_to_the_list(client: Client, query: dict[str, str]) -> None:
    response = post(client, OPERATIONS, query, follow=True)
    assert response.redirect_chain[-1][0].startswith(OPERATIONS)
    assert response.status_code == 200


# --- Permission and record --------------------------------------------------------------------------
@pytest.mark.parametrize("where", LISTS)
def test_export_needs_its_permission(client: Client, where: str) -> None:
    assert "Export CSV" in shown(client, where)
    viewer = logged_in(new_user(*VIEW))
    assert "Export CSV" not in shown(viewer, where)
    for refused in (viewer, logged_in(new_user("export_wallet"))):
        assert refused.post(f"{where}export/").status_code == 403
    assert LogEntry.objects.filter(user__username=_name_of(viewer)).count() == 0
    assert client.get(f"{where}export/").status_code == 405


def test_export_needs_a_csrf_token(operator: User) -> None:
    client = logged_in(operator, enforce_csrf_checks=True)
    assert client.post(f"{OPERATIONS}export/").status_code == 403


def test_inbox_has_no_export(client: Client) -> None:
    assert "Export CSV" not in shown(client, INBOX)


def test_export_is_recorded_with_its_filters(client: Client, operator: User) -> None:
    content(client, OPERATIONS, q="order-7", status__exact="REJECTED", p="1")
    content(client, TRANSFERS)
    recorded = LogEntry.objects.filter(user=operator).order_by("id")
    assert [(entry.object_repr, entry.get_change_message()) for entry in recorded] == [
        ("list of operations", "Exported as CSV: q=order-7, status__exact=REJECTED"),
        ("list of transfers", "Exported as CSV: all"),
    ]
    auditor = logged_in(new_user("view_logentry"))
    assert "Exported as CSV: q=order-7" in shown(auditor, "/admin/admin/logentry/", q=operator.username)


def _name_of(client: Client) -> str:
    return User.objects.get(pk=client.session["_auth_user_id"]).username

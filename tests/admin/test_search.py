"""Search in the admin's lists by everything that names a movement or a wallet."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from tests.admin.test_movements import (
    HOLDS,
    INBOX,
    TRANSFERS,
    accept,
    address,
    pay,
    place,
    rows_in,
)
from tests.admin.test_wallets_and_operations import (
    OPERATIONS,
    WALLETS,
    logged_in,
    new_user,
    new_wallet,
    plan_of,
    shown,
)
from wallets.admin import search
from wallets.ledger import submit
from wallets.ledger.commands import CaptureHold, Deposit
from wallets.models import Wallet

pytestmark = pytest.mark.usefixtures("quick_hashing")

VIEW = ("view_wallet", "view_operation", "view_hold", "view_inboxentry")


@pytest.fixture
def client() -> Client:
    return logged_in(new_user(*VIEW))


def deposit(wallet: Wallet, **fields: Any) -> UUID:
    return submit(Deposit(wallet_id=wallet.id, amount=Decimal(1), **fields)).operation.id


def found(client: Client, where: str, term: str) -> list[str]:
    """Return the ids of the rows that the list shows, without repetition."""
    return list(dict.fromkeys(rows_in(shown(client, where, q=term), where)))


# --- Operations -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fields",
    [{"reference": "TERM"}, {"key": "TERM"}, {"key": "owner:5 TERM"}],
    ids=["reference", "key", "key in a namespace"],
)
def test_operation_is_found_by_reference_and_key(client: Client, fields: dict[str, str]) -> None:
    term = f"Order-{uuid4()}"
    wallet = new_wallet("1")
    expected = deposit(wallet, **{name: value.replace("TERM", term) for name, value in fields.items()})
    assert found(client, OPERATIONS, f" {term} ") == [str(expected)]
    assert found(client, OPERATIONS, term[:-1]) == []


@pytest.mark.parametrize("value", ["7", 7, True], ids=["string", "number", "boolean"])
def test_operation_is_found_by_a_metadata_value(client: Client, value: object) -> None:
    name = f"order-{uuid4()}"
    wallet = new_wallet()
    expected = deposit(wallet, metadata={name: value, "other": "x"})
    deposit(wallet, metadata={name: "8"})
    assert found(client, OPERATIONS, f"{name}={str(value).lower()}") == [str(expected)]
    assert found(client, OPERATIONS, f"{name}=9") == []


def test_operation_is_found_by_the_start_of_its_id(client: Client) -> None:
    expected = str(deposit(new_wallet()))
    for term in (expected, expected[:20], expected.replace("-", "")[:20].upper()):
        assert found(client, OPERATIONS, term) == [expected]
    assert found(client, OPERATIONS, expected[:7]) == []


def test_several_rows_with_one_reference_are_newest_first(client: Client) -> None:
    reference = str(uuid4())
    wallets = [new_wallet(), new_wallet()]
    expected = [str(deposit(wallet, reference=reference)) for wallet in wallets]
    expected.append(str(deposit(wallets[0], key=reference)))
    assert found(client, OPERATIONS, reference) == expected[::-1]


def test_operations_are_found_by_their_wallet_and_its_owner(client: Client) -> None:
    mark = uuid4().hex
    owner = new_user(email=f"{mark}@example.com")
    wallet = new_wallet(external_id=f"customer-{mark}", owner_id=owner.pk)
    expected = [str(deposit(wallet)), str(deposit(wallet))][::-1]
    for term in (f"customer-{mark}", str(wallet.id), str(wallet.id)[:23], f"{mark.upper()}@example.com"):
        assert found(client, OPERATIONS, term) == expected
    second = new_wallet(owner_id=owner.pk)
    expected.insert(0, str(deposit(second)))
    assert found(client, OPERATIONS, f"{mark}@example.com") == expected


def test_filters_apply_to_the_found_rows(client: Client) -> None:
    reference = str(uuid4())
    deposit(new_wallet(), reference=reference)
    html = shown(client, OPERATIONS, q=reference, status__exact="REJECTED")
    assert rows_in(html, OPERATIONS) == []


def test_reference_is_shown_in_lists_and_on_pages(client: Client) -> None:
    reference = f"order-{uuid4().hex[:8]}"
    wallet, target = new_wallet("10"), new_wallet()
    hold_id = place(wallet, "1", reference=reference)
    transfer_id = pay(wallet, target, "1", reference=reference).operation.id
    for where, id in ((OPERATIONS, hold_id), (HOLDS, hold_id), (TRANSFERS, transfer_id)):
        assert reference in shown(client, where, q=str(id))
        assert reference in shown(client, address(where, id))


# --- Other lists ------------------------------------------------------------------------------------
def test_transfer_is_found_by_both_of_its_operations(client: Client) -> None:
    reference, mark = str(uuid4()), uuid4().hex
    source, target = new_wallet("10"), new_wallet()
    paid = pay(source, target, "3", reference=reference, key=mark, metadata={mark: "7"})
    assert paid.counterpart
    expected = [str(paid.operation.id)]
    for term in (reference, mark, f"{mark}=7", *expected, expected[0][:23], str(paid.counterpart.id)):
        assert found(client, TRANSFERS, term) == expected


def test_hold_is_found_by_what_its_operations_bring(client: Client) -> None:
    placed, captured, mark = (uuid4().hex for _ in range(3))
    wallet = new_wallet("10")
    hold_id = place(wallet, "3", reference=placed, key=f"key-{placed}", metadata={mark: 7})
    submit(CaptureHold(wallet_id=wallet.id, hold_id=hold_id, reference=captured))
    expected = [str(hold_id)]
    for term in (placed, captured, f"key-{placed}", f"{mark}=7", str(hold_id), str(hold_id)[:23]):
        assert found(client, HOLDS, term) == expected


def test_inbox_entry_is_found_by_what_the_client_sent(client: Client) -> None:
    mark = uuid4().hex
    wallet = new_wallet()
    fields = {"reference": f"order-{mark}", "key": f"key-{mark}", "metadata": {mark: 7}}
    expected = [str(accept(wallet, "3", **fields))]
    accept(new_wallet(), "3")
    for term in (f"order-{mark}", f"key-{mark}", f"{mark}=7", f"{wallet.id} key-{mark}", *expected):
        assert found(client, INBOX, term) == expected


def test_wallet_is_found_by_external_id_metadata_and_owner(client: Client) -> None:
    mark = uuid4().hex
    owner = new_user(email=f"{mark}@example.com")
    wallet = new_wallet(external_id=f"customer-{mark}", owner_id=owner.pk, metadata={mark: 7})
    expected = [str(wallet.id)]
    for term in (f"customer-{mark}", f"{mark}=7", str(wallet.id)[:23], f"{mark}@example.com"):
        assert found(client, WALLETS, term) == expected
    assert f"customer-{mark}" in shown(client, WALLETS, q=str(wallet.id))
    assert f"customer-{mark}" in shown(client, address(WALLETS, wallet.id))


# --- Costs ------------------------------------------------------------------------------------------
def test_rows_beyond_the_limit_are_reported(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = str(uuid4())
    wallet = new_wallet()
    expected = [str(deposit(wallet, reference=reference)) for _ in range(3)][::-1]
    monkeypatch.setattr(search, "MAX_MATCHES", 2)
    monkeypatch.setattr("wallets.contract.search.MAX_MATCHES", 2)
    html = shown(client, OPERATIONS, q=reference)
    assert list(dict.fromkeys(rows_in(html, OPERATIONS))) == expected[:2]
    assert "some of them are not in this list" in html


@pytest.fixture
def queries() -> Iterator[Callable[[], list[str]]]:
    with CaptureQueriesContext(connection) as captured:
        yield lambda: [query["sql"] for query in captured.captured_queries]


@pytest.mark.parametrize("where", [OPERATIONS, TRANSFERS, HOLDS, INBOX, WALLETS])
@pytest.mark.parametrize("term", ["order-7", "order=7", "01890a5d", "anna@example.com"])
def test_search_reads_indexes_and_a_bounded_number_of_rows(
    client: Client, queries: Callable[[], list[str]], where: str, term: str
) -> None:
    shown(client, where, q=term)
    tables = ("operation", "wallet", "hold", "inbox", "wallet_user")
    lookups = [sql for sql in queries() if any(f'FROM "{table}"' in sql for table in tables)]
    lookups = [sql for sql in lookups if "UPPER(" in sql or "LIMIT 501" in sql]
    assert lookups
    for sql in lookups:
        assert "Seq Scan" not in plan_of(sql, "seqscan"), sql


@pytest.mark.parametrize("where", [OPERATIONS, TRANSFERS, HOLDS, INBOX])
def test_rows_of_one_wallet_are_read_in_the_order_of_an_index(
    client: Client, queries: Callable[[], list[str]], where: str
) -> None:
    shown(client, where, q=str(new_wallet("1").id))
    (number,) = (number for number, sql in enumerate(queries()) if "LIMIT 51" in sql)
    assert "enable_sort = off" in "".join(queries()[:number])


# --- Search in all lists ----------------------------------------------------------------------------
SEARCH = "/admin/search/"


@pytest.mark.parametrize("where", [WALLETS, OPERATIONS, TRANSFERS, HOLDS, INBOX])
def test_only_match_leads_to_its_page(client: Client, where: str) -> None:
    mark = uuid4().hex
    wallet = new_wallet("10")
    made: dict[str, Callable[[], UUID]] = {
        WALLETS: lambda: new_wallet(external_id=mark).id,
        OPERATIONS: lambda: deposit(wallet, reference=mark),
        TRANSFERS: lambda: pay(wallet, new_wallet(), "1", reference=mark).operation.id,
        HOLDS: lambda: place(wallet, "1", reference=mark),
        INBOX: lambda: accept(wallet, "1", reference=mark),
    }
    expected = made[where]()
    response = client.get(SEARCH, {"q": f" {mark} "})
    assert (response.status_code, response["Location"]) == (302, address(where, expected))


def test_reference_of_a_capture_leads_to_its_hold(client: Client) -> None:
    mark = uuid4().hex
    wallet = new_wallet("10")
    hold_id = place(wallet, "1")
    submit(CaptureHold(wallet_id=wallet.id, hold_id=hold_id, reference=mark))
    assert client.get(SEARCH, {"q": mark})["Location"] == address(HOLDS, hold_id)


def test_several_matches_are_listed_by_kind(client: Client) -> None:
    mark = uuid4().hex
    wallet = new_wallet("100", external_id=mark, label="Travel")
    expected = str(deposit(wallet, reference=mark))
    transfer_id = str(pay(wallet, new_wallet(), "2", reference=mark).operation.id)
    html = shown(client, SEARCH, q=mark)
    assert rows_in(html, TRANSFERS) == [transfer_id]
    assert {expected, transfer_id} < set(rows_in(html, OPERATIONS))
    assert str(wallet.id) in rows_in(html, WALLETS)
    assert rows_in(html, HOLDS) == rows_in(html, INBOX) == []


def test_search_in_all_lists_shows_the_newest_rows_of_a_kind(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallets.admin.search_page.MAX_ROWS", 2)
    mark = uuid4().hex
    wallet = new_wallet()
    expected = [str(deposit(wallet, reference=mark)) for _ in range(3)][::-1]
    html = shown(client, SEARCH, q=mark)
    assert rows_in(html, OPERATIONS) == expected[:2]
    assert f'href="{OPERATIONS}?q={mark}"' in html


def test_search_in_all_lists_finds_only_rows_that_the_operator_may_view() -> None:
    mark = uuid4().hex
    wallet = new_wallet(external_id=mark)
    deposit(wallet, reference=mark)
    response = logged_in(new_user("view_wallet")).get(SEARCH, {"q": mark})
    assert response["Location"] == address(WALLETS, wallet.id)
    assert "No row that you may view matches" in shown(logged_in(new_user()), SEARCH, q=mark)
    for visitor in (Client(), logged_in(new_user(*VIEW, is_staff=False))):
        assert visitor.get(SEARCH, {"q": mark})["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("query", [{}, {"q": ""}, {"q": "\x00"}, {"q": "=" * 5000}, {"q": "<script>no row"}])
def test_search_for_an_unusual_term_is_no_error(client: Client, query: dict[str, str]) -> None:
    html = shown(client, SEARCH, **query)
    assert rows_in(html, OPERATIONS) == []
    assert f'value="{escape(query.get("q", "").strip())}"' in html


def test_start_page_has_the_search(client: Client) -> None:
    html = shown(client, "/admin/")
    assert f'action="{SEARCH}"' in html
    assert "A reference, an idempotency key" in html

"""Wallets and operations in the admin: what the pages show, refuse, and do through the ledger."""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from psycopg.errors import LockNotAvailable

from tests.conftest import Unchanged
from tests.support.client import UNKNOWN_ID
from wallets.admin import actions, lists
from wallets.ledger import submit
from wallets.ledger.commands import Deposit, Withdraw
from wallets.ledger.verify import verify
from wallets.ledger.wallet_changes import WalletUpdate, change_wallet
from wallets.ledger.wallets import Opening, open_wallet
from wallets.models import Operation, User, Wallet, WalletChange
from wallets.problems import Problem, Unavailable

pytestmark = pytest.mark.usefixtures("quick_hashing")

VIEW = ("view_wallet", "view_operation", "view_walletchange")
WALLETS = "/admin/wallets/wallet/"
OPERATIONS = "/admin/wallets/operation/"


def new_user(*permissions: str, **fields: Any) -> User:
    user = User.objects.create_user(**{"username": f"user-{uuid4()}", "is_staff": True, **fields})
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def logged_in(user: User, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> User:
    return new_user(*VIEW, "change_wallet", "adjust_wallet")


@pytest.fixture
def client(operator: User) -> Client:
    return logged_in(operator)


@pytest.fixture
def root() -> Client:
    return logged_in(new_user(is_superuser=True))


def new_wallet(balance: str = "0", **fields: Any) -> Wallet:
    wallet = open_wallet(Opening(**{"currency": "EUR", **fields})).wallet
    if Decimal(balance):
        submit(Deposit(wallet_id=wallet.id, amount=Decimal(balance)))
    return Wallet.objects.get(id=wallet.id)


def page(wallet: Wallet, action: str = "change") -> str:
    return f"{WALLETS}{wallet.id}/{action}/"


def text_of(response: Any) -> str:
    return str(response.content.decode())


def shown(client: Client, address: str, **query: str) -> str:
    response = client.get(address, query)
    assert response.status_code == 200
    return text_of(response)


def adjustment(**fields: str) -> dict[str, str]:
    return {"direction": "DEPOSIT", "amount": "5", "reason": "Correction", "key": str(uuid4()), **fields}


def key_in(response: Any) -> str:
    found = re.search(r'name="key" value="([^"]+)"', text_of(response))
    assert found
    return found[1]


def operations_in(html: str) -> list[str]:
    """Return the ids of the operations that the page links to."""
    return re.findall(rf'href="{OPERATIONS}([0-9a-f-]{{36}})/change/', html)


def balance_of(wallet: Wallet) -> Any:
    return Wallet.objects.get(id=wallet.id).balance


def log_of(wallet: Wallet) -> list[str]:
    return list(LogEntry.objects.filter(object_id=str(wallet.id)).values_list("change_message", flat=True))


# --- Pages ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "address",
    [
        "/admin/",
        "/admin/wallets/",
        WALLETS,
        OPERATIONS,
        "/admin/admin/logentry/",
        "/admin/axes/accessattempt/",
        "/admin/axes/accesslog/",
        "/admin/second-factor/",
        "/admin/second-factor/enrol/",
        "/admin/wallets/apikey/",
        "/admin/wallets/hold/",
        "/admin/wallets/inboxentry/",
        "/admin/wallets/subscriber/",
        "/admin/wallets/subscriber/register/",
        "/admin/wallets/transfer/",
        "/admin/wallets/user/",
        "/admin/wallets/user/add/",
        "/admin/auth/group/",
        "/admin/auth/group/add/",
        "/admin/password_change/",
    ],
)
def test_page_opens_for_a_superuser(root: Client, address: str) -> None:
    assert root.get(address).status_code == 200


def test_pages_of_a_wallet_and_its_operation_open(client: Client) -> None:
    wallet = new_wallet("10")
    operation = Operation.objects.get(wallet=wallet)
    for address in (page(wallet), page(wallet, "history"), f"{OPERATIONS}{operation.id}/change/"):
        assert client.get(address).status_code == 200


@pytest.mark.parametrize("address", ["/admin/", WALLETS, OPERATIONS])
def test_non_operators_are_redirected_to_the_login(address: str) -> None:
    for visitor in (Client(), logged_in(new_user(*VIEW, is_staff=False))):
        response = visitor.get(address)
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/")


# --- Lists ------------------------------------------------------------------------------------------
@pytest.fixture
def queries() -> Iterator[Callable[[], list[str]]]:
    with CaptureQueriesContext(connection) as captured:
        yield lambda: [query["sql"] for query in captured.captured_queries]


Queries = Callable[[], list[str]]


@pytest.mark.parametrize("address", [WALLETS, OPERATIONS])
@pytest.mark.parametrize("query", [{}, {"o": "3"}, {"_facets": "1"}, {"all": ""}, {"p": "2"}])
def test_list_counts_no_rows_and_reads_one_page(
    client: Client, queries: Queries, address: str, query: dict[str, str]
) -> None:
    table = "wallet" if address == WALLETS else "operation"
    shown(client, address, **query)
    of_table = [sql for sql in queries() if f'FROM "{table}"' in sql]
    assert not [sql for sql in queries() if "COUNT(" in sql.upper()]
    assert len(of_table) == 1
    assert f'ORDER BY "{table}"."created_at" DESC, "{table}"."id" DESC LIMIT 51' in of_table[0]


def plan_of(sql: str, *disabled: str) -> str:
    """Return the query plan without the `disabled` plan types, which would be too slow for a large table."""
    with transaction.atomic(), connection.cursor() as cursor:
        for plan_type in disabled:
            cursor.execute(f"SET LOCAL enable_{plan_type} = off")
        cursor.execute(f"EXPLAIN {sql}")
        return "\n".join(row[0] for row in cursor.fetchall())


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({}, "operation_newest_idx"),
        ({"type__exact": "DEPOSIT"}, "operation_newest_idx"),
        ({"created_at_from": "2026-01-01T00:00"}, "operation_newest_idx"),
        (
            {"q": "WALLET"},
            "wallet_id = (InitPlan",
        ),  # for few rows, any index that begins with it may be chosen
        ({"q": "WALLET key"}, "operation_pk"),
        ({"q": "OPERATION"}, "operation_pk"),
    ],
)
def test_list_of_operations_uses_an_index(
    client: Client, queries: Queries, query: dict[str, str], index: str
) -> None:
    wallet_id = new_wallet().id
    operation_id = submit(Deposit(wallet_id=wallet_id, amount=Decimal(1), key="key")).operation.id
    ids = {"WALLET": str(wallet_id), "OPERATION": str(operation_id)}
    for name, value in query.items():
        query = query | {name: re.sub("WALLET|OPERATION", lambda found: ids[found[0]], value)}
    shown(client, OPERATIONS, **query)
    read = next(sql for sql in queries() if 'FROM "operation"' in sql and "LIMIT 51" in sql)
    disabled = ["seqscan", "bitmapscan", "hashjoin", "mergejoin"]
    if "type__exact" in query:
        disabled.append("sort")  # fast in a table of few wallets and types
    assert index in plan_of(read, *disabled)


def test_search_for_wallets_uses_indexes(client: Client, queries: Queries) -> None:
    new_wallet(owner_id=new_user(username=f"carol-{uuid4()}").id)
    shown(client, WALLETS, q="carol-")
    lookups = [sql for sql in queries() if 'FROM "wallet"' in sql and "LIMIT 501" in sql]
    plans = "\n".join(plan_of(sql, "seqscan") for sql in lookups)
    for index in ("wallet_label_idx", "wallet_owner_newest_idx", "wallet_external_id_unique"):
        assert index in plans


def test_list_has_pages_without_a_row_count(client: Client) -> None:
    wallet = new_wallet()
    for n in range(51):
        submit(Deposit(wallet_id=wallet.id, amount=Decimal(1), key=f"key-{n}"))
    first = shown(client, OPERATIONS, q=str(wallet.id))
    second = shown(client, OPERATIONS, q=str(wallet.id), p="2")
    assert len(operations_in(first)) == 50
    assert len(operations_in(second)) == 1
    assert not set(operations_in(first)) & set(operations_in(second))
    assert 'rel="next"' in first
    assert 'rel="prev"' not in first
    assert 'rel="next"' not in second
    assert 'rel="prev"' in second
    assert not re.search(r"[0-9] (results|total)", first)


def test_number_of_pages_is_bounded(client: Client) -> None:
    assert client.get(OPERATIONS, {"p": str(lists.MAX_PAGES)}).status_code == 200
    assert client.get(OPERATIONS, {"p": str(lists.MAX_PAGES + 1)}).status_code == 302


def test_slow_list_query_is_cancelled(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def page_of_a_slow_query(*_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(5)")

    with monkeypatch.context() as patched:
        patched.setattr(lists, "QUERY_TIMEOUT_SECONDS", 0.05)
        patched.setattr(lists.UncountedPaginator, "page", page_of_a_slow_query)
        response = client.get(OPERATIONS, {"type__exact": "DEPOSIT"})
    assert response.status_code == 302
    assert response["Location"] == OPERATIONS
    assert "took more than" in shown(client, OPERATIONS)


@pytest.mark.parametrize("query", [{"q": "\x00"}, {"status__exact": "\x00"}, {"status__exact": "NONE"}])
def test_invalid_query_of_a_list_is_no_error(client: Client, query: dict[str, str]) -> None:
    for address in (WALLETS, OPERATIONS):
        assert client.get(address, query, follow=True).status_code == 200


# --- Search for wallets -----------------------------------------------------------------------------
def test_wallets_are_found_by_id_label_prefix_and_owner_prefix(client: Client) -> None:
    mark = uuid4().hex
    owner = new_user(username=f"Dora.{mark}")
    wallet = new_wallet("12.5", label=f"Travel {mark} 100%", owner_id=owner.id)
    other = new_wallet(label=f"Other Travel {mark}")
    by_id, by_label = (
        (str(wallet.id), str(wallet.id).upper()),
        (f"travel {mark.upper()}", f" Travel {mark} 100% "),
    )
    for term in (*by_id, *by_label, f"dora.{mark}"):
        found = shown(client, WALLETS, q=term)
        assert str(wallet.id) in found
        assert str(other.id) not in found
    for term in (f"Travel {mark} 10_%", f"ravel {mark}", str(uuid4())):
        assert str(wallet.id) not in shown(client, WALLETS, q=term)


def test_wallets_are_found_by_either_form_of_a_letter(client: Client) -> None:
    mark = uuid4().hex
    composed, decomposed = (f"{accented} {mark}" for accented in ("Caf\u00e9", "Cafe\u0301"))
    wallets = [str(new_wallet(label=label).id) for label in (composed, decomposed)]
    for term in (composed, decomposed):
        found = shown(client, WALLETS, q=term)
        assert [wallet_id in found for wallet_id in wallets] == [True, True]


def test_wallets_are_filtered_by_status_and_currency(client: Client) -> None:
    label = f"Filtered {uuid4()}"
    active = new_wallet(label=label, currency="JPY")
    frozen = new_wallet(label=label, currency="KWD")
    change_wallet(frozen.id, WalletUpdate(status="FROZEN"))
    assert str(frozen.id) not in shown(client, WALLETS, q=label, status__exact="ACTIVE")
    assert str(frozen.id) in shown(client, WALLETS, q=label, status__exact="FROZEN")
    found = shown(client, WALLETS, q=label, currency="JPY")
    assert str(active.id) in found
    assert str(frozen.id) not in found


@pytest.mark.parametrize(("currency", "balance"), [("JPY", "1500"), ("EUR", "1500.00"), ("KWD", "1500.000")])
def test_amounts_have_the_fraction_digits_of_their_currency(
    client: Client, currency: str, balance: str
) -> None:
    wallet = new_wallet("1500", currency=currency)
    for address, query in ((WALLETS, {"q": str(wallet.id)}), (page(wallet), {})):
        html = shown(client, address, **query)
        assert re.search(rf">\s*{re.escape(balance)}\s*<", html)
        assert "1500.0000" not in html


# --- Search for operations --------------------------------------------------------------------------
def test_operations_are_found_by_id_wallet_and_key(client: Client) -> None:
    wallet, other = new_wallet("1"), new_wallet("1")
    expected = submit(Deposit(wallet_id=wallet.id, amount=Decimal(2), key="order-7")).operation
    submit(Deposit(wallet_id=other.id, amount=Decimal(2), key="order-7"))
    assert len(operations_in(shown(client, OPERATIONS, q=str(wallet.id)))) == 2
    for term in (str(expected.id), f"{wallet.id} order-7"):
        assert operations_in(shown(client, OPERATIONS, q=term)) == [str(expected.id)]
    for term in (f"{wallet.id} order-8", str(uuid4())):
        assert operations_in(shown(client, OPERATIONS, q=term)) == []


def test_key_of_a_restricted_caller_is_shown_as_sent(client: Client) -> None:
    owner = new_user()
    wallet = new_wallet("1", owner_id=owner.pk)
    key = f"owner:{owner.pk} order-7"
    expected = submit(
        Deposit(wallet_id=wallet.id, amount=Decimal(2), key=key, owner_restriction=owner.pk)
    ).operation
    of_bank = submit(Deposit(wallet_id=wallet.id, amount=Decimal(2), key="order-7")).operation
    found = operations_in(shown(client, OPERATIONS, q=f"{wallet.id} order-7"))
    assert set(found) == {str(expected.id), str(of_bank.id)}
    html = shown(client, f"{OPERATIONS}{expected.id}/change/")
    assert "order-7" in html
    assert key not in html


def test_lists_say_what_can_be_searched_for(client: Client) -> None:
    assert "Search for: a reference, an idempotency key, metadata such as order=7" in shown(
        client, OPERATIONS
    )
    assert "Search for: an external id, an id or its first 8 digits" in shown(client, WALLETS)


def test_operations_are_filtered_by_status_type_and_time(client: Client) -> None:
    wallet = new_wallet("1")
    with pytest.raises(Problem):
        submit(Withdraw(wallet_id=wallet.id, amount=Decimal(2)))
    completed, rejected = Operation.objects.filter(wallet=wallet).order_by("created_at")

    def found(**query: str) -> list[str]:
        return operations_in(shown(client, OPERATIONS, q=str(wallet.id), **query))

    first, second = str(completed.id), str(rejected.id)
    assert found(status__exact="REJECTED") == [second]
    assert found(type__exact="DEPOSIT") == [first]
    start, end = f"{completed.created_at:%FT%T.%f}", f"{rejected.created_at:%FT%T.%f}"
    assert found(created_at_from=start) == [second, first]
    assert found(created_at_to=start) == []
    assert found(created_at_from=start, created_at_to=end) == [first]
    assert found(created_at_from="2999-01-01") == []


def test_invalid_time_filter_is_refused(client: Client) -> None:
    wallet = new_wallet("1")
    html = shown(client, OPERATIONS, q=str(wallet.id), created_at_from="yesterday")
    assert "This is not a valid time" in html
    assert operations_in(html) == []


def test_rejected_operation_shows_its_reason(client: Client) -> None:
    wallet = new_wallet()
    with pytest.raises(Problem):
        submit(Withdraw(wallet_id=wallet.id, amount=Decimal(2)))
    assert "insufficient_funds" in shown(client, OPERATIONS, q=str(wallet.id))
    assert "insufficient_funds" in shown(client, page(wallet))


# --- A wallet's page --------------------------------------------------------------------------------
def test_wallet_page_reads_only_the_newest_operations_and_changes(client: Client, queries: Queries) -> None:
    wallet = new_wallet()
    for n in range(25):
        submit(Deposit(wallet_id=wallet.id, amount=Decimal(1), description=f"Order {n}."))
    change_wallet(
        wallet.id, WalletUpdate(label="Renamed", actor="operator:zoe", reason="They confirmation for it")
    )
    html = shown(client, page(wallet))
    assert "Order 5." in html
    assert "Order 4." not in html
    assert f"{OPERATIONS}?q={wallet.id}" in html
    assert "label:  → Renamed" in html
    assert "operator:zoe" in html
    assert "They confirmation for it" in html
    for table in ("operation", "wallet_change"):
        (read,) = (sql for sql in queries() if f'FROM "{table}"' in sql)
        assert "LIMIT 20" in read


def test_wallet_page_hides_sections_without_permission() -> None:
    wallet = new_wallet()
    submit(Deposit(wallet_id=wallet.id, amount=Decimal(1), description="Secret order"))
    change_wallet(wallet.id, WalletUpdate(label="x", reason="Secret reason"))
    html = shown(logged_in(new_user("view_wallet")), page(wallet))
    assert "Secret" not in html


def test_untrusted_text_is_escaped(client: Client) -> None:
    evil = "<script>alert(1)</script>"
    wallet = new_wallet(label=evil, metadata={evil: evil})
    submit(Deposit(wallet_id=wallet.id, amount=Decimal(1), description=evil, key="k"))
    change_wallet(wallet.id, WalletUpdate(label=f"{evil}!", metadata={"a": evil}, actor=evil, reason=evil))
    operation = Operation.objects.get(wallet=wallet)
    for address, query in (
        (WALLETS, {"q": str(wallet.id)}),
        (OPERATIONS, {"q": str(wallet.id)}),
        (OPERATIONS, {"q": evil}),
        (page(wallet), {}),
        (page(wallet, "adjust"), {}),
        (f"{OPERATIONS}{operation.id}/change/", {}),
    ):
        html = shown(client, address, **query)
        assert evil not in html
        assert "&lt;script&gt;alert(1)" in html


# --- Read-only pages --------------------------------------------------------------------------------
def test_wallets_and_operations_are_read_only(root: Client, unchanged: Unchanged) -> None:
    wallet = new_wallet("10")
    operation = Operation.objects.get(wallet=wallet)
    with unchanged(str(wallet.id)):
        for row, address in ((wallet, WALLETS), (operation, OPERATIONS)):
            values = {"balance": "1000", "amount": "1000", "status": "CLOSED", "_save": "Save"}
            assert root.post(f"{address}{row.id}/change/", values).status_code == 403
            assert root.post(f"{address}{row.id}/delete/", {"post": "yes"}).status_code == 403
            assert root.get(f"{address}add/").status_code == 403
            assert root.post(f"{address}add/", values).status_code == 403
            root.post(address, {"action": "delete_selected", "_selected_action": str(row.id), "post": "yes"})


def test_wallet_page_has_no_input_fields(root: Client) -> None:
    html = shown(root, page(new_wallet()))
    form = html[html.index('id="wallet_form"') :]
    inputs = re.findall(r"<(?:input|select|textarea)[^>]*>", form[: form.index("</form>")])
    assert [field for field in inputs if "csrfmiddlewaretoken" not in field] == []


# --- Adjustments ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("direction", "expected"), [("DEPOSIT", "15.60"), ("WITHDRAW", "4.40")])
def test_adjustment_is_an_operation_with_operator_and_reason(
    client: Client, operator: User, direction: str, expected: str
) -> None:
    wallet = new_wallet("10")
    sent = adjustment(direction=direction, amount="5.60", reason="Ticket 4711")
    response = client.post(page(wallet, "adjust"), sent)
    assert response.status_code == 302
    assert response["Location"] == page(wallet)
    assert f"{direction.capitalize()} of 5.60 EUR" in shown(client, page(wallet))
    operation = Operation.objects.get(wallet=wallet, type=direction, amount=Decimal("5.6"))
    assert operation.actor == f"operator:{operator.username}"
    assert operation.description == "Ticket 4711"
    assert operation.idempotency_key == sent["key"]
    assert balance_of(wallet) == Decimal(expected)
    assert verify([wallet.id]) == []
    entry = LogEntry.objects.get(object_id=str(wallet.id))
    assert entry.user == operator
    assert entry.change_message == f"{direction.capitalize()} of 5.60 EUR: Ticket 4711"


def test_form_sent_twice_moves_money_once(client: Client) -> None:
    wallet = new_wallet()
    sent = adjustment(key=key_in(client.get(page(wallet, "adjust"))))
    for _ in range(3):
        assert client.post(page(wallet, "adjust"), sent).status_code == 302
    assert "was already done before" in shown(client, page(wallet))
    assert balance_of(wallet) == 5
    assert Operation.objects.filter(wallet=wallet).count() == 1
    assert len(log_of(wallet)) == 1


def test_each_form_has_its_own_key(client: Client) -> None:
    wallet = new_wallet()
    assert key_in(client.get(page(wallet, "adjust"))) != key_in(client.get(page(wallet, "adjust")))


@pytest.mark.parametrize(
    "amount",
    ["", " ", "0", "0.00", "-5", "+5", "1e3", "1_000", "1 000", "1,5", ".5", "5.", "05", "0x10", "NaN", "١٢٣"]
    + ["5.001", "1000000000000.01", "9" * 100],
)
def test_invalid_amount_is_refused(client: Client, unchanged: Unchanged, amount: str) -> None:
    wallet = new_wallet("10")
    with unchanged(str(wallet.id)):
        response = client.post(page(wallet, "adjust"), adjustment(amount=amount))
    assert response.status_code == 200
    assert response.context["form"].errors.keys() == {"amount"}
    assert log_of(wallet) == []


@pytest.mark.parametrize(
    "invalid", [{"reason": ""}, {"reason": " \n"}, {"reason": "x" * 501}, {"reason": "a\x00b"}]
    + [{"direction": ""}, {"direction": "TRANSFER"}, {"key": ""}, {"key": "1"}],
)  # fmt: skip
def test_adjustment_with_an_invalid_field_is_refused(
    client: Client, unchanged: Unchanged, invalid: dict[str, str]
) -> None:
    wallet = new_wallet("10")
    with unchanged(str(wallet.id)):
        response = client.post(page(wallet, "adjust"), adjustment(**invalid))
    assert response.status_code == 200
    assert response.context["form"].errors.keys() == invalid.keys()


def test_corrected_form_of_a_refused_adjustment_has_a_new_key(client: Client) -> None:
    wallet = new_wallet("10")
    sent = adjustment(direction="WITHDRAW", amount="11")
    refused = client.post(page(wallet, "adjust"), sent)
    assert refused.status_code == 200
    assert "The amount exceeds the available balance of the wallet" in text_of(refused)
    assert balance_of(wallet) == 10
    assert log_of(wallet) == []
    corrected = sent | {"amount": "9", "key": key_in(refused)}
    assert client.post(page(wallet, "adjust"), corrected).status_code == 302
    assert balance_of(wallet) == 1


def test_used_form_is_refused_for_another_adjustment(client: Client, unchanged: Unchanged) -> None:
    wallet = new_wallet()
    sent = adjustment()
    client.post(page(wallet, "adjust"), sent)
    with unchanged(str(wallet.id)):
        response = client.post(page(wallet, "adjust"), sent | {"amount": "6"})
    assert "was used before" in text_of(response)
    assert key_in(response) != sent["key"]


@pytest.mark.parametrize("status", ["FROZEN", "CLOSED"])
def test_frozen_or_closed_wallet_is_not_adjusted(client: Client, status: str) -> None:
    wallet = new_wallet()
    change_wallet(wallet.id, WalletUpdate(status=status))
    response = client.post(page(wallet, "adjust"), adjustment())
    assert f"A {status.lower()} wallet moves no money" in text_of(response)
    assert balance_of(wallet) == 0
    assert Operation.objects.get(wallet=wallet).status == "REJECTED"


def busy() -> OperationalError:
    error = OperationalError()
    error.__cause__ = LockNotAvailable()
    return error


@pytest.mark.parametrize(
    ("failure", "message"), [(busy(), "nothing was applied"), (Unavailable(), "Send the form again")]
)
def test_form_keeps_its_key_after_a_database_failure(
    client: Client, monkeypatch: pytest.MonkeyPatch, unchanged: Unchanged, failure: Exception, message: str
) -> None:
    def fail(_: Any) -> None:
        raise failure

    wallet = new_wallet()
    sent = adjustment()
    with monkeypatch.context() as patched, unchanged(str(wallet.id)):
        patched.setattr(actions, "submit", fail)
        response = client.post(page(wallet, "adjust"), sent)
    assert message in text_of(response)
    assert key_in(response) == sent["key"]
    assert log_of(wallet) == []


# --- Freezing, thawing, closing ---------------------------------------------------------------------
def test_wallet_is_frozen_thawed_and_closed_with_reasons(client: Client, operator: User) -> None:
    wallet = new_wallet()
    steps = [("freeze", "FROZEN"), ("thaw", "ACTIVE"), ("close", "CLOSED")]
    before = "ACTIVE"
    for action, status in steps:
        response = client.post(page(wallet, action), {"reason": f"Ticket {action}"})
        assert response["Location"] == page(wallet)
        assert f"Status {status}" in shown(client, page(wallet))
        assert Wallet.objects.get(id=wallet.id).status == status
        change = WalletChange.objects.get(wallet=wallet, reason=f"Ticket {action}")
        assert change.changes == {"status": [before, status]}
        assert change.actor == f"operator:{operator.username}"
        before = status
    assert sorted(log_of(wallet)) == sorted(f"Status {status}: Ticket {action}" for action, status in steps)


@pytest.mark.parametrize("action", ["freeze", "thaw", "close"])
def test_change_of_status_needs_a_reason(client: Client, unchanged: Unchanged, action: str) -> None:
    wallet = new_wallet()
    if action == "thaw":
        change_wallet(wallet.id, WalletUpdate(status="FROZEN"))
    with unchanged(str(wallet.id)):
        response = client.post(page(wallet, action), {"reason": " "})
    assert response.status_code == 200
    assert response.context["form"].errors.keys() == {"reason"}


def test_wallet_with_money_is_not_closed(client: Client, unchanged: Unchanged) -> None:
    wallet = new_wallet("0.01")
    with unchanged(str(wallet.id)):
        response = client.post(page(wallet, "close"), {"reason": "x"})
    assert "Only a wallet with no balance and no held amount can be closed" in text_of(response)
    assert log_of(wallet) == []


def test_closed_wallet_stays_closed(client: Client, unchanged: Unchanged) -> None:
    wallet = new_wallet()
    change_wallet(wallet.id, WalletUpdate(status="CLOSED"))
    with unchanged(str(wallet.id)):
        for action in ("freeze", "thaw"):
            response = client.post(page(wallet, action), {"reason": "x"})
            assert "A closed wallet cannot be changed" in text_of(response)


def test_wallet_frozen_twice_is_changed_once(client: Client, unchanged: Unchanged) -> None:
    wallet = new_wallet()
    client.post(page(wallet, "freeze"), {"reason": "first"})
    with unchanged(str(wallet.id)):
        assert client.post(page(wallet, "freeze"), {"reason": "second"}).status_code == 302
    assert "was already done before" in shown(client, page(wallet))
    assert log_of(wallet) == ["Status FROZEN: first"]


# --- Permissions ------------------------------------------------------------------------------------
ACTIONS = ("adjust", "freeze", "thaw", "close")


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        ((), ()),
        (("view_wallet",), ()),
        (("adjust_wallet",), ()),
        (("view_wallet", "adjust_wallet"), ("adjust",)),
        (("view_wallet", "change_wallet"), ("freeze", "thaw", "close")),
        (("view_operation", "change_operation", "delete_wallet", "add_wallet"), ()),
    ],
)
def test_each_wallet_action_needs_its_permission(
    unchanged: Unchanged, permissions: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    client = logged_in(new_user(*permissions))
    wallet = new_wallet("10")
    for action in ACTIONS:
        expected = 200 if action in allowed else 403
        with unchanged(str(wallet.id)):
            assert client.get(page(wallet, action)).status_code == expected
        if action not in allowed:
            with unchanged(str(wallet.id)):
                assert client.post(page(wallet, action), adjustment()).status_code == 403
    assert log_of(wallet) == []


def buttons(client: Client, wallet: Wallet) -> set[str]:
    html = shown(client, page(wallet))
    return {action for action in ACTIONS if f'href="{page(wallet, action)}"' in html}


def test_wallet_page_has_the_allowed_buttons(client: Client) -> None:
    wallet = new_wallet()
    assert buttons(logged_in(new_user("view_wallet")), wallet) == set()
    assert buttons(logged_in(new_user("view_wallet", "adjust_wallet")), wallet) == {"adjust"}
    assert buttons(client, wallet) == {"adjust", "freeze", "close"}
    change_wallet(wallet.id, WalletUpdate(status="FROZEN"))
    assert buttons(client, wallet) == {"thaw", "close"}
    change_wallet(wallet.id, WalletUpdate(status="CLOSED"))
    assert buttons(client, wallet) == set()


@pytest.mark.parametrize("address", [WALLETS, OPERATIONS])
def test_list_needs_the_view_permission(address: str) -> None:
    assert logged_in(new_user("adjust_wallet")).get(address).status_code == 403


@pytest.mark.parametrize("action", ACTIONS)
def test_get_of_a_form_changes_nothing(client: Client, unchanged: Unchanged, action: str) -> None:
    wallet = new_wallet("10")
    with unchanged(str(wallet.id)):
        assert client.get(page(wallet, action), adjustment()).status_code == 200
    assert log_of(wallet) == []


@pytest.mark.parametrize("action", ACTIONS)
def test_action_from_another_site_is_refused(operator: User, unchanged: Unchanged, action: str) -> None:
    wallet = new_wallet()
    client = logged_in(operator, enforce_csrf_checks=True)
    with unchanged(str(wallet.id)):
        assert client.post(page(wallet, action), adjustment()).status_code == 403


@pytest.mark.parametrize("wallet_id", [UNKNOWN_ID, "nonsense", "00000000"])
@pytest.mark.parametrize("action", [*ACTIONS, "change"])
def test_action_on_a_missing_wallet_redirects(client: Client, wallet_id: str, action: str) -> None:
    response = client.get(f"{WALLETS}{wallet_id}/{action}/", follow=True)
    assert response.redirect_chain == [("/admin/", 302)]
    assert "doesn’t exist" in text_of(response)


# --- Users ------------------------------------------------------------------------------------------
def test_superuser_creates_an_operator(root: Client) -> None:
    name = f"new-{uuid4()}"
    group = Group.objects.create(name=name)
    group.permissions.set(Permission.objects.filter(codename__in=VIEW))
    chosen = "nine green elephants"
    made = {"username": name, "usable_password": "true", "password1": chosen, "password2": chosen}
    assert root.post("/admin/wallets/user/add/", made).status_code == 302
    user = User.objects.get(username=name)
    address = reverse("admin:wallets_user_change", args=[user.id])
    form = root.get(address).context["adminform"].form
    fields = {"username": name, "is_active": "on", "is_staff": "on", "groups": [group.id]}
    joined = {"date_joined_0": "2026-01-01", "date_joined_1": "12:00:00"}
    assert form.fields.keys() >= fields.keys()
    assert root.post(address, fields | joined).status_code == 302
    client = Client()
    sent = client.post(f"/admin/login/?next={WALLETS}", {"username": name, "password": chosen})
    assert sent["Location"] == WALLETS
    assert client.get(WALLETS).status_code == 200


def test_only_superusers_grant_permissions() -> None:
    client = logged_in(new_user("view_user", "add_user", "change_user", "add_group", "change_group"))
    target = new_user()
    address = reverse("admin:wallets_user_change", args=[target.id])
    assert client.get(address).status_code == 200
    assert client.post(address, {"username": target.username, "is_superuser": "on"}).status_code == 403
    assert client.post(f"/admin/wallets/user/{target.id}/password/", {}).status_code == 403
    assert client.get("/admin/wallets/user/add/").status_code == 403
    assert client.get("/admin/auth/group/add/").status_code == 403
    assert not User.objects.get(id=target.id).is_superuser


def send_user(root: Client, user: User, **changes: str) -> Any:
    """Send the form of the user's page as a browser does, with these changes."""
    address = reverse("admin:wallets_user_change", args=[user.id])
    fields = {name: getattr(user, name) for name in ("username", "first_name", "last_name", "email")}
    boxes = {name: "on" for name in ("is_active", "is_staff") if getattr(user, name)}
    joined = {"date_joined_0": "2026-01-01", "date_joined_1": "12:00:00"}
    return root.post(address, {**fields, **boxes, **joined, **changes})


def new_person() -> User:
    email = f"anna-{uuid4()}@example.com"
    return new_user(username=email, email=email, is_staff=False)


def names_of(user: User) -> tuple[str, str]:
    user.refresh_from_db()
    return user.username, user.email


def test_changed_address_of_an_account_owner_becomes_the_username(root: Client) -> None:
    user = new_person()
    new = f"Anna-{uuid4()}@example.com"
    assert send_user(root, user, email=new).status_code == 302
    assert names_of(user) == (new.lower(), new)
    again = f"anna-{uuid4()}@example.com"
    assert send_user(root, user, email=again).status_code == 302
    assert names_of(user) == (again, again)


def is_verified(user: User) -> bool:
    return User.objects.get(pk=user.pk).has_verified_email


def test_changed_address_is_unverified(root: Client) -> None:
    user = new_person()
    User.objects.filter(pk=user.pk).update(verified_email=user.email)
    user.refresh_from_db()
    assert send_user(root, user).status_code == 302
    assert is_verified(user)
    for changed in (user.email.upper(), f"new-{uuid4()}@example.com", ""):
        assert send_user(root, user, email=changed, verified_email=changed).status_code == 302
        assert not is_verified(user)


def test_superuser_verifies_an_address_and_it_is_logged(root: Client) -> None:
    user = new_person()
    page, action = f"/admin/wallets/user/{user.pk}/change/", f"/admin/wallets/user/{user.pk}/verify_email/"
    assert action in text_of(root.get(page))
    confirmation = root.get(action)
    assert (user.email in text_of(confirmation), is_verified(user)) == (True, False)
    for _ in range(2):
        assert root.post(action).status_code == 302
    assert is_verified(user)
    [entry] = LogEntry.objects.filter(object_id=str(user.pk))
    assert entry.get_change_message() == f"Verified the e-mail address {user.email}"
    assert action not in text_of(root.get(page))


def test_only_superusers_verify_an_address() -> None:
    user = new_person()
    client = logged_in(new_user("view_user", "change_user"))
    assert client.get(f"/admin/wallets/user/{user.pk}/change/").status_code == 200
    assert client.post(f"/admin/wallets/user/{user.pk}/verify_email/").status_code == 403
    assert not is_verified(user)


def test_changed_address_of_an_operator_keeps_the_username(root: Client) -> None:
    user = new_user(email=f"old-{uuid4()}@example.com")
    new = f"new-{uuid4()}@example.com"
    assert send_user(root, user, email=new).status_code == 302
    assert names_of(user) == (user.username, new)
    assert send_user(root, user, email="").status_code == 302
    assert names_of(user) == (user.username, "")


def test_removed_address_of_an_account_owner_keeps_the_username(root: Client) -> None:
    user = new_person()
    name = user.username
    assert send_user(root, user, email="").status_code == 302
    assert names_of(user) == (name, "")


def test_user_saved_without_changes_is_unchanged(root: Client) -> None:
    for user in (new_person(), new_user()):
        before = names_of(user)
        assert send_user(root, user).status_code == 302
        assert names_of(user) == before


@pytest.mark.parametrize("field", ["username", "email"])
@pytest.mark.parametrize("of", ["username", "email"])
def test_name_or_address_of_another_user_is_refused(root: Client, field: str, of: str) -> None:
    other = new_user(username=f"Bob-{uuid4()}@example.com", email=f"Bob-{uuid4()}@example.com")
    for user in (new_person(), new_user()):
        before = names_of(user)
        for taken in (getattr(other, of), getattr(other, of).upper()):
            response = send_user(root, user, **{field: taken})
            assert response.status_code == 200
            assert response.context["adminform"].form.errors.keys() == {field}
            assert names_of(user) == before


def test_new_operator_needs_an_unused_name(root: Client) -> None:
    other = new_person()
    chosen = {
        "usable_password": "true",
        "password1": "nine green elephants",
        "password2": "nine green elephants",
    }
    for name in (other.username, other.username.upper()):
        response = root.post("/admin/wallets/user/add/", {"username": name, **chosen})
        assert response.status_code == 200
        assert response.context["adminform"].form.errors.keys() == {"username"}


@pytest.mark.parametrize("text", ["\x00", "a\x00@example.com", "x" * 255, "x" * 10_000])
@pytest.mark.parametrize("field", ["username", "email", "first_name"])
def test_user_with_invalid_text_is_not_saved(root: Client, field: str, text: str) -> None:
    user = new_person()
    before = names_of(user)
    response = send_user(root, user, **{field: text})
    assert response.context["adminform"].form.errors.keys() == {field}
    assert names_of(user) == before


def test_users_cannot_be_deleted(root: Client) -> None:
    user = new_user()
    assert root.post(f"/admin/wallets/user/{user.id}/delete/", {"post": "yes"}).status_code == 403
    selected = {"action": "delete_selected", "_selected_action": str(user.id), "post": "yes"}
    root.post("/admin/wallets/user/", selected)
    assert User.objects.filter(id=user.id).exists()

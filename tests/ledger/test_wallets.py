"""Wallets: opening, replays, reading, lists and changes."""

from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Unchanged
from tests.support.client import UNKNOWN_ID, Api
from wallets.ledger.wallets import Opening, open_wallet
from wallets.models import Wallet, WalletChange


def test_wallet_opens_empty_with_the_defaults(api: Api) -> None:
    answer = api.post("/wallets", {})
    wallet = answer.json
    assert answer.status == 201
    assert answer.headers["location"] == f"/api/v1/wallets/{wallet['id']}"
    assert wallet == {
        "id": wallet["id"],
        "currency": "RUB",
        "balance": "0.00",
        "held": "0.00",
        "available": "0.00",
        "overdraftLimit": "0.00",
        "maxBalance": None,
        "status": "ACTIVE",
        "externalId": None,
        "label": "",
        "metadata": {},
        "sequence": 0,
        "createdAt": wallet["createdAt"],
        "updatedAt": wallet["createdAt"],
    }
    assert api.wallet(wallet["id"]) == wallet


def test_both_urls_open_a_wallet_with_the_given_fields(api: Api) -> None:
    fields = {
        "currency": "KWD",
        "label": "Касса",
        "overdraftLimit": 5,
        "maxBalance": "10.5",
        "metadata": {"a": [1.5]},
    }
    for address in ("/wallets", "/wallet/create"):
        wallet = api.post(address, fields).json
        assert wallet["overdraftLimit"] == "5.000"
        assert wallet["maxBalance"] == "10.500"
        assert (wallet["label"], wallet["metadata"]) == ("Касса", {"a": [1.5]})


def test_opening_with_a_client_id_is_replayed(api: Api) -> None:
    body: dict[str, Any] = {"id": str(uuid4()), "label": "a", "overdraftLimit": "10", "metadata": {"n": 1}}
    first = api.post("/wallets", body)
    api.deposit(body["id"], 5)
    api.patch(f"/wallets/{body['id']}", {"label": "b"})
    again = api.post("/wallets", body | {"overdraftLimit": "10.00"})
    assert (again.status, again.json) == (201, first.json)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    "other",
    [
        {"label": "b"},
        {"currency": "EUR"},
        {"maxBalance": 5},
        {"metadata": {"n": True}},
        {"overdraftLimit": 1},
    ],
)
def test_id_of_a_different_wallet_is_refused(api: Api, unchanged: Unchanged, other: dict[str, Any]) -> None:
    body = {"id": str(uuid4()), "label": "a", "metadata": {"n": 1}}
    api.post("/wallets", body)
    with unchanged(body["id"]):
        answer = api.post("/wallets", body | other)
        assert (answer.status, answer.code) == (422, "idempotency_key_reused")


def test_id_that_the_service_generated_cannot_be_opened(api: Api) -> None:
    answer = api.post("/wallets", {"id": api.open()})
    assert (answer.status, answer.code) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("currency", "rub", "unknown_currency"),
        ("currency", "XXX", "unknown_currency"),
        ("currency", 643, "invalid_type"),
        ("label", "x" * 201, "too_long"),
        ("label", "a\x00b", "invalid_text"),
        ("label", "\ud800", "invalid_text"),
        ("label", 1, "invalid_type"),
        ("overdraftLimit", -1, "invalid_amount"),
        ("overdraftLimit", "0.001", "too_many_digits"),
        ("maxBalance", "0.001", "too_many_digits"),
        ("maxBalance", True, "invalid_amount"),
        ("maxBalance", "1000000000000.01", "out_of_range"),
        ("metadata", [], "invalid_type"),
        ("metadata", {"a": "x" * 5000}, "too_long"),
        ("metadata", {"a": 2**53}, "out_of_range"),
        ("metadata", {"\x00": 1}, "invalid_text"),
        ("metadata", {"a": {"b": "\udfff"}}, "invalid_text"),
        ("id", "x", "invalid_id"),
        ("id", "00000000-0000-0000-0000-000000000000", "invalid_id"),
        ("id", "{01930a5d-ac96-774b-8cce-b302099a8057}", "invalid_id"),
        ("id", "01930a5dac96774b8cceb302099a8057", "invalid_id"),
        ("balance", "1000", "unknown_field"),
    ],
)
def test_invalid_field_of_a_wallet_is_named(api: Api, field: str, value: Any, code: str) -> None:
    before = Wallet.objects.count()
    answer = api.post("/wallets", {field: value})
    assert (answer.status, answer.code) == (400, "validation_error")
    assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [(field, code)]
    assert Wallet.objects.count() == before


def test_metadata_nested_too_deeply_is_refused(api: Api) -> None:
    deep: dict[str, Any] = {}
    for _ in range(20):
        deep = {"a": deep}
    answer = api.post("/wallets", {"metadata": deep})
    assert answer.json["errors"][0]["code"] == "too_deep"


def test_all_invalid_fields_are_named_at_once(api: Api) -> None:
    answer = api.post("/wallets", {"label": 1, "currency": "x", "more": 1})
    assert {error["field"] for error in answer.json["errors"]} == {"label", "currency", "more"}


@pytest.mark.parametrize(
    "wallet_id", [UNKNOWN_ID, "x", "0", "%00", "' OR 1=1 --", "01930a5dac96774b8cceb302099a8057"]
)
def test_unknown_or_malformed_id_is_not_found(api: Api, wallet_id: str) -> None:
    path = wallet_id.replace(" ", "%20")
    for suffix in ("", "/operations"):
        answer = api.get(f"/wallets/{path}{suffix}")
        assert (answer.status, answer.code) == (404, "wallet_not_found")
    assert api.patch(f"/wallets/{path}", {"label": "x"}).code == "wallet_not_found"
    assert api.deposit(path, 1).code == "wallet_not_found"


def test_id_may_be_in_upper_case(api: Api) -> None:
    wallet_id = api.open()
    assert api.get(f"/wallets/{wallet_id.upper()}").json["id"] == wallet_id


def test_unchanged_wallet_is_answered_with_304(api: Api) -> None:
    wallet_id = api.open()
    tag = api.get(f"/wallets/{wallet_id}").headers["etag"]
    for header in (tag, f'"other", W/{tag}', "*"):
        answer = api.get(f"/wallets/{wallet_id}", If_None_Match=header)
        assert (answer.status, answer.content, answer.headers["etag"]) == (304, b"", tag)
    api.deposit(wallet_id, 1)
    answer = api.get(f"/wallets/{wallet_id}", If_None_Match=tag)
    assert answer.status == 200
    assert answer.headers["etag"] != tag


def test_list_is_newest_first_while_wallets_are_opened(api: Api) -> None:
    made = [api.open() for _ in range(5)]
    first = api.get("/wallets?limit=2").json
    assert [item["id"] for item in first["items"]] == made[:2:-1]
    api.open()
    second = api.get(f"/wallets?limit=3&cursor={first['nextCursor']}").json
    assert [item["id"] for item in second["items"]] == made[2::-1]


def test_last_page_has_no_cursor(api: Api) -> None:
    api.open()
    pages = 0
    cursor = ""
    seen: set[str] = set()
    while cursor is not None:
        page = api.get(f"/wallets?limit=500{cursor and f'&cursor={cursor}'}").json
        seen |= {item["id"] for item in page["items"]}
        cursor = page["nextCursor"]
        pages += 1
    assert len(seen) == Wallet.objects.count()


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=501", "limit=x", "limit=1_0", "limit=-1", "limit=", "limit=1&limit=2", "x=1"),
        *("cursor=x", "cursor=%D1%8F", "cursor=bnVsbA", "cursor=eyJhIjoxfQ"),
    ],
)
def test_invalid_query_is_refused(api: Api, query: str) -> None:
    answer = api.get(f"/wallets?{query}")
    assert (answer.status, answer.code) == (400, "validation_error")


# --- PATCH ------------------------------------------------------------------------------------------
def test_change_is_recorded_and_visible(api: Api) -> None:
    wallet_id = api.open(label="a")
    answer = api.patch(f"/wallets/{wallet_id}", {"label": "b", "metadata": {"k": 1}, "status": "FROZEN"})
    assert answer.status == 200
    assert answer.json == api.wallet(wallet_id)
    assert (answer.json["label"], answer.json["metadata"], answer.json["status"]) == ("b", {"k": 1}, "FROZEN")
    change = WalletChange.objects.get(wallet_id=wallet_id, type="CHANGED")
    assert change.changes == {"label": ["a", "b"], "metadata": [{}, {"k": 1}], "status": ["ACTIVE", "FROZEN"]}
    assert answer.json["updatedAt"] > answer.json["createdAt"]


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": 1}, {"b": None}, {"a": 1}),
        ({"a": [1, 2]}, {"a": [None]}, {"a": [None]}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": 3}}, {"a": {"c": 2, "d": 3}}),
        ({"a": "x"}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
        ({"a": {"b": 1}}, {"a": 0}, {"a": 0}),
        ({"a": None}, {"b": 1}, {"a": None, "b": 1}),
        ({"a": 1}, {}, {"a": 1}),
    ],
)
def test_metadata_is_changed_by_a_merge_patch(api: Api, before: Any, patch: Any, after: Any) -> None:
    wallet_id = api.open(metadata=before)
    changed = api.patch(f"/wallets/{wallet_id}", {"metadata": patch})
    assert (changed.status, changed.json["metadata"]) == (200, after)
    assert api.wallet(wallet_id)["metadata"] == after
    recorded = WalletChange.objects.filter(wallet_id=wallet_id, type="CHANGED")
    assert [change.changes for change in recorded] == (
        [{"metadata": [before, after]}] if before != after else []
    )


def test_merged_metadata_has_the_limit_of_new_metadata(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(metadata={"a": "x" * 3000})
    with unchanged(wallet_id):
        refused = api.patch(f"/wallets/{wallet_id}", {"metadata": {"b": "x" * 3000}})
        assert (refused.status, refused.code) == (400, "validation_error")
        (error,) = refused.json["errors"]
        assert (error["field"], error["code"]) == ("metadata", "too_long")
    assert api.patch(f"/wallets/{wallet_id}", {"metadata": {"a": None, "b": "x" * 3000}}).status == 200


def test_change_to_equal_values_changes_nothing(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(label="a")
    with unchanged(wallet_id):
        assert api.patch(f"/wallets/{wallet_id}", {"label": "a", "status": "ACTIVE"}).status == 200


def test_frozen_wallet_moves_no_money_until_thawed(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(deposit="10")
    api.patch(f"/wallets/{wallet_id}", {"status": "FROZEN"})
    balance = api.balance(wallet_id)
    for answer in (api.deposit(wallet_id, 1), api.withdraw(wallet_id, 1)):
        assert (answer.status, answer.code) == (409, "wallet_frozen")
    assert api.balance(wallet_id) == balance
    api.patch(f"/wallets/{wallet_id}", {"status": "ACTIVE"})
    assert api.withdraw(wallet_id, 1).status == 201


def test_only_an_empty_wallet_closes_and_it_stays_closed(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(deposit="0.01")
    with unchanged(wallet_id):
        answer = api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"})
        assert (answer.status, answer.code) == (409, "wallet_not_empty")
    api.withdraw(wallet_id, "0.01")
    assert api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"}).json["status"] == "CLOSED"
    with unchanged(wallet_id):
        for change in ({"status": "ACTIVE"}, {"status": "FROZEN"}, {"label": "x"}):
            assert api.patch(f"/wallets/{wallet_id}", change).code == "wallet_closed"
        assert api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"}).status == 200
    assert api.deposit(wallet_id, 1).code == "wallet_closed"


def test_change_requires_a_matching_if_match(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    tag = api.get(f"/wallets/{wallet_id}").headers["etag"]
    api.deposit(wallet_id, 1)
    with unchanged(wallet_id):
        answer = api.patch(f"/wallets/{wallet_id}", {"label": "x"}, If_Match=tag)
        assert (answer.status, answer.code) == (412, "precondition_failed")
    tag = api.get(f"/wallets/{wallet_id}").headers["etag"]
    answer = api.patch(f"/wallets/{wallet_id}", {"label": "x"}, If_Match=tag)
    assert answer.status == 200
    assert answer.headers["etag"] == api.get(f"/wallets/{wallet_id}").headers["etag"] != tag


@pytest.mark.parametrize("body", [{}, {"status": "OPEN"}, {"status": 1}, {"balance": 1}, {"label": 1}])
def test_invalid_change_is_refused(api: Api, unchanged: Unchanged, body: dict[str, Any]) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        assert api.patch(f"/wallets/{wallet_id}", body).code == "validation_error"


# --- Withdrawn currencies ---------------------------------------------------------------------------
@pytest.mark.parametrize("currency", ["HRK", "BYR"])
def test_no_wallet_opens_in_a_withdrawn_currency(api: Api, currency: str) -> None:
    answer = api.post("/wallets", {"currency": currency})
    assert (answer.status, answer.code) == (400, "validation_error")
    assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [
        ("currency", "unknown_currency")
    ]


def test_existing_wallet_in_a_withdrawn_currency_moves_and_closes(api: Api) -> None:
    wallet_id = str(
        open_wallet(Opening(currency="HRK")).wallet.id
    )  # as opened before the currency was withdrawn
    assert api.deposit(wallet_id, "5.25").json["balance"] == "5.25"
    assert api.get(f"/wallets/{wallet_id}/statement").json["closingBalance"] == "5.25"
    assert api.withdraw(wallet_id, "5.25").status == 201
    assert api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"}).json["balance"] == "0.00"

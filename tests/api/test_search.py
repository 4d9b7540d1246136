"""Lists with filters: the rows found, the pages, and restricted clients."""

from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings

from tests.support.client import Answer, Api
from tests.support.keys import new_key
from tests.support.people import new_account
from wallets.access.rights import ADMIN
from wallets.contract import paging, search


def found(api: Api, path: str, **filters: Any) -> list[str]:
    """Return the ids of all rows, from as many pages as the list has."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    ids: list[str] = []
    page = api.get(f"{path}?{query}").json
    while True:
        ids += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            return ids
        page = api.get(f"{path}?cursor={page['nextCursor']}").json


@pytest.fixture
def order() -> str:
    return f"order-{uuid4()}"


# --- Operations -------------------------------------------------------------------------------------
def test_reference_finds_everything_that_belongs_to_an_order(api: Api, order: str) -> None:
    shop_id, customer_id = api.open(), api.open(deposit="100")
    hold = api.hold(customer_id, "30", reference=order).json
    capture = api.capture(hold["id"]).json
    transfer = api.transfer(customer_id, shop_id, "5", reference=order).json
    api.deposit(shop_id, "5", reference=f"{order}-b")
    transfer_ids = [transfer["target"]["id"], transfer["source"]["id"]]
    ids = found(api, "/operations", reference=order)
    assert ids[2:] == [capture["id"], hold["id"]]
    assert set(ids[:2]) == set(transfer_ids)
    assert found(api, "/operations", reference=order, walletId=shop_id) == transfer_ids[:1]
    assert found(api, "/operations", reference=order, type="HOLD,CAPTURE") == [capture["id"], hold["id"]]
    assert found(api, f"/wallets/{customer_id}/operations", reference=order) == [
        transfer["id"],
        capture["id"],
    ]


def test_idempotency_key_and_transfer_id_find_operations_of_any_wallet(api: Api, order: str) -> None:
    wallets = [api.open(deposit="10"), api.open(deposit="10")]
    ids = [api.withdraw(wallet_id, "1", order).json["id"] for wallet_id in wallets]
    assert found(api, "/operations", idempotencyKey=order) == ids[::-1]
    assert found(api, "/operations", idempotencyKey=order, walletId=wallets[0]) == ids[:1]
    transfer = api.transfer(wallets[0], wallets[1], "1").json
    sides = {transfer["source"]["id"], transfer["target"]["id"]}
    assert set(found(api, "/operations", transferId=transfer["id"])) == sides
    assert found(api, "/operations", transferId=transfer["id"], type="TRANSFER_IN") == [
        transfer["target"]["id"]
    ]


@pytest.fixture
def ledger(api: Api) -> dict[str, str]:
    """A wallet with one operation of each kind; their ids by a name, the oldest first."""
    wallet_id, other_id = api.open(), api.open()
    return {
        "wallet": wallet_id,
        "deposit": api.deposit(wallet_id, "100", metadata={"order": 7, "kind": "pay"}).json["id"],
        "refused": api.withdraw(wallet_id, "500", metadata={"order": "7"}).json["operationId"],
        "withdraw": api.withdraw(wallet_id, "20", metadata={"order": 8, "kind": "pay"}).json["id"],
        "hold": api.hold(wallet_id, "30").json["id"],
        "transfer": api.transfer(wallet_id, other_id, "40").json["id"],
    }


MATCHES: list[tuple[dict[str, str], list[str]]] = [
    ({}, ["transfer", "hold", "withdraw", "refused", "deposit"]),
    ({"type": "WITHDRAW"}, ["withdraw", "refused"]),
    ({"type": "WITHDRAW,HOLD"}, ["hold", "withdraw", "refused"]),
    ({"type": "HOLD"}, ["hold"]),
    ({"type": "TRANSFER_OUT", "status": "COMPLETED"}, ["transfer"]),
    ({"status": "REJECTED"}, ["refused"]),
    ({"status": "REJECTED", "type": "DEPOSIT"}, []),
    ({"minAmount": "30"}, ["transfer", "hold", "refused", "deposit"]),
    ({"minAmount": "30", "maxAmount": "40.00"}, ["transfer", "hold"]),
    ({"metadata.order": "7"}, ["refused", "deposit"]),
    ({"metadata.order": "7", "metadata.kind": "pay"}, ["deposit"]),
    ({"metadata.order": "7", "status": "COMPLETED"}, ["deposit"]),
    ({"metadata.order": "9"}, []),
    ({"to": "2020-01-01T00:00:00Z"}, []),
    ({"from": "2020-01-01T00:00:00Z", "type": "DEPOSIT"}, ["deposit"]),
]


@pytest.fixture(params=[1, 2, 5000])
def _max_scanned_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_SCANNED_ROWS", request.param)


@pytest.mark.usefixtures("_max_scanned_rows")
@pytest.mark.parametrize(("filters", "names"), MATCHES)
def test_operations_match_all_filters_however_pages_are_cut(
    api: Api, ledger: dict[str, str], filters: dict[str, str], names: list[str]
) -> None:
    wanted = [ledger[name] for name in names]
    assert found(api, "/operations", walletId=ledger["wallet"], limit=2, **filters) == wanted
    history = wanted if "type" in filters else [id for id in wanted if id != ledger["hold"]]
    assert found(api, f"/wallets/{ledger['wallet']}/operations", limit=2, **filters) == history


@pytest.mark.parametrize("max_matches", [0, 500])
def test_metadata_is_found_in_all_wallets(
    api: Api, order: str, monkeypatch: pytest.MonkeyPatch, max_matches: int
) -> None:
    """A value of few rows is looked up in its index; a frequent one is met while the newest rows are read."""
    monkeypatch.setattr(search, "MAX_MATCHES", max_matches)
    ids = [api.deposit(api.open(), "1", metadata={"order": order}).json["id"] for _ in range(3)]
    page = api.get(f"/operations?metadata.order={order}&limit=500").json
    assert [item["id"] for item in page["items"]] == ids[::-1]


def test_page_that_ends_a_scan_has_a_cursor(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_SCANNED_ROWS", 2)
    wallet_id = api.open()
    ids = [api.deposit(wallet_id, amount).json["id"] for amount in ("9", "1", "1", "1", "1")]
    page = api.get(f"/wallets/{wallet_id}/operations?minAmount=5").json
    assert page["items"] == []
    assert page["nextCursor"] is not None
    assert found(api, f"/wallets/{wallet_id}/operations", minAmount="5") == ids[:1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("type=DEPOSIT,NONE", "type.1"),
        ("type=", "type.0"),
        ("minAmount=a", "minAmount"),
        ("walletId=7", "walletId"),
        ("metadata=7", "metadata"),
        ("metadata.a=1&metadata.b=1&metadata.c=1&metadata.d=1&metadata.e=1&metadata.f=1", "metadata"),
        ("metadata.a=%00", "metadata"),
        ("reference=%00", "reference"),
        ("order=7", "order"),
    ],
)
def test_malformed_filter_is_named(api: Api, query: str, field: str) -> None:
    answer = api.get(f"/operations?{query}")
    assert answer.code == "validation_error"
    assert [error["field"] for error in answer.json["errors"]] == [field]


# --- Wallets ----------------------------------------------------------------------------------------
@pytest.mark.usefixtures("quick_hashing")
@pytest.mark.parametrize("max_matches", [0, 500])
def test_wallets_match_all_filters(
    api: Api, order: str, monkeypatch: pytest.MonkeyPatch, max_matches: int
) -> None:
    monkeypatch.setattr(search, "MAX_MATCHES", max_matches)
    euro = api.open(currency="EUR", label=f"{order} first")
    rouble = api.open(currency="RUB", label=order.upper(), metadata={"shop": order})
    api.open(label=f"x{order}")
    api.patch(f"/wallets/{rouble}", {"status": "FROZEN"})
    assert found(api, "/wallets", label=order) == [rouble, euro]
    assert found(api, "/wallets", label=order, currency="EUR") == [euro]
    assert found(api, "/wallets", label=order, status="FROZEN") == [rouble]
    assert found(api, "/wallets", **{"metadata.shop": order}) == [rouble]
    owner = new_account()
    assert found(api, "/wallets", ownerEmail=owner.user.email) == [owner.wallet_id]
    assert found(api, "/wallets", ownerEmail=owner.user.email, currency="EUR") == []
    assert found(api, "/wallets", ownerEmail="unknown@example.com") == []


# --- Restricted clients -----------------------------------------------------------------------------
@pytest.mark.usefixtures("quick_hashing")
def test_restricted_client_finds_only_its_own(settings: LazySettings, order: str) -> None:
    settings.API_ACCESS = "key"
    anna, boris, bank = new_account("100"), new_account("100"), Api(key=new_key(ADMIN))
    client = Api(key=new_key(ADMIN, owner=anna.user, is_restricted=True))
    own = client.withdraw(anna.wallet_id, "1", order, reference=order).json["id"]
    bank.withdraw(boris.wallet_id, "1", order, reference=order)
    transfer = bank.transfer(boris.wallet_id, anna.wallet_id, "1", reference=order).json
    assert found(client, "/operations", idempotencyKey=order) == [own]
    assert found(client, "/operations", transferId=transfer["id"]) == [transfer["target"]["id"]]
    assert found(client, "/operations", walletId=anna.wallet_id, reference=order) == [
        transfer["target"]["id"],
        own,
    ]
    assert client.get(f"/operations?walletId={boris.wallet_id}").code == "wallet_not_found"
    assert found(client, "/wallets", ownerEmail=boris.user.email) == []
    assert len(found(bank, "/operations", reference=order)) == 4
    assert len(found(bank, "/operations", idempotencyKey=order)) == 2


@pytest.mark.usefixtures("quick_hashing")
@pytest.mark.parametrize("query", ["", "?reference=order-7", "?metadata.order=7", "?status=REJECTED"])
def test_restricted_client_must_name_a_wallet(settings: LazySettings, query: str) -> None:
    settings.API_ACCESS = "key"
    client = Api(key=new_key(ADMIN, owner=new_account().user, is_restricted=True))
    answer: Answer = client.get(f"/operations{query}")
    assert answer.code == "validation_error"
    assert [error["field"] for error in answer.json["errors"]] == ["walletId"]

"""Holds set money aside until they are captured, voided or expired. Each hold ends exactly once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.conftest import Books, Unchanged
from tests.ledger.test_idempotency import repeated
from tests.support.chains import chain_anew
from tests.support.client import UNKNOWN_ID, Answer, Api
from tests.support.cluster import cluster

FUTURE = "2100-01-01T00:00:00.000000Z"


def place_expired_hold(api: Api, wallet_id: str, amount: str, **fields: Any) -> str:
    """Place a hold that has expired. The expiry is not recorded: no transaction has locked the wallet."""
    answer = api.hold(wallet_id, amount, expiresAt=FUTURE, **fields)
    assert answer.status == 201, answer
    hold_id: str = answer.json["id"]
    let_expire(wallet_id, hold_id)
    return hold_id


def let_expire(wallet_id: str, hold_id: str) -> None:
    with psycopg.connect(cluster.url("postgres")) as database:
        past = datetime.now(UTC) - timedelta(microseconds=1)
        for table in ("operation", "hold"):
            database.execute(f"UPDATE {table} SET expires_at = %s WHERE id = %s".encode(), [past, hold_id])
        database.execute("UPDATE wallet SET next_expiry_at = %s WHERE id = %s", [past, wallet_id])
        chain_anew(database, wallet_id)


def amounts_of(api: Api, wallet_id: str) -> tuple[str, str, str]:
    wallet = api.wallet(wallet_id)
    return wallet["balance"], wallet["held"], wallet["available"]


def status_of(api: Api, hold_id: str) -> str:
    status: str = api.held(hold_id)["status"]
    return status


# --- Placing a hold ---------------------------------------------------------------------------------
def test_hold_reserves_money_and_moves_none(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    answer = api.hold(wallet_id, "40", key="h-1", description="room 7", expiresAt="2100-01-01T03:00:00+03:00")
    hold = answer.json
    assert answer.status == 201
    assert answer.headers["location"] == f"/api/v1/holds/{hold['id']}"
    assert hold == {
        "id": hold["id"],
        "walletId": wallet_id,
        "amount": "40.00",
        "currency": "RUB",
        "status": "ACTIVE",
        "capturedAmount": None,
        "operationId": None,
        "reference": "",
        "description": "room 7",
        "metadata": {},
        "expiresAt": FUTURE,
        "createdAt": hold["createdAt"],
        "endedAt": None,
    }
    assert api.held(hold["id"]) == hold
    assert amounts_of(api, wallet_id) == ("100.00", "40.00", "60.00")
    assert api.wallet(wallet_id)["sequence"] == 1
    Books((wallet_id,)).verify()


def test_history_shows_holds_only_by_type(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    first, second = api.hold(wallet_id, "40").json["id"], api.hold(wallet_id, "10").json["id"]
    captured = api.capture(first).json
    api.void(second)
    assert [item["operationType"] for item in api.history(wallet_id)] == ["CAPTURE", "DEPOSIT"]
    assert [item["holdId"] for item in api.history(wallet_id, "type=HOLD")] == [second, first]
    (void,) = api.history(wallet_id, "type=VOID")
    assert (void["holdId"], void["sequence"], void["balance"]) == (second, None, None)
    assert api.history(wallet_id, "type=CAPTURE") == [captured]


def test_hold_takes_from_the_available_amount(api: Api, unmoved: Unchanged) -> None:
    wallet_id = api.open(deposit="100", overdraftLimit="20")
    assert api.hold(wallet_id, "120").status == 201
    assert amounts_of(api, wallet_id) == ("100.00", "120.00", "-20.00")
    with unmoved(wallet_id):
        assert api.hold(wallet_id, "0.01").code == "insufficient_funds"
        assert api.withdraw(wallet_id, "0.01").code == "insufficient_funds"


@pytest.mark.parametrize(("currency", "amount", "rest"), [("JPY", "40", "60"), ("KWD", "0.001", "99.999")])
def test_hold_amount_has_the_digits_of_its_currency(api: Api, currency: str, amount: str, rest: str) -> None:
    wallet_id = api.open(deposit="100", currency=currency)
    hold = api.hold(wallet_id, amount).json
    assert (hold["amount"], api.wallet(wallet_id)["available"]) == (amount, rest)
    captured = api.capture(hold["id"], amount).json
    assert (captured["amount"], captured["balance"]) == (amount, rest)
    assert api.held(hold["id"])["capturedAmount"] == amount


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"amount": "0"}, "amount", "out_of_range"),
        ({"amount": "1.001"}, "amount", "too_many_digits"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt", "out_of_range"),
        ({"expiresAt": "2100-01-01T00:00:00"}, "expiresAt", "invalid_time"),
        ({"expiresAt": 60}, "expiresAt", "invalid_type"),
        ({"metadata": []}, "metadata", "invalid_type"),
    ],
)
def test_invalid_hold_is_refused_and_leaves_no_trace(
    api: Api, unchanged: Unchanged, change: dict[str, Any], field: str, code: str
) -> None:
    wallet_id = api.open(deposit="10")
    with unchanged(wallet_id):
        answer = api.hold(wallet_id, **{"amount": "1", "key": "k"} | change)
        assert (answer.status, answer.code) == (400, "validation_error")
        assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [(field, code)]
    assert api.hold(wallet_id, "1", key="k").status == 201  # the key is still free


@pytest.mark.parametrize(("status", "code"), [("FROZEN", "wallet_frozen"), ("CLOSED", "wallet_closed")])
def test_frozen_or_closed_wallet_refuses_a_hold(api: Api, unmoved: Unchanged, status: str, code: str) -> None:
    wallet_id = api.open(overdraftLimit="10")
    api.patch(f"/wallets/{wallet_id}", {"status": status})
    with unmoved(wallet_id):
        assert api.hold(wallet_id, "1").code == code


@pytest.mark.parametrize("wallet_id", [UNKNOWN_ID, "x"])
def test_hold_in_unknown_wallet_is_not_found(api: Api, wallet_id: str) -> None:
    assert api.hold(wallet_id, "1").code == "wallet_not_found"
    assert api.get(f"/wallets/{wallet_id}/holds").code == "wallet_not_found"


@pytest.mark.parametrize("hold_id", [UNKNOWN_ID, "x"])
def test_unknown_hold_is_not_found(api: Api, hold_id: str) -> None:
    answers = (api.get(f"/holds/{hold_id}"), api.capture(hold_id), api.void(hold_id))
    assert [(answer.status, answer.code) for answer in answers] == [(404, "hold_not_found")] * 3


# --- Ending a hold ----------------------------------------------------------------------------------
def test_capture_without_amount_takes_the_whole_hold(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    answer = api.capture(hold_id)
    operation = answer.json
    assert (answer.status, answer.headers["location"]) == (201, f"/api/v1/operations/{operation['id']}")
    assert (operation["operationType"], operation["amount"], operation["balance"], operation["sequence"]) == (
        *("CAPTURE", "40.00", "60.00"),
        2,
    )
    assert operation["holdId"] == hold_id
    hold = api.held(hold_id)
    assert (hold["status"], hold["capturedAmount"]) == ("CAPTURED", "40.00")
    assert (hold["operationId"], hold["endedAt"]) == (operation["id"], operation["createdAt"])
    assert amounts_of(api, wallet_id) == ("60.00", "0.00", "60.00")
    Books((wallet_id,)).verify()


def test_partial_capture_releases_the_rest(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    assert api.capture(hold_id, "0.01").json["balance"] == "99.99"
    hold = api.held(hold_id)
    assert (hold["amount"], hold["capturedAmount"]) == ("40.00", "0.01")
    assert amounts_of(api, wallet_id) == ("99.99", "0.00", "99.99")
    Books((wallet_id,)).verify()


def test_hold_of_the_whole_overdraft_can_be_captured(api: Api) -> None:
    wallet_id = api.open(overdraftLimit="20")
    hold_id = api.hold(wallet_id, "20").json["id"]
    assert api.capture(hold_id).json["balance"] == "-20.00"
    Books((wallet_id,)).verify()


def test_void_releases_the_whole_hold(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    answer = api.void(hold_id)
    assert answer.status == 200
    assert (answer.json["status"], answer.json["capturedAmount"]) == ("VOIDED", None)
    assert answer.json["endedAt"] is not None
    assert answer.json == api.held(hold_id)
    assert amounts_of(api, wallet_id) == ("100.00", "0.00", "100.00")
    Books((wallet_id,)).verify()


def test_capture_and_void_need_no_body(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    for verb, status in (("capture", 201), ("void", 200)):
        hold_id = api.hold(wallet_id, "10").json["id"]
        assert api.sender.send("POST", f"/api/v1/holds/{hold_id}/{verb}").status == status


def test_capture_beyond_the_hold_is_refused(api: Api, unmoved: Unchanged) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    with unmoved(wallet_id):
        answer = api.capture(hold_id, "40.01")
        assert (answer.status, answer.code) == (409, "hold_amount_exceeded")
        recorded = api.operation(answer.json["operationId"])
        assert (recorded["holdId"], recorded["status"]) == (hold_id, "REJECTED")
    assert api.capture(hold_id, "40").status == 201


@pytest.mark.parametrize(("amount", "code"), [("0", "out_of_range"), ("0.001", "too_many_digits")])
def test_capture_of_an_invalid_amount_leaves_no_trace(
    api: Api, unchanged: Unchanged, amount: str, code: str
) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    with unchanged(wallet_id):
        answer = api.capture(hold_id, amount, key="k")
        assert (answer.status, answer.json["errors"][0]["code"]) == (400, code)
    assert api.capture(hold_id, "1", key="k").status == 201


def capture(api: Api, hold_id: str) -> Answer:
    return api.capture(hold_id)


def void(api: Api, hold_id: str) -> Answer:
    return api.void(hold_id)


End = Callable[[Api, str], Answer]


@pytest.mark.parametrize("first", [capture, void])
@pytest.mark.parametrize("second", [capture, void])
def test_hold_ends_once(api: Api, unmoved: Unchanged, first: End, second: End) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    first(api, hold_id)
    with unmoved(wallet_id):
        answer = second(api, hold_id)
        assert (answer.status, answer.code) == (409, "hold_not_active")


def test_hold_of_a_frozen_wallet_can_only_be_voided(api: Api, unmoved: Unchanged) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    api.patch(f"/wallets/{wallet_id}", {"status": "FROZEN"})
    with unmoved(wallet_id):
        assert api.capture(hold_id).code == "wallet_frozen"
    assert api.void(hold_id).json["status"] == "VOIDED"
    Books((wallet_id,)).verify()


def test_wallet_with_a_hold_cannot_be_closed(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(overdraftLimit="40")
    hold_id = api.hold(wallet_id, "40").json["id"]
    with unchanged(wallet_id):
        assert api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"}).code == "wallet_not_empty"
    api.void(hold_id)
    assert api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"}).json["status"] == "CLOSED"


# --- Expiry -----------------------------------------------------------------------------------------
def test_unrecorded_expiry_is_visible_in_every_read(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(deposit="100")
    api.hold(wallet_id, "10", expiresAt=FUTURE)
    hold_id = place_expired_hold(api, wallet_id, "40")
    with unchanged(wallet_id):
        assert amounts_of(api, wallet_id) == ("100.00", "10.00", "90.00")
        hold = api.held(hold_id)
        assert (hold["status"], hold["endedAt"]) == ("EXPIRED", hold["expiresAt"])
        listed = api.get(f"/wallets/{wallet_id}/holds?status=EXPIRED").json["items"]
        assert listed == [hold]
        (shown,) = [item for item in api.get("/wallets?limit=500").json["items"] if item["id"] == wallet_id]
        assert shown["held"] == "10.00"


def test_next_operation_records_the_expiry(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    stays = api.hold(wallet_id, "10", expiresAt=FUTURE).json["id"]
    hold_id = place_expired_hold(api, wallet_id, "40")
    before = api.held(hold_id)
    assert api.withdraw(wallet_id, "90").json["balance"] == "10.00"
    assert api.held(hold_id) == before
    assert amounts_of(api, wallet_id) == ("10.00", "10.00", "0.00")
    assert status_of(api, stays) == "ACTIVE"
    with psycopg.connect(cluster.url("postgres")) as database:
        rows = database.execute("SELECT status FROM hold WHERE id = %s", [hold_id]).fetchall()
    assert rows == [("EXPIRED",)]
    Books((wallet_id,)).verify()


@pytest.mark.parametrize("end", [capture, void])
def test_expired_hold_cannot_be_captured_or_voided(api: Api, end: End) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = place_expired_hold(api, wallet_id, "40")
    answer = end(api, hold_id)
    assert (answer.status, answer.code) == (409, "hold_not_active")
    assert amounts_of(api, wallet_id) == ("100.00", "0.00", "100.00")
    Books((wallet_id,)).verify()


def test_wallet_with_an_expired_hold_can_be_closed(api: Api) -> None:
    wallet_id = api.open(overdraftLimit="40")
    hold_id = place_expired_hold(api, wallet_id, "40")
    closed = api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"})
    assert (closed.status, closed.json["status"], closed.json["held"]) == (200, "CLOSED", "0.00")
    assert status_of(api, hold_id) == "EXPIRED"
    assert api.capture(hold_id).code == "wallet_closed"
    Books((wallet_id,)).verify()


def test_transfer_may_spend_the_amount_of_an_expired_hold(api: Api) -> None:
    source_id, target_id = api.open(deposit="100"), api.open(deposit="100")
    for wallet_id in (source_id, target_id):
        place_expired_hold(api, wallet_id, "100")
    assert api.transfer(source_id, target_id, "100").json["target"]["balance"] == "200.00"
    assert amounts_of(api, target_id) == ("200.00", "0.00", "200.00")
    Books((source_id, target_id)).verify()


def test_expiry_changes_the_etag(api: Api) -> None:
    """Passing time changes the available amount without an operation."""
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40", expiresAt=FUTURE).json["id"]
    tag = api.get(f"/wallets/{wallet_id}").headers["etag"]
    let_expire(wallet_id, hold_id)
    after = api.get(f"/wallets/{wallet_id}", If_None_Match=tag)
    assert (after.status, after.json["available"]) == (200, "100.00")
    # If-Match uses the same ETag as the reads.
    changed = api.patch(f"/wallets/{wallet_id}", {"label": "x"}, If_Match=tag)
    assert changed.code == "precondition_failed"
    assert api.patch(f"/wallets/{wallet_id}", {"label": "x"}, If_Match=after.headers["etag"]).status == 200


# --- Lists ------------------------------------------------------------------------------------------
def test_holds_are_listed_newest_first_by_status(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    ids = [api.hold(wallet_id, "1").json["id"] for _ in range(7)]
    api.capture(ids[0])
    api.void(ids[1])
    expired = place_expired_hold(api, wallet_id, "1")
    by_status = {
        status: [hold["id"] for hold in api.get(f"/wallets/{wallet_id}/holds?status={status}").json["items"]]
        for status in ("ACTIVE", "CAPTURED", "VOIDED", "EXPIRED")
    }
    active = ids[:1:-1]
    assert by_status == {"ACTIVE": active, "CAPTURED": ids[:1], "VOIDED": ids[1:2], "EXPIRED": [expired]}
    pages, query = [], "status=ACTIVE&limit=2"
    while query:
        page = api.get(f"/wallets/{wallet_id}/holds?{query}").json
        pages.append([hold["id"] for hold in page["items"]])
        api.hold(wallet_id, "1")  # a new hold does not move the pages
        cursor = page["nextCursor"]
        query = f"cursor={cursor}&limit=2" if cursor else ""
    assert pages == [active[:2], active[2:4], active[4:]]


def test_list_without_status_has_all_holds_of_the_wallet(api: Api) -> None:
    wallet_id, other_id = api.open(deposit="100"), api.open(deposit="100")
    one, two = api.hold(wallet_id, "1").json["id"], api.hold(wallet_id, "2").json["id"]
    api.void(one)
    api.hold(other_id, "1")
    page = api.get(f"/wallets/{wallet_id}/holds").json
    assert [hold["id"] for hold in page["items"]] == [two, one]
    assert page["nextCursor"] is None
    assert api.get(f"/wallets/{wallet_id}/holds?status=OPEN").code == "validation_error"


# --- Replays ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("end", [capture, void, None])
def test_replayed_hold_gets_the_first_response_after_its_end(
    api: Api, unchanged: Unchanged, end: End | None
) -> None:
    wallet_id = api.open(deposit="100")
    body = {"expiresAt": FUTURE, "description": "room 7"}
    first = api.hold(wallet_id, "40", key="k", **body)
    hold_id = first.json["id"]
    if end:
        end(api, hold_id)
    with unchanged(wallet_id):
        again = api.hold(wallet_id, "40.0", key="k", **body | {"expiresAt": "2100-01-01T01:00:00+01:00"})
        assert (again.status, again.content) == (201, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        for other in ({"expiresAt": "2100-01-01T00:00:01Z"}, {"description": "room 8"}):
            assert api.hold(wallet_id, "40", key="k", **body | other).code == "idempotency_key_reused"
        assert api.hold(wallet_id, "41", key="k", **body).code == "idempotency_key_reused"
        assert api.hold(wallet_id, "40", key="k", description="room 7").code == "idempotency_key_reused"


def test_replay_of_an_expired_hold_shows_it_active(api: Api) -> None:
    wallet_id, chosen = api.open(deposit="100"), str(uuid4())
    place_expired_hold(api, wallet_id, "40", id=chosen)
    then = api.held(chosen)["expiresAt"]
    again = api.hold(wallet_id, "40", id=chosen, expiresAt=then)
    assert (again.status, again.json["id"], again.json["status"]) == (201, chosen, "ACTIVE")
    assert again.headers["idempotent-replayed"] == "true"
    assert amounts_of(api, wallet_id) == ("100.00", "0.00", "100.00")


def test_replayed_capture_gets_the_first_response(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    first = api.capture(hold_id, "30", key="k")
    with unchanged(wallet_id):
        again = api.capture(hold_id, "30.00", key="k")
        assert (again.status, again.content) == (201, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert api.capture(hold_id, "31", key="k").code == "idempotency_key_reused"
        assert api.void(hold_id, key="k").code == "idempotency_key_reused"


@pytest.mark.parametrize(("first", "second"), [(None, "40"), ("40", None)])
def test_capture_of_all_differs_from_capture_of_the_same_amount(
    api: Api, unchanged: Unchanged, first: str | None, second: str | None
) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    answer = api.capture(hold_id, first, key="k")
    with unchanged(wallet_id):
        assert api.capture(hold_id, second, key="k").code == "idempotency_key_reused"
        assert api.capture(hold_id, first, key="k").content == answer.content


def test_replayed_void_gets_the_first_response(api: Api, unchanged: Unchanged) -> None:
    wallet_id, chosen = api.open(deposit="100"), str(uuid4())
    hold_id, other_id = api.hold(wallet_id, "40").json["id"], api.hold(wallet_id, "40").json["id"]
    first = api.void(hold_id, id=chosen)
    with unchanged(wallet_id):
        again = api.void(hold_id, id=chosen)
        assert (again.status, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert api.void(other_id, id=chosen).code == "idempotency_key_reused"
        assert api.capture(hold_id, key=chosen).code == "idempotency_key_reused"


@pytest.mark.parametrize("verb", ["capture", "void"])
def test_refused_capture_or_void_is_replayed(api: Api, unchanged: Unchanged, verb: str) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    api.void(hold_id)
    first = getattr(api, verb)(hold_id, key="k")
    with unchanged(wallet_id):
        again = getattr(api, verb)(hold_id, key="k")
        assert again.code == "hold_not_active"
        assert repeated(again.json) == repeated(first.json)
        assert again.headers["idempotent-replayed"] == "true"


def test_refused_hold_is_replayed_after_a_deposit(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    first = api.hold(wallet_id, "40", key="k")
    api.deposit(wallet_id, "100")
    with unchanged(wallet_id):
        again = api.hold(wallet_id, "40", key="k")
        assert (again.code, again.json["operationId"]) == ("insufficient_funds", first.json["operationId"])


def test_hold_and_its_operation_share_the_client_id(api: Api) -> None:
    wallet_id, chosen = api.open(deposit="100"), str(uuid4())
    assert api.hold(wallet_id, "40", id=chosen).json["id"] == chosen
    operation = api.operation(chosen)
    assert (operation["operationType"], operation["holdId"], operation["idempotencyKey"]) == (
        *("HOLD", chosen),
        chosen,
    )
    assert api.deposit(wallet_id, "40", id=chosen).code == "idempotency_key_reused"

"""Holds: money set aside, then taken, freed, or free by itself at its time. One end each, and only one."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.conftest import Books, Unchanged
from tests.ledger.test_idempotency import without_request_id
from tests.support.chains import chain_anew
from tests.support.client import UNKNOWN_ID, Answer, Api
from tests.support.cluster import cluster

FUTURE = "2100-01-01T00:00:00.000000Z"


def expiring(api: Api, wallet_id: str, amount: str, **fields: Any) -> str:
    """A hold whose time has come since, unknown to the wallet: nobody has had its lock."""
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


def standing(api: Api, wallet_id: str) -> tuple[str, str, str]:
    wallet = api.wallet(wallet_id)
    return wallet["balance"], wallet["held"], wallet["available"]


def status_of(api: Api, hold_id: str) -> str:
    status: str = api.get(f"/holds/{hold_id}").json["status"]
    return status


# --- To place one -----------------------------------------------------------------------------------
def test_a_hold_sets_money_aside_and_moves_none(api: Api) -> None:
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
        "description": "room 7",
        "expiresAt": FUTURE,
        "createdAt": hold["createdAt"],
        "endedAt": None,
    }
    assert api.get(f"/holds/{hold['id']}").json == hold
    assert standing(api, wallet_id) == ("100.00", "40.00", "60.00")
    assert api.wallet(wallet_id)["sequence"] == 1
    Books((wallet_id,)).verify()


def test_the_history_is_of_money_that_moved_and_knows_holds_when_asked(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    first, second = api.hold(wallet_id, "40").json["id"], api.hold(wallet_id, "10").json["id"]
    captured = api.capture(first).json
    api.void(second)
    assert [item["operationType"] for item in api.history(wallet_id)] == ["CAPTURE", "DEPOSIT"]
    assert [item["holdId"] for item in api.history(wallet_id, "type=HOLD")] == [second, first]
    (void,) = api.history(wallet_id, "type=VOID")
    assert (void["holdId"], void["sequence"], void["balance"]) == (second, None, None)
    assert api.history(wallet_id, "type=CAPTURE") == [captured]


def test_only_what_is_available_can_be_held_and_nothing_else_takes_it(api: Api, unmoved: Unchanged) -> None:
    wallet_id = api.open(deposit="100", overdraftLimit="20")
    assert api.hold(wallet_id, "120").status == 201
    assert standing(api, wallet_id) == ("100.00", "120.00", "-20.00")
    with unmoved(wallet_id):
        assert api.hold(wallet_id, "0.01").code == "insufficient_funds"
        assert api.withdraw(wallet_id, "0.01").code == "insufficient_funds"


@pytest.mark.parametrize(("currency", "amount", "rest"), [("JPY", "40", "60"), ("KWD", "0.001", "99.999")])
def test_a_currency_has_its_own_digits(api: Api, currency: str, amount: str, rest: str) -> None:
    wallet_id = api.open(deposit="100", currency=currency)
    hold = api.hold(wallet_id, amount).json
    assert (hold["amount"], api.wallet(wallet_id)["available"]) == (amount, rest)
    captured = api.capture(hold["id"], amount).json
    assert (captured["amount"], captured["balance"]) == (amount, rest)
    assert api.get(f"/holds/{hold['id']}").json["capturedAmount"] == amount


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"amount": "0"}, "amount", "out_of_range"),
        ({"amount": "1.001"}, "amount", "too_many_digits"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt", "out_of_range"),
        ({"expiresAt": "2100-01-01T00:00:00"}, "expiresAt", "invalid_time"),
        ({"expiresAt": 60}, "expiresAt", "invalid_type"),
        ({"metadata": {}}, "metadata", "unknown_field"),
    ],
)
def test_the_wrong_shape_is_refused_and_leaves_no_trace(
    api: Api, unchanged: Unchanged, change: dict[str, Any], field: str, code: str
) -> None:
    wallet_id = api.open(deposit="10")
    with unchanged(wallet_id):
        answer = api.hold(wallet_id, **{"amount": "1", "key": "k"} | change)
        assert (answer.status, answer.code) == (400, "validation_error")
        assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [(field, code)]
    assert api.hold(wallet_id, "1", key="k").status == 201  # the key is still free


@pytest.mark.parametrize(("status", "code"), [("FROZEN", "wallet_frozen"), ("CLOSED", "wallet_closed")])
def test_nothing_is_held_in_a_wallet_that_does_not_move(
    api: Api, unmoved: Unchanged, status: str, code: str
) -> None:
    wallet_id = api.open(overdraftLimit="10")
    api.patch(f"/wallets/{wallet_id}", {"status": status})
    with unmoved(wallet_id):
        assert api.hold(wallet_id, "1").code == code


@pytest.mark.parametrize("wallet_id", [UNKNOWN_ID, "x"])
def test_an_unknown_wallet_is_not_found(api: Api, wallet_id: str) -> None:
    assert api.hold(wallet_id, "1").code == "wallet_not_found"
    assert api.get(f"/wallets/{wallet_id}/holds").code == "wallet_not_found"


@pytest.mark.parametrize("hold_id", [UNKNOWN_ID, "x"])
def test_an_unknown_hold_is_not_found(api: Api, hold_id: str) -> None:
    answers = (api.get(f"/holds/{hold_id}"), api.capture(hold_id), api.void(hold_id))
    assert [(answer.status, answer.code) for answer in answers] == [(404, "hold_not_found")] * 3


# --- To end it --------------------------------------------------------------------------------------
def test_all_of_a_hold_is_captured_where_no_amount_is_given(api: Api) -> None:
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
    hold = api.get(f"/holds/{hold_id}").json
    assert (hold["status"], hold["capturedAmount"]) == ("CAPTURED", "40.00")
    assert (hold["operationId"], hold["endedAt"]) == (operation["id"], operation["createdAt"])
    assert standing(api, wallet_id) == ("60.00", "0.00", "60.00")
    Books((wallet_id,)).verify()


def test_a_part_is_captured_and_the_rest_released(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    assert api.capture(hold_id, "0.01").json["balance"] == "99.99"
    hold = api.get(f"/holds/{hold_id}").json
    assert (hold["amount"], hold["capturedAmount"]) == ("40.00", "0.01")
    assert standing(api, wallet_id) == ("99.99", "0.00", "99.99")
    Books((wallet_id,)).verify()


def test_a_hold_that_takes_the_last_cent_of_the_overdraft_can_be_captured(api: Api) -> None:
    wallet_id = api.open(overdraftLimit="20")
    hold_id = api.hold(wallet_id, "20").json["id"]
    assert api.capture(hold_id).json["balance"] == "-20.00"
    Books((wallet_id,)).verify()


def test_a_void_frees_all_of_it(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    answer = api.void(hold_id)
    assert answer.status == 200
    assert (answer.json["status"], answer.json["capturedAmount"]) == ("VOIDED", None)
    assert answer.json["endedAt"] is not None
    assert answer.json == api.get(f"/holds/{hold_id}").json
    assert standing(api, wallet_id) == ("100.00", "0.00", "100.00")
    Books((wallet_id,)).verify()


def test_no_body_at_all_captures_or_voids_it(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    for verb, status in (("capture", 201), ("void", 200)):
        hold_id = api.hold(wallet_id, "10").json["id"]
        assert api.sender.send("POST", f"/api/v1/holds/{hold_id}/{verb}").status == status


def test_no_more_is_captured_than_is_held(api: Api, unmoved: Unchanged) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    with unmoved(wallet_id):
        answer = api.capture(hold_id, "40.01")
        assert (answer.status, answer.code) == (409, "hold_amount_exceeded")
        recorded = api.get(f"/operations/{answer.json['operationId']}").json
        assert (recorded["holdId"], recorded["status"]) == (hold_id, "REJECTED")
    assert api.capture(hold_id, "40").status == 201


@pytest.mark.parametrize(("amount", "code"), [("0", "out_of_range"), ("0.001", "too_many_digits")])
def test_an_amount_that_does_not_fit_leaves_no_trace(
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
def test_a_hold_ends_once(api: Api, unmoved: Unchanged, first: End, second: End) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    first(api, hold_id)
    with unmoved(wallet_id):
        answer = second(api, hold_id)
        assert (answer.status, answer.code) == (409, "hold_not_active")


def test_a_frozen_wallets_hold_can_be_voided_but_not_captured(api: Api, unmoved: Unchanged) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    api.patch(f"/wallets/{wallet_id}", {"status": "FROZEN"})
    with unmoved(wallet_id):
        assert api.capture(hold_id).code == "wallet_frozen"
    assert api.void(hold_id).json["status"] == "VOIDED"
    Books((wallet_id,)).verify()


def test_a_wallet_with_a_hold_cannot_be_closed(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(overdraftLimit="40")
    hold_id = api.hold(wallet_id, "40").json["id"]
    with unchanged(wallet_id):
        assert api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"}).code == "wallet_not_empty"
    api.void(hold_id)
    assert api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"}).json["status"] == "CLOSED"


# --- Its time ---------------------------------------------------------------------------------------
def test_an_expired_hold_is_expired_on_every_read_though_nobody_has_written_it_down(
    api: Api, unchanged: Unchanged
) -> None:
    wallet_id = api.open(deposit="100")
    api.hold(wallet_id, "10", expiresAt=FUTURE)
    hold_id = expiring(api, wallet_id, "40")
    with unchanged(wallet_id):
        assert standing(api, wallet_id) == ("100.00", "10.00", "90.00")
        hold = api.get(f"/holds/{hold_id}").json
        assert (hold["status"], hold["endedAt"]) == ("EXPIRED", hold["expiresAt"])
        listed = api.get(f"/wallets/{wallet_id}/holds?status=EXPIRED").json["items"]
        assert listed == [hold]
        (shown,) = [item for item in api.get("/wallets?limit=500").json["items"] if item["id"] == wallet_id]
        assert shown["held"] == "10.00"


def test_whoever_has_the_lock_next_writes_the_expiry_down(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    stays = api.hold(wallet_id, "10", expiresAt=FUTURE).json["id"]
    hold_id = expiring(api, wallet_id, "40")
    before = api.get(f"/holds/{hold_id}").json
    assert api.withdraw(wallet_id, "90").json["balance"] == "10.00"
    assert api.get(f"/holds/{hold_id}").json == before
    assert standing(api, wallet_id) == ("10.00", "10.00", "0.00")
    assert status_of(api, stays) == "ACTIVE"
    with psycopg.connect(cluster.url("postgres")) as database:
        rows = database.execute("SELECT status FROM hold WHERE id = %s", [hold_id]).fetchall()
    assert rows == [("EXPIRED",)]
    Books((wallet_id,)).verify()


@pytest.mark.parametrize("end", [capture, void])
def test_an_expired_hold_has_ended(api: Api, end: End) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = expiring(api, wallet_id, "40")
    answer = end(api, hold_id)
    assert (answer.status, answer.code) == (409, "hold_not_active")
    assert standing(api, wallet_id) == ("100.00", "0.00", "100.00")
    Books((wallet_id,)).verify()


def test_a_wallet_whose_hold_has_expired_can_be_closed(api: Api) -> None:
    wallet_id = api.open(overdraftLimit="40")
    hold_id = expiring(api, wallet_id, "40")
    closed = api.patch(f"/wallets/{wallet_id}", {"status": "CLOSED"})
    assert (closed.status, closed.json["status"], closed.json["held"]) == (200, "CLOSED", "0.00")
    assert status_of(api, hold_id) == "EXPIRED"
    assert api.capture(hold_id).code == "wallet_closed"
    Books((wallet_id,)).verify()


def test_a_transfer_may_spend_what_has_expired_and_a_deposit_may_come_in(api: Api) -> None:
    source_id, target_id = api.open(deposit="100"), api.open(deposit="100")
    for wallet_id in (source_id, target_id):
        expiring(api, wallet_id, "100")
    assert api.transfer(source_id, target_id, "100").json["target"]["balance"] == "200.00"
    assert standing(api, target_id) == ("200.00", "0.00", "200.00")
    Books((source_id, target_id)).verify()


def test_the_same_wallet_before_and_after_an_expiry_has_two_etags(api: Api) -> None:
    """Of one wallet with nothing done to it: time alone changes what is available."""
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40", expiresAt=FUTURE).json["id"]
    tag = api.get(f"/wallets/{wallet_id}").headers["etag"]
    let_expire(wallet_id, hold_id)
    after = api.get(f"/wallets/{wallet_id}", If_None_Match=tag)
    assert (after.status, after.json["available"]) == (200, "100.00")
    # What the reads say of it holds for If-Match too.
    changed = api.patch(f"/wallets/{wallet_id}", {"label": "x"}, If_Match=tag)
    assert changed.code == "precondition_failed"
    assert api.patch(f"/wallets/{wallet_id}", {"label": "x"}, If_Match=after.headers["etag"]).status == 200


# --- Lists ------------------------------------------------------------------------------------------
def test_holds_are_listed_newest_first_by_status_and_page_by_page(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    ids = [api.hold(wallet_id, "1").json["id"] for _ in range(7)]
    api.capture(ids[0])
    api.void(ids[1])
    expired = expiring(api, wallet_id, "1")
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
        api.hold(wallet_id, "1")  # what comes meanwhile is not in the way
        cursor = page["nextCursor"]
        query = f"cursor={cursor}&limit=2" if cursor else ""
    assert pages == [active[:2], active[2:4], active[4:]]


def test_a_list_without_a_status_has_all_holds_of_this_wallet_alone(api: Api) -> None:
    wallet_id, other_id = api.open(deposit="100"), api.open(deposit="100")
    one, two = api.hold(wallet_id, "1").json["id"], api.hold(wallet_id, "2").json["id"]
    api.void(one)
    api.hold(other_id, "1")
    page = api.get(f"/wallets/{wallet_id}/holds").json
    assert [hold["id"] for hold in page["items"]] == [two, one]
    assert page["nextCursor"] is None
    assert api.get(f"/wallets/{wallet_id}/holds?status=OPEN").code == "validation_error"


# --- Repeats ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("end", [capture, void, None])
def test_a_repeated_hold_gets_the_first_answer_even_after_its_end(
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


def test_a_hold_that_has_expired_is_answered_to_its_id_as_it_was_placed(api: Api) -> None:
    wallet_id, chosen = api.open(deposit="100"), str(uuid4())
    expiring(api, wallet_id, "40", id=chosen)
    then = api.get(f"/holds/{chosen}").json["expiresAt"]
    again = api.hold(wallet_id, "40", id=chosen, expiresAt=then)
    assert (again.status, again.json["id"], again.json["status"]) == (201, chosen, "ACTIVE")
    assert again.headers["idempotent-replayed"] == "true"
    assert standing(api, wallet_id) == ("100.00", "0.00", "100.00")


def test_a_repeated_capture_gets_the_first_answer(api: Api, unchanged: Unchanged) -> None:
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
def test_all_and_the_same_amount_given_are_two_requests(
    api: Api, unchanged: Unchanged, first: str | None, second: str | None
) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    answer = api.capture(hold_id, first, key="k")
    with unchanged(wallet_id):
        assert api.capture(hold_id, second, key="k").code == "idempotency_key_reused"
        assert api.capture(hold_id, first, key="k").content == answer.content


def test_a_repeated_void_gets_the_first_answer(api: Api, unchanged: Unchanged) -> None:
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
def test_a_refused_end_is_refused_again(api: Api, unchanged: Unchanged, verb: str) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "40").json["id"]
    api.void(hold_id)
    first = getattr(api, verb)(hold_id, key="k")
    with unchanged(wallet_id):
        again = getattr(api, verb)(hold_id, key="k")
        assert again.code == "hold_not_active"
        assert without_request_id(again.json) == without_request_id(first.json)
        assert again.headers["idempotent-replayed"] == "true"


def test_a_refused_hold_is_refused_again_though_there_is_money_now(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    first = api.hold(wallet_id, "40", key="k")
    api.deposit(wallet_id, "100")
    with unchanged(wallet_id):
        again = api.hold(wallet_id, "40", key="k")
        assert (again.code, again.json["operationId"]) == ("insufficient_funds", first.json["operationId"])


def test_a_holds_own_id_is_its_operations_id(api: Api) -> None:
    wallet_id, chosen = api.open(deposit="100"), str(uuid4())
    assert api.hold(wallet_id, "40", id=chosen).json["id"] == chosen
    operation = api.get(f"/operations/{chosen}").json
    assert (operation["operationType"], operation["holdId"], operation["idempotencyKey"]) == (
        *("HOLD", chosen),
        chosen,
    )
    assert api.deposit(wallet_id, "40", id=chosen).code == "idempotency_key_reused"

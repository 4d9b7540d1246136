"""Accepted for later: durable before it is answered, carried out once, in the order of each wallet."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection

from tests.conftest import Books, Unchanged
from tests.support.client import Answer, Api, OverHttp
from tests.support.cluster import cluster
from wallets.ledger.inbox import SKIP_SECONDS, Drain, drain, waiting
from wallets.models import Hold, InboxEntry, Operation

ASYNC = {"Prefer": "respond-async"}
PATIENCE = 60.0


def later(api: Api, path: str, body: Any, key: str | None = None) -> Answer:
    return api.post(path, body, **ASYNC, **({"Idempotency_Key": key} if key else {}))


def deposit_later(api: Api, wallet_id: str, amount: Any, key: str | None = None, **fields: Any) -> Answer:
    body = {"operationType": "DEPOSIT", "amount": amount, **fields}
    return later(api, f"/wallets/{wallet_id}/operation", body, key)


def withdraw_later(api: Api, wallet_id: str, amount: Any, key: str | None = None) -> Answer:
    body = {"operationType": "WITHDRAW", "amount": amount}
    return later(api, f"/wallets/{wallet_id}/operation", body, key)


def transfer(source: str, target: str, amount: Any) -> dict[str, Any]:
    return {"sourceWalletId": source, "targetWalletId": target, "amount": amount}


def deposits(wallet_id: str, amounts: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"walletId": wallet_id, "operationType": "DEPOSIT", "amount": amount} for amount in amounts]


def drain_all() -> None:
    while drain(500):
        pass


def wait_until(happens: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def left(*wallet_ids: str) -> int:
    return InboxEntry.objects.filter(wallet_id__in=wallet_ids).count()


def operation(api: Api, accepted: Answer) -> Any:
    return api.get(f"/operations/{accepted.json['id']}").json


# --- Accepted, then decided -------------------------------------------------------------------------
@contextmanager
def no_money_moved(*wallet_ids: str) -> Iterator[None]:
    before = Books(wallet_ids).money()
    yield
    assert Books(wallet_ids).money() == before


def test_what_is_accepted_is_on_disk_and_has_moved_nothing(api: Api) -> None:
    wallet_id = api.open(deposit="1")
    with no_money_moved(wallet_id):
        accepted = deposit_later(api, wallet_id, "10", key="k", description="x", metadata={"a": 1})
        operation_id = accepted.json["id"]
        assert accepted.status == 202
        assert accepted.headers["location"] == f"/api/v1/operations/{operation_id}"
        assert accepted.headers["preference-applied"] == "respond-async"
        assert accepted.json | {"createdAt": ""} == {
            "id": operation_id,
            "walletId": wallet_id,
            "sequence": None,
            "operationType": "DEPOSIT",
            "amount": "10.00",
            "currency": "RUB",
            "status": "PENDING",
            "reason": None,
            "balance": None,
            "transferId": None,
            "counterpartyWalletId": None,
            "holdId": None,
            "reversesId": None,
            "idempotencyKey": "k",
            "description": "x",
            "metadata": {"a": 1},
            "createdAt": "",
        }
        assert api.get(f"/operations/{operation_id}").json == accepted.json
    with psycopg.connect(cluster.url()) as another:
        assert another.execute("SELECT count(*) FROM inbox WHERE id = %s", [operation_id]).fetchone() == (1,)


def test_what_is_carried_out_is_completed_and_in_the_history(api: Api) -> None:
    wallet_id = api.open(deposit="1")
    accepted = deposit_later(api, wallet_id, "10", key="k", description="x", metadata={"a": 1})
    drain_all()
    done = operation(api, accepted)
    assert (done["status"], done["sequence"], done["balance"]) == ("COMPLETED", 2, "11.00")
    assert api.history(wallet_id)[0] == done
    unlike = {name for name in done if done[name] != accepted.json[name]}
    assert unlike == {"status", "sequence", "balance", "createdAt"}
    assert done["createdAt"] > accepted.json["createdAt"]
    assert left(wallet_id) == 0
    Books((wallet_id,)).verify()


def test_what_a_rule_refuses_is_rejected_when_its_turn_comes(api: Api) -> None:
    wallet_id = api.open(deposit="1")
    accepted = withdraw_later(api, wallet_id, "1.01")
    drain_all()
    refused = operation(api, accepted)
    assert (refused["status"], refused["reason"]) == ("REJECTED", "insufficient_funds")
    assert (refused["sequence"], refused["balance"]) == (None, None)
    assert api.balance(wallet_id) == "1.00"
    Books((wallet_id,)).verify()


def test_rules_are_asked_when_its_turn_comes_and_not_before(api: Api) -> None:
    wallet_id = api.open()
    withdrawal = withdraw_later(api, wallet_id, 5)
    assert withdrawal.status == 202
    deposit = deposit_later(api, wallet_id, 5)
    again = withdraw_later(api, wallet_id, 5)
    drain_all()
    found = [operation(api, accepted)["status"] for accepted in (withdrawal, deposit, again)]
    assert found == ["REJECTED", "COMPLETED", "COMPLETED"]


def test_a_transfer_is_pending_and_then_has_both_sides(api: Api) -> None:
    source, target = api.open(deposit="10"), api.open()
    accepted = later(api, "/transfers", transfer(source, target, "4"))
    transfer_id = accepted.json["id"]
    assert (accepted.status, accepted.json["status"], accepted.json["target"]) == (202, "PENDING", None)
    assert accepted.headers["location"] == f"/api/v1/operations/{transfer_id}"
    assert api.get(f"/transfers/{transfer_id}").json == accepted.json
    assert api.get(f"/operations/{transfer_id}").json == accepted.json["source"]
    drain_all()
    done = api.get(f"/transfers/{transfer_id}").json
    assert (done["status"], done["source"]["balance"], done["target"]["balance"]) == (
        "COMPLETED",
        "6.00",
        "4.00",
    )
    Books((source, target)).verify()


def test_a_refused_transfer_is_rejected_with_its_reason(api: Api) -> None:
    source, target = api.open(), api.open()
    accepted = later(api, "/transfers", transfer(source, target, "4"))
    drain_all()
    done = api.get(f"/transfers/{accepted.json['id']}").json
    assert (done["status"], done["reason"], done["target"]) == ("REJECTED", "insufficient_funds", None)
    Books((source, target)).verify()


@pytest.mark.parametrize(("asked", "taken"), [({"amount": "3"}, "3.00"), ({}, "10.00")])
def test_a_capture_may_be_for_later(api: Api, asked: dict[str, str], taken: str) -> None:
    wallet_id = api.open(deposit="10")
    hold_id = api.post(f"/wallets/{wallet_id}/holds", {"amount": 10}).json["id"]
    accepted = later(api, f"/holds/{hold_id}/capture", asked)
    assert (accepted.status, accepted.json["operationType"], accepted.json["amount"]) == (
        202,
        "CAPTURE",
        taken,
    )
    assert api.get(f"/holds/{hold_id}").json["status"] == "ACTIVE"
    drain_all()
    hold = api.get(f"/holds/{hold_id}").json
    assert (hold["status"], hold["capturedAmount"], hold["operationId"]) == (
        "CAPTURED",
        taken,
        accepted.json["id"],
    )
    assert Decimal(api.balance(wallet_id)) == 10 - Decimal(taken)
    Books((wallet_id,)).verify()


def test_of_two_captures_for_later_the_first_wins(api: Api) -> None:
    wallet_id = api.open(deposit="10")
    hold_id = api.post(f"/wallets/{wallet_id}/holds", {"amount": 10}).json["id"]
    accepted = [later(api, f"/holds/{hold_id}/capture", {"amount": amount}) for amount in (3, 10)]
    drain_all()
    assert [operation(api, one)["reason"] for one in accepted] == [None, "hold_not_active"]
    assert Hold.objects.get(id=hold_id).captured_amount == 3
    Books((wallet_id,)).verify()


@pytest.mark.parametrize(("asked", "left_over"), [({"amount": "3"}, "7.00"), ({}, "0.00")])
def test_a_reversal_may_be_for_later(api: Api, asked: dict[str, str], left_over: str) -> None:
    wallet_id = api.open()
    deposit = api.deposit(wallet_id, "10").json["id"]
    accepted = later(api, f"/operations/{deposit}/reversal", asked)
    assert (accepted.status, accepted.json["operationType"]) == (202, "REVERSAL_OUT")
    drain_all()
    done = operation(api, accepted)
    assert (done["status"], done["balance"], done["reversesId"]) == ("COMPLETED", left_over, deposit)
    Books((wallet_id,)).verify()


def test_a_transfer_reversed_later_is_reversed_on_both_sides(api: Api) -> None:
    source, target = api.open(deposit="10"), api.open()
    done = api.post("/transfers", transfer(source, target, "4")).json
    accepted = later(api, f"/operations/{done['id']}/reversal", {})
    drain_all()
    assert operation(api, accepted)["status"] == "COMPLETED"
    assert (api.balance(source), api.balance(target)) == ("10.00", "0.00")
    Books((source, target)).verify()


def test_more_than_all_is_not_reversed_however_it_is_asked(api: Api) -> None:
    wallet_id = api.open()
    deposit = api.deposit(wallet_id, "10").json["id"]
    accepted = [later(api, f"/operations/{deposit}/reversal", {"amount": 6}) for _ in range(2)]
    drain_all()
    assert [operation(api, one)["reason"] for one in accepted] == [None, "reversal_exceeds_original"]
    assert api.balance(wallet_id) == "4.00"


def test_a_bulk_is_accepted_item_by_item(api: Api) -> None:
    one, other = api.open(deposit="5"), api.open()
    operations = [
        *deposits(one, [1, 2]),
        transfer(one, other, 8),
        {**deposits(one, [1])[0], "amount": "0.001"},
    ]
    answer = later(api, "/operations", {"operations": operations}, key=f"bulk-{one}")
    assert answer.status == 200
    assert [result["status"] for result in answer.json["results"]] == [202, 202, 202, 400]
    assert left(one, other) == 3
    replayed = later(api, "/operations", {"operations": operations}, key=f"bulk-{one}").json["results"]
    assert [(result["status"], result["replayed"]) for result in replayed[:3]] == [(202, True)] * 3
    drain_all()
    assert (api.balance(one), api.balance(other)) == ("0.00", "8.00")
    Books((one, other)).verify()


def test_an_atomic_bulk_is_accepted_as_a_whole_or_not_at_all(api: Api) -> None:
    wallet_id = api.open()
    good, bad = deposits(wallet_id, [1, "0.001"])
    with no_money_moved(wallet_id):
        refused = later(api, "/operations", {"operations": [good, bad], "atomic": True})
        assert (refused.status, left(wallet_id)) == (400, 0)
        accepted = later(api, "/operations", {"operations": [good, good], "atomic": True})
        assert (accepted.status, left(wallet_id)) == (200, 2)
    drain_all()
    assert api.balance(wallet_id) == "2.00"


@pytest.mark.parametrize(
    ("prefer", "status"),
    [
        ("respond-async", 202),
        ("Respond-Async", 202),
        ("respond-async; wait=5", 202),
        ("return=minimal, respond-async", 202),
        ("return=minimal", 201),
        ("respond-asynchronously", 201),
        ("", 201),
    ],
)
def test_what_the_client_prefers_is_read_as_http_has_it(api: Api, prefer: str, status: int) -> None:
    wallet_id = api.open()
    body = {"operationType": "DEPOSIT", "amount": 1}
    assert api.post(f"/wallets/{wallet_id}/operation", body, Prefer=prefer).status == status
    drain_all()
    assert api.balance(wallet_id) == "1.00"


def test_what_can_never_be_is_refused_at_once(api: Api, unchanged: Unchanged) -> None:
    wallet_id, nobody = api.open(), str(uuid4())
    with unchanged(wallet_id):
        assert deposit_later(api, wallet_id, "0.001").code == "validation_error"
        assert deposit_later(api, wallet_id, "-1").code == "validation_error"
        assert deposit_later(api, nobody, 1).code == "wallet_not_found"
        assert later(api, "/transfers", transfer(wallet_id, nobody, 1)).code == "wallet_not_found"
        assert later(api, f"/operations/{nobody}/reversal", {}).code == "operation_not_found"
        assert later(api, f"/holds/{nobody}/capture", {}).code == "hold_not_found"
    assert left(wallet_id, nobody) == 0


# --- Keys -------------------------------------------------------------------------------------------
@pytest.fixture(params=["while it waits", "when it is done"])
def then(request: pytest.FixtureRequest) -> Callable[[], None]:
    return drain_all if request.param == "when it is done" else lambda: None


def test_a_repeat_gets_the_first_answer_for_ever(api: Api, then: Callable[[], None]) -> None:
    wallet_id = api.open()
    first = deposit_later(api, wallet_id, "10", key="k")
    then()
    # However it prefers to be answered now: the first answer is the answer.
    for again in (deposit_later(api, wallet_id, 10, key="k"), api.deposit(wallet_id, "10.0", key="k")):
        assert (again.status, again.json) == (202, first.json)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
    drain_all()
    assert (api.balance(wallet_id), len(api.history(wallet_id))) == ("10.00", 1)


def test_a_repeat_of_what_was_rejected_is_still_answered_that_it_was_accepted(
    api: Api, then: Callable[[], None]
) -> None:
    wallet_id = api.open()
    first = withdraw_later(api, wallet_id, "10", key="k")
    then()
    for again in (withdraw_later(api, wallet_id, 10, key="k"), api.withdraw(wallet_id, "10.0", key="k")):
        assert (again.status, again.json) == (202, first.json)
    drain_all()
    assert len(api.history(wallet_id)) == 1


def test_what_was_done_at_once_is_repeated_as_done(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    done, refused = api.deposit(wallet_id, 10, key="a"), api.withdraw(wallet_id, 11, key="b")
    with unchanged(wallet_id):
        again = deposit_later(api, wallet_id, 10, key="a")
        assert (again.status, again.json) == (201, done.json)
        assert again.headers["idempotent-replayed"] == "true"
        assert "preference-applied" not in again.headers
        again = withdraw_later(api, wallet_id, 11, key="b")
        assert (again.status, again.json["operationId"]) == (409, refused.json["operationId"])
        drain_all()


def test_the_key_of_what_was_accepted_is_taken(
    api: Api, unchanged: Unchanged, then: Callable[[], None]
) -> None:
    wallet_id = api.open()
    deposit_later(api, wallet_id, 10, key="k")
    then()
    with unchanged(wallet_id):
        for answer in (
            deposit_later(api, wallet_id, 11, key="k"),
            api.deposit(wallet_id, 11, key="k"),
            withdraw_later(api, wallet_id, 10, key="k"),
            deposit_later(api, wallet_id, 10, key="k", description="x"),
        ):
            assert (answer.status, answer.code) == (422, "idempotency_key_reused")
    drain_all()
    assert api.balance(wallet_id) == "10.00"


def test_the_id_of_what_was_accepted_is_taken_on_every_wallet(
    api: Api, unchanged: Unchanged, then: Callable[[], None]
) -> None:
    wallet_id, other, chosen = api.open(), api.open(), str(uuid4())
    first = deposit_later(api, wallet_id, 10, id=chosen)
    assert first.json["id"] == chosen
    then()
    with unchanged(wallet_id, other):
        assert api.deposit(wallet_id, 10, id=chosen).json == first.json
        assert api.deposit(other, 10, id=chosen).code == "idempotency_key_reused"
        assert deposit_later(api, other, 10, id=chosen).code == "idempotency_key_reused"
    drain_all()
    assert (api.balance(wallet_id), api.balance(other)) == ("10.00", "0.00")


@pytest.mark.parametrize("asked", [{}, {"amount": 10}])
def test_a_capture_and_a_reversal_are_repeated_as_they_were_asked(
    api: Api, then: Callable[[], None], asked: dict[str, int]
) -> None:
    wallet_id = api.open()
    deposit = api.deposit(wallet_id, 20).json["id"]
    hold_id = api.post(f"/wallets/{wallet_id}/holds", {"amount": 10}).json["id"]
    paths = f"/holds/{hold_id}/capture", f"/operations/{deposit}/reversal"
    firsts = [later(api, path, asked, key=path[:5]) for path in paths]
    then()
    for path, first in zip(paths, firsts, strict=True):
        again = api.post(path, asked, Idempotency_Key=path[:5])
        assert (again.status, again.json) == (202, first.json)
        assert api.post(path, {"amount": 4}, Idempotency_Key=path[:5]).code == "idempotency_key_reused"
    drain_all()
    Books((wallet_id,)).verify()


def test_one_key_sent_by_100_at_once_in_both_ways_counts_once(service: str, live_api: Api) -> None:
    wallet_id = live_api.open()

    def send(number: int) -> Answer:
        sender = OverHttp(service)
        with closing(sender.connection):
            move = deposit_later if number % 2 else Api.deposit
            return move(Api(sender), wallet_id, "7", key="same")

    with ThreadPoolExecutor(100) as pool, ThreadPoolExecutor(1) as drainer:
        draining = drainer.submit(_drain_in_a_thread, [wallet_id], 3, at_least=0.5)
        answers = list(pool.map(send, range(100)))
        draining.result()
    drain_all()
    assert len({(answer.status, answer.content) for answer in answers}) == 1
    assert answers[0].status in (201, 202)
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 99
    assert (live_api.balance(wallet_id), len(live_api.history(wallet_id))) == ("7.00", 1)
    Books((wallet_id,)).verify()


# --- Order ------------------------------------------------------------------------------------------
def accept_at_random(api: Api, wallet_ids: Sequence[str], times: int, seed: int) -> dict[str, list[str]]:
    """Mixed operations for later; by wallet, the ids of what concerns it in the order of acceptance."""
    dice = random.Random(seed)  # noqa: S311
    expected: dict[str, list[str]] = {wallet_id: [] for wallet_id in wallet_ids}
    items = []
    for _ in range(times):
        one, other = dice.sample(wallet_ids, 2)
        if dice.random() < 0.4:
            items.append(transfer(one, other, dice.randint(1, 50)))
        else:
            kind = dice.choice(["DEPOSIT", "WITHDRAW"])
            items.append({"walletId": one, "operationType": kind, "amount": dice.randint(1, 50)})
    for start in range(0, times, 200):
        answer = later(api, "/operations", {"operations": items[start : start + 200]})
        for result in answer.json["results"]:
            accepted = result.get("operation") or result["transfer"]["source"]
            expected[accepted["walletId"]].append(accepted["id"])
            if accepted["counterpartyWalletId"]:
                expected[accepted["counterpartyWalletId"]].append(accepted["id"])
    return expected


def assert_carried_out_in_order(expected: dict[str, list[str]]) -> None:
    assert left(*expected) == 0
    for wallet_id, accepted in expected.items():
        found = [
            str(operation.transfer_id or operation.id)
            for operation in Operation.objects.filter(wallet_id=wallet_id).order_by("created_at")
        ]
        # A transfer that was refused is history of its source alone.
        refused = set(
            Operation.objects.filter(id__in=accepted, status="REJECTED").exclude(wallet_id=wallet_id)
        )
        not_here = {str(operation.id) for operation in refused}
        assert found == [id for id in accepted if id not in not_here]
    Books(tuple(expected)).verify()


def _drain_in_a_thread(wallet_ids: Sequence[str], most: int, at_least: float = 0) -> int:
    own, done, until = Drain(), 0, time.monotonic() + at_least
    with closing(connection):
        while left(*wallet_ids) or time.monotonic() < until:
            done += (now := own.run(most))
            if not now:
                time.sleep(0.01)
    return done


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_several_drains_at_once_keep_the_order_of_every_wallet(api: Api, seed: int) -> None:
    drain_all()
    wallet_ids = [api.open() for _ in range(8)]
    expected = accept_at_random(api, wallet_ids, 400, seed)
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda most: _drain_in_a_thread(wallet_ids, most), [5, 20, 60]))
    assert sum(done) == 400
    assert_carried_out_in_order(expected)


@pytest.mark.slow
def test_several_processes_keep_the_order_of_every_wallet(api: Api) -> None:
    wallet_ids = [api.open() for _ in range(20)]
    expected = accept_at_random(api, wallet_ids, 1000, seed=1)
    with (
        processing("--until-empty", "--batch", "10") as one,
        processing("--until-empty", "--batch", "30") as two,
    ):
        assert [one.wait(PATIENCE), two.wait(PATIENCE)] == [0, 0]
    assert_carried_out_in_order(expected)


def test_operations_at_once_go_on_beside_a_drain(service: str, live_api: Api) -> None:
    wallet_ids = [live_api.open() for _ in range(3)]

    def send(seed: int) -> Counter[int]:
        dice, sender = random.Random(seed), OverHttp(service)  # noqa: S311
        with closing(sender.connection):
            moves: list[Callable[..., Answer]] = [deposit_later, Api.deposit, Api.withdraw]
            return Counter(
                dice.choice(moves)(Api(sender), dice.choice(wallet_ids), dice.randint(1, 9)).status
                for _ in range(50)
            )

    with ThreadPoolExecutor(9) as pool:
        draining = pool.submit(_drain_in_a_thread, wallet_ids, 20, 1.0)
        told = sum(pool.map(send, range(8)), Counter[int]())
        draining.result()
    drain_all()
    assert set(told) <= {201, 202, 409}
    done = Operation.objects.filter(wallet_id__in=wallet_ids).values_list("status", flat=True)
    assert Counter(done) == {"COMPLETED": told[201] + told[202], "REJECTED": told[409]}
    Books(tuple(wallet_ids)).verify()


# --- What stands in the way -------------------------------------------------------------------------
@contextmanager
def locked(wallet_id: str) -> Iterator[psycopg.Connection]:
    """Somebody else is at work on the wallet, and takes his time."""
    with psycopg.connect(cluster.url("postgres")) as other:
        other.execute("SELECT FROM wallet WHERE id = %s FOR UPDATE", [wallet_id])
        yield other


def test_a_locked_wallet_holds_up_only_what_needs_it(api: Api) -> None:
    drain_all()
    busy, free = api.open(deposit="5"), api.open(deposit="5")
    own = Drain()
    with locked(busy):
        for _ in range(12):
            deposit_later(api, free, 1)
        assert own.run(6) == 6
    # What is accepted needs the wallet too, so it comes before the lock.
    first = deposit_later(api, busy, 1)
    between = later(api, "/transfers", transfer(busy, free, 6))
    last = withdraw_later(api, free, 17 + 6)
    with locked(busy):
        assert own.run(500) == 6
        assert own.run(500) == 0
        assert (api.balance(busy), api.balance(free)) == ("5.00", "17.00")
        other = api.open()
        deposit_later(api, other, 1)
        assert own.run(500) == 1
    drain_all()
    assert {operation(api, accepted)["status"] for accepted in (first, between, last)} == {"COMPLETED"}
    Books((busy, free, other)).verify()


@pytest.fixture
def impossible(api: Api) -> Iterator[tuple[str, str]]:
    """A wallet, and an entry of its inbox that is nothing we know how to carry out."""
    drain_all()
    wallet_id, entry_id = api.open(), uuid4()
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
        database.execute(
            "INSERT INTO inbox (id, wallet_id, type, amount, reverses_id, created_at)"
            " VALUES (%s, %s, 'REVERSAL_OUT', 1, %s, now())",
            [entry_id, wallet_id, uuid4()],
        )
        yield wallet_id, str(entry_id)
        database.execute("DELETE FROM inbox WHERE id = %s", [entry_id])
    drain_all()


def test_what_cannot_be_carried_out_holds_up_its_wallet_alone(
    api: Api, impossible: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    stuck, entry_id = impossible
    for _ in range(9):
        deposit_later(api, stuck, 1)
    target, other = api.open(deposit="5"), api.open()
    later(api, "/transfers", transfer(target, stuck, 5))
    withdraw_later(api, target, 5)
    deposit_later(api, other, 1)
    own = Drain()
    # Fewer at once than wait behind it: what is held up does not hide the rest.
    assert sum(own.run(4) for _ in range(4)) == 1
    assert f"inbox entry {entry_id} failed" in caplog.text
    assert (api.balance(other), api.balance(stuck), api.balance(target)) == ("1.00", "0.00", "5.00")
    assert (left(stuck), left(target)) == (10, 2)
    InboxEntry.objects.filter(id=entry_id).delete()
    drain_all()
    assert (api.balance(stuck), api.balance(target)) == ("14.00", "0.00")  # in their order: no money was left
    Books((stuck, target, other)).verify()


def test_wallets_that_were_held_up_one_after_the_other_are_not_so_for_ever(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain_all()
    one, other = api.open(deposit="5"), api.open(deposit="5")
    first = later(api, "/transfers", transfer(one, other, 1)).json["source"]["id"]
    deposit_later(api, one, 1)
    deposit_later(api, other, 1)
    own, now = Drain(), 1000.0
    monkeypatch.setattr("wallets.ledger.inbox.time.monotonic", lambda: now)
    with psycopg.connect(cluster.url("postgres")) as elsewhere:
        elsewhere.execute("SELECT FROM inbox WHERE id = %s FOR UPDATE", [first])
        assert own.run(1) == 0  # sees the deposit to the one wallet, behind the transfer
        now += SKIP_SECONDS / 2
        assert own.run(1) == 0  # passes that wallet over, and so sees the other one's
    done = 0
    for _ in range(20):
        now += SKIP_SECONDS / 4
        done += own.run(1)
    assert done == 3
    assert (api.balance(one), api.balance(other)) == ("5.00", "7.00")


# --- The command ------------------------------------------------------------------------------------
@contextmanager
def processing(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """`manage.py process_inbox` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "process_inbox", *arguments],
        env=os.environ | {"LOG_LEVEL": "INFO"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_drain_that_is_killed_at_work_loses_and_doubles_nothing(api: Api) -> None:
    drain_all()
    wallet_id = api.open()
    later(api, "/operations", {"operations": deposits(wallet_id, [1] * 20)})
    with locked(wallet_id) as other, processing() as killed:
        wait_until(lambda: is_waited_for(other), "it does not reach the wallet")
        killed.kill()
        killed.wait()
    wait_until(lambda: drain(500) == 20, "what the killed one had claimed is not free again")
    assert (api.balance(wallet_id), left(wallet_id)) == ("20.00", 0)
    Books((wallet_id,)).verify()


def is_waited_for(holder: psycopg.Connection) -> bool:
    pid = holder.info.backend_pid
    with psycopg.connect(cluster.url("postgres")) as database:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        return database.execute(asked, [pid]).fetchone() != (0,)


@pytest.mark.slow
def test_drains_that_are_killed_again_and_again_lose_and_double_nothing(api: Api) -> None:
    one, other = api.open(), api.open()
    for _ in range(5):
        operations = [
            *deposits(one, [2] * 300),
            *[transfer(one, other, 1)] * 300,
            *deposits(other, [1] * 300),
        ]
        later(api, "/operations", {"operations": operations})
    for _ in range(5):
        before = left(one, other)
        with processing("--batch", "20") as killed:
            wait_until(lambda before=before: left(one, other) < before, "nothing is carried out")  # type: ignore[misc]
            killed.kill()
            killed.wait()
        Books((one, other)).verify()
    assert left(one, other) > 0, "all were killed too late"
    call_command("process_inbox", "--until-empty", stdout=StringIO())
    assert left(one, other) == 0
    assert (api.balance(one), api.balance(other)) == ("1500.00", "3000.00")
    assert Operation.objects.filter(wallet_id__in=[one, other]).count() == 5 * (300 + 600 + 300)
    Books((one, other)).verify()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_signal_ends_it_after_its_batch(api: Api, number: signal.Signals) -> None:
    wallet_id = api.open()
    with processing() as process:
        accepted = deposit_later(api, wallet_id, 1)
        wait_until(lambda: operation(api, accepted)["status"] == "COMPLETED", "nothing is carried out")
        process.send_signal(number)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (0, "", "")


def test_until_empty_ends_by_itself_and_says_what_it_did(api: Api) -> None:
    drain_all()
    wallet_id = api.open()
    later(api, "/operations", {"operations": deposits(wallet_id, [1] * 7)})
    output = StringIO()
    call_command("process_inbox", "--until-empty", "--batch", "3", stdout=output)
    assert output.getvalue() == "7 operations carried out\n"
    assert api.balance(wallet_id) == "7.00"


@pytest.mark.slow
def test_a_lost_connection_is_made_again(api: Api) -> None:
    wallet_id = api.open()
    drain_all()
    before = backends()
    with processing() as process:
        wait_until(lambda: backends() > before, "it does not connect")
        with psycopg.connect(cluster.url("postgres")) as database:
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [[*backends() - before]]
            )
        accepted = deposit_later(api, wallet_id, 1)
        wait_until(lambda: operation(api, accepted)["status"] == "COMPLETED", "it does not come back")
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert errors.count("the database is away") == errors.count("the database is back") == 1
    assert "Traceback" not in errors


def backends() -> set[int]:
    with psycopg.connect(cluster.url("postgres")) as database:
        found = database.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'walletsvc'")
        return {pid for (pid,) in found.fetchall()}


# --- To be seen -------------------------------------------------------------------------------------
def test_how_much_waits_and_for_how_long_can_be_seen(api: Api) -> None:
    drain_all()
    assert waiting().entries == 0
    assert status() == "the inbox is empty\n"
    wallet_id = api.open()
    for _ in range(3):
        deposit_later(api, wallet_id, 1)
    with psycopg.connect(cluster.url("postgres")) as database:
        database.execute(
            "UPDATE inbox SET created_at = created_at - interval '1 hour' WHERE wallet_id = %s", [wallet_id]
        )
    oldest = waiting().oldest
    assert waiting().entries == 3
    assert oldest
    assert oldest.total_seconds() >= 3600
    assert status().startswith("3 operations wait, the oldest for 36")
    drain_all()


def status() -> str:
    output = StringIO()
    call_command("process_inbox", "--status", stdout=output)
    return output.getvalue()


def test_what_waits_twice_is_a_difference_that_verify_names(api: Api) -> None:
    from wallets.ledger.verify import verify

    wallet_id = api.open()
    operation_id = api.deposit(wallet_id, 1).json["id"]
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
        database.execute(
            "INSERT INTO inbox (id, wallet_id, type, amount, created_at)"
            " VALUES (%s, %s, 'DEPOSIT', 1, now())",
            [operation_id, wallet_id],
        )
        found = [difference.what for difference in verify([UUID(wallet_id)])]
        database.execute("DELETE FROM inbox WHERE id = %s", [operation_id])
    assert found == [f"operation {operation_id} is in the ledger, and in the inbox still"]

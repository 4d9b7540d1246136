"""The inbox: accepted operations are durable, carried out once, and in the order of each wallet."""

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
TIMEOUT_SECONDS = 60.0


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


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def left(*wallet_ids: str) -> int:
    return InboxEntry.objects.filter(wallet_id__in=wallet_ids).count()


def operation(api: Api, accepted: Answer) -> Any:
    return api.operation(accepted.json["id"])


# --- Accepted, maybe_drain decided ------------------------------------------------------------------
@contextmanager
def no_money_moved(*wallet_ids: str) -> Iterator[None]:
    before = Books(wallet_ids).money()
    yield
    assert Books(wallet_ids).money() == before


def test_accepted_operation_is_durable_and_moves_no_money(api: Api) -> None:
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
            "reference": "",
            "description": "x",
            "metadata": {"a": 1},
            "createdAt": "",
        }
        assert api.operation(operation_id) == accepted.json
    with psycopg.connect(cluster.url()) as another:
        assert another.execute("SELECT count(*) FROM inbox WHERE id = %s", [operation_id]).fetchone() == (1,)


def test_carried_out_operation_is_completed_in_the_history(api: Api) -> None:
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


def test_operation_refused_by_a_rule_is_rejected(api: Api) -> None:
    wallet_id = api.open(deposit="1")
    accepted = withdraw_later(api, wallet_id, "1.01")
    drain_all()
    refused = operation(api, accepted)
    assert (refused["status"], refused["reason"]) == ("REJECTED", "insufficient_funds")
    assert (refused["sequence"], refused["balance"]) == (None, None)
    assert api.balance(wallet_id) == "1.00"
    Books((wallet_id,)).verify()


def test_rules_apply_when_the_operation_is_carried_out(api: Api) -> None:
    wallet_id = api.open()
    withdrawal = withdraw_later(api, wallet_id, 5)
    assert withdrawal.status == 202
    deposit = deposit_later(api, wallet_id, 5)
    again = withdraw_later(api, wallet_id, 5)
    drain_all()
    found = [operation(api, accepted)["status"] for accepted in (withdrawal, deposit, again)]
    assert found == ["REJECTED", "COMPLETED", "COMPLETED"]


def test_accepted_transfer_is_pending_then_completed(api: Api) -> None:
    source, target = api.open(deposit="10"), api.open()
    accepted = later(api, "/transfers", transfer(source, target, "4"))
    transfer_id = accepted.json["id"]
    assert (accepted.status, accepted.json["status"], accepted.json["target"]) == (202, "PENDING", None)
    assert accepted.headers["location"] == f"/api/v1/operations/{transfer_id}"
    assert api.get(f"/transfers/{transfer_id}").json == accepted.json
    assert api.operation(transfer_id) == accepted.json["source"]
    drain_all()
    done = api.get(f"/transfers/{transfer_id}").json
    assert (done["status"], done["source"]["balance"], done["target"]["balance"]) == (
        "COMPLETED",
        "6.00",
        "4.00",
    )
    Books((source, target)).verify()


def test_refused_transfer_is_rejected_with_its_reason(api: Api) -> None:
    source, target = api.open(), api.open()
    accepted = later(api, "/transfers", transfer(source, target, "4"))
    drain_all()
    done = api.get(f"/transfers/{accepted.json['id']}").json
    assert (done["status"], done["reason"], done["target"]) == ("REJECTED", "insufficient_funds", None)
    Books((source, target)).verify()


@pytest.mark.parametrize(("body", "taken"), [({"amount": "3"}, "3.00"), ({}, "10.00")])
def test_capture_may_be_accepted_asynchronously(api: Api, body: dict[str, str], taken: str) -> None:
    wallet_id = api.open(deposit="10")
    hold_id = api.post(f"/wallets/{wallet_id}/holds", {"amount": 10}).json["id"]
    accepted = later(api, f"/holds/{hold_id}/capture", body)
    assert (accepted.status, accepted.json["operationType"], accepted.json["amount"]) == (
        202,
        "CAPTURE",
        taken,
    )
    assert api.held(hold_id)["status"] == "ACTIVE"
    drain_all()
    hold = api.held(hold_id)
    assert (hold["status"], hold["capturedAmount"], hold["operationId"]) == (
        "CAPTURED",
        taken,
        accepted.json["id"],
    )
    assert Decimal(api.balance(wallet_id)) == 10 - Decimal(taken)
    Books((wallet_id,)).verify()


def test_first_of_two_accepted_captures_succeeds(api: Api) -> None:
    wallet_id = api.open(deposit="10")
    hold_id = api.post(f"/wallets/{wallet_id}/holds", {"amount": 10}).json["id"]
    accepted = [later(api, f"/holds/{hold_id}/capture", {"amount": amount}) for amount in (3, 10)]
    drain_all()
    assert [operation(api, one)["reason"] for one in accepted] == [None, "hold_not_active"]
    assert Hold.objects.get(id=hold_id).captured_amount == 3
    Books((wallet_id,)).verify()


@pytest.mark.parametrize(("body", "left_over"), [({"amount": "3"}, "7.00"), ({}, "0.00")])
def test_reversal_may_be_accepted_asynchronously(api: Api, body: dict[str, str], left_over: str) -> None:
    wallet_id = api.open()
    deposit = api.deposit(wallet_id, "10").json["id"]
    accepted = later(api, f"/operations/{deposit}/reversal", body)
    assert (accepted.status, accepted.json["operationType"]) == (202, "REVERSAL_OUT")
    drain_all()
    done = operation(api, accepted)
    assert (done["status"], done["balance"], done["reversesId"]) == ("COMPLETED", left_over, deposit)
    Books((wallet_id,)).verify()


def test_accepted_reversal_of_a_transfer_reverses_both_sides(api: Api) -> None:
    source, target = api.open(deposit="10"), api.open()
    done = api.post("/transfers", transfer(source, target, "4")).json
    accepted = later(api, f"/operations/{done['id']}/reversal", {})
    drain_all()
    assert operation(api, accepted)["status"] == "COMPLETED"
    assert (api.balance(source), api.balance(target)) == ("10.00", "0.00")
    Books((source, target)).verify()


def test_accepted_reversals_never_exceed_the_original(api: Api) -> None:
    wallet_id = api.open()
    deposit = api.deposit(wallet_id, "10").json["id"]
    accepted = [later(api, f"/operations/{deposit}/reversal", {"amount": 6}) for _ in range(2)]
    drain_all()
    assert [operation(api, one)["reason"] for one in accepted] == [None, "reversal_exceeds_original"]
    assert api.balance(wallet_id) == "4.00"


def test_bulk_is_accepted_item_by_item(api: Api) -> None:
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


def test_atomic_bulk_is_accepted_as_a_whole_or_refused(api: Api) -> None:
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
def test_prefer_header_is_parsed_as_http_defines(api: Api, prefer: str, status: int) -> None:
    wallet_id = api.open()
    body = {"operationType": "DEPOSIT", "amount": 1}
    assert api.post(f"/wallets/{wallet_id}/operation", body, Prefer=prefer).status == status
    drain_all()
    assert api.balance(wallet_id) == "1.00"


def test_impossible_operation_is_refused_at_once(api: Api, unchanged: Unchanged) -> None:
    wallet_id, unknown_id = api.open(), str(uuid4())
    with unchanged(wallet_id):
        assert deposit_later(api, wallet_id, "0.001").code == "validation_error"
        assert deposit_later(api, wallet_id, "-1").code == "validation_error"
        assert deposit_later(api, unknown_id, 1).code == "wallet_not_found"
        assert later(api, "/transfers", transfer(wallet_id, unknown_id, 1)).code == "wallet_not_found"
        assert later(api, f"/operations/{unknown_id}/reversal", {}).code == "operation_not_found"
        assert later(api, f"/holds/{unknown_id}/capture", {}).code == "hold_not_found"
    assert left(wallet_id, unknown_id) == 0


# --- Keys -------------------------------------------------------------------------------------------
@pytest.fixture(params=["before the drain", "after the drain"])
def maybe_drain(request: pytest.FixtureRequest) -> Callable[[], None]:
    return drain_all if request.param == "after the drain" else lambda: None


def test_replay_gets_the_first_response(api: Api, maybe_drain: Callable[[], None]) -> None:
    wallet_id = api.open()
    first = deposit_later(api, wallet_id, "10", key="k")
    maybe_drain()
    # The replay gets the first response even if it prefers the other kind.
    for again in (deposit_later(api, wallet_id, 10, key="k"), api.deposit(wallet_id, "10.0", key="k")):
        assert (again.status, again.json) == (202, first.json)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
    drain_all()
    assert (api.balance(wallet_id), len(api.history(wallet_id))) == ("10.00", 1)


def test_replay_of_a_rejected_operation_is_still_accepted(api: Api, maybe_drain: Callable[[], None]) -> None:
    wallet_id = api.open()
    first = withdraw_later(api, wallet_id, "10", key="k")
    maybe_drain()
    for again in (withdraw_later(api, wallet_id, 10, key="k"), api.withdraw(wallet_id, "10.0", key="k")):
        assert (again.status, again.json) == (202, first.json)
    drain_all()
    assert len(api.history(wallet_id)) == 1


def test_asynchronous_replay_of_a_synchronous_request_gets_its_response(
    api: Api, unchanged: Unchanged
) -> None:
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


def test_key_of_an_accepted_operation_is_taken(
    api: Api, unchanged: Unchanged, maybe_drain: Callable[[], None]
) -> None:
    wallet_id = api.open()
    deposit_later(api, wallet_id, 10, key="k")
    maybe_drain()
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


def test_id_of_an_accepted_operation_is_taken_on_every_wallet(
    api: Api, unchanged: Unchanged, maybe_drain: Callable[[], None]
) -> None:
    wallet_id, other, chosen = api.open(), api.open(), str(uuid4())
    first = deposit_later(api, wallet_id, 10, id=chosen)
    assert first.json["id"] == chosen
    maybe_drain()
    with unchanged(wallet_id, other):
        assert api.deposit(wallet_id, 10, id=chosen).json == first.json
        assert api.deposit(other, 10, id=chosen).code == "idempotency_key_reused"
        assert deposit_later(api, other, 10, id=chosen).code == "idempotency_key_reused"
    drain_all()
    assert (api.balance(wallet_id), api.balance(other)) == ("10.00", "0.00")


@pytest.mark.parametrize("body", [{}, {"amount": 10}])
def test_accepted_capture_and_reversal_are_replayed(
    api: Api, maybe_drain: Callable[[], None], body: dict[str, int]
) -> None:
    wallet_id = api.open()
    deposit = api.deposit(wallet_id, 20).json["id"]
    hold_id = api.post(f"/wallets/{wallet_id}/holds", {"amount": 10}).json["id"]
    paths = f"/holds/{hold_id}/capture", f"/operations/{deposit}/reversal"
    firsts = [later(api, path, body, key=path[:5]) for path in paths]
    maybe_drain()
    for path, first in zip(paths, firsts, strict=True):
        again = api.post(path, body, Idempotency_Key=path[:5])
        assert (again.status, again.json) == (202, first.json)
        assert api.post(path, {"amount": 4}, Idempotency_Key=path[:5]).code == "idempotency_key_reused"
    drain_all()
    Books((wallet_id,)).verify()


def test_key_sent_100_times_synchronously_and_asynchronously_counts_once(service: str, live_api: Api) -> None:
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


# --- Order of the entries ---------------------------------------------------------------------------
def accept_at_random(api: Api, wallet_ids: Sequence[str], times: int, seed: int) -> dict[str, list[str]]:
    """Let random operations be accepted. Return by wallet the ids of its operations in their order."""
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
        # A refused transfer is in the history of its source only.
        refused = set(
            Operation.objects.filter(id__in=accepted, status="REJECTED").exclude(wallet_id=wallet_id)
        )
        not_here = {str(operation.id) for operation in refused}
        assert found == [id for id in accepted if id not in not_here]
    Books(tuple(expected)).verify()


def _drain_in_a_thread(wallet_ids: Sequence[str], max_entries: int, at_least: float = 0) -> int:
    own, done, until = Drain(), 0, time.monotonic() + at_least
    with closing(connection):
        while left(*wallet_ids) or time.monotonic() < until:
            done += (now := own.run(max_entries))
            if not now:
                time.sleep(0.01)
    return done


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_concurrent_drains_keep_the_order_of_every_wallet(api: Api, seed: int) -> None:
    drain_all()
    wallet_ids = [api.open() for _ in range(8)]
    expected = accept_at_random(api, wallet_ids, 400, seed)
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda max_entries: _drain_in_a_thread(wallet_ids, max_entries), [5, 20, 60]))
    assert sum(done) == 400
    assert_carried_out_in_order(expected)


@pytest.mark.slow
def test_concurrent_processes_keep_the_order_of_every_wallet(api: Api) -> None:
    wallet_ids = [api.open() for _ in range(20)]
    expected = accept_at_random(api, wallet_ids, 1000, seed=1)
    with (
        processing("--until-empty", "--batch", "10") as one,
        processing("--until-empty", "--batch", "30") as two,
    ):
        assert [one.wait(TIMEOUT_SECONDS), two.wait(TIMEOUT_SECONDS)] == [0, 0]
    assert_carried_out_in_order(expected)


def test_synchronous_operations_run_during_a_drain(service: str, live_api: Api) -> None:
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
        statuses = sum(pool.map(send, range(8)), Counter[int]())
        draining.result()
    drain_all()
    assert set(statuses) <= {201, 202, 409}
    done = Operation.objects.filter(wallet_id__in=wallet_ids).values_list("status", flat=True)
    assert Counter(done) == {"COMPLETED": statuses[201] + statuses[202], "REJECTED": statuses[409]}
    Books(tuple(wallet_ids)).verify()


# --- Locked wallets and failing entries -------------------------------------------------------------
@contextmanager
def locked(wallet_id: str) -> Iterator[psycopg.Connection]:
    """Lock the wallet in another transaction."""
    with psycopg.connect(cluster.url("postgres")) as other:
        other.execute("SELECT FROM wallet WHERE id = %s FOR UPDATE", [wallet_id])
        yield other


def test_locked_wallet_delays_only_its_own_entries(api: Api) -> None:
    drain_all()
    busy, free = api.open(deposit="5"), api.open(deposit="5")
    own = Drain()
    with locked(busy):
        for _ in range(12):
            deposit_later(api, free, 1)
        assert own.run(6) == 6
    # Accepting an operation needs the wallet's lock too, so these requests come before the lock.
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
    """Return a wallet and an inbox entry of it that cannot be carried out."""
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


def test_failing_entry_delays_only_its_own_wallet(
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
    # Each batch is smaller than the number of delayed entries: these must not hide the others.
    assert sum(own.run(4) for _ in range(4)) == 1
    assert f"inbox entry {entry_id} failed" in caplog.text
    assert (api.balance(other), api.balance(stuck), api.balance(target)) == ("1.00", "0.00", "5.00")
    assert (left(stuck), left(target)) == (10, 2)
    InboxEntry.objects.filter(id=entry_id).delete()
    drain_all()
    assert (api.balance(stuck), api.balance(target)) == (
        "14.00",
        "0.00",
    )  # the transfer came first and took the money of the withdrawal
    Books((stuck, target, other)).verify()


def test_delays_of_two_wallets_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    drain_all()
    one, other = api.open(deposit="5"), api.open(deposit="5")
    first = later(api, "/transfers", transfer(one, other, 1)).json["source"]["id"]
    deposit_later(api, one, 1)
    deposit_later(api, other, 1)
    own, now = Drain(), 1000.0
    monkeypatch.setattr("wallets.ledger.inbox.time.monotonic", lambda: now)
    with psycopg.connect(cluster.url("postgres")) as elsewhere:
        elsewhere.execute("SELECT FROM inbox WHERE id = %s FOR UPDATE", [first])
        assert own.run(1) == 0  # finds the deposit to `one` behind the transfer
        now += SKIP_SECONDS / 2
        assert own.run(1) == 0  # skips `one`, so it finds the deposit to `other`
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
def test_killed_drain_loses_and_repeats_no_operation(api: Api) -> None:
    drain_all()
    wallet_id = api.open()
    later(api, "/operations", {"operations": deposits(wallet_id, [1] * 20)})
    with locked(wallet_id) as other, processing() as killed:
        wait_until(
            lambda: blocks_another_transaction(other), "the process does not wait for the wallet's lock"
        )
        killed.kill()
        killed.wait()
    wait_until(lambda: drain(500) == 20, "the entries of the killed process stay locked")
    assert (api.balance(wallet_id), left(wallet_id)) == ("20.00", 0)
    Books((wallet_id,)).verify()


def blocks_another_transaction(holder: psycopg.Connection) -> bool:
    pid = holder.info.backend_pid
    with psycopg.connect(cluster.url("postgres")) as database:
        query = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        return database.execute(query, [pid]).fetchone() != (0,)


@pytest.mark.slow
def test_repeatedly_killed_drains_lose_and_repeat_no_operation(api: Api) -> None:
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
            wait_until(lambda before=before: left(one, other) < before, "no operation is carried out")  # type: ignore[misc]
            killed.kill()
            killed.wait()
        Books((one, other)).verify()
    assert left(one, other) > 0, "the processes were killed too late"
    call_command("process_inbox", "--until-empty", stdout=StringIO())
    assert left(one, other) == 0
    assert (api.balance(one), api.balance(other)) == ("1500.00", "3000.00")
    assert Operation.objects.filter(wallet_id__in=[one, other]).count() == 5 * (300 + 600 + 300)
    Books((one, other)).verify()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_signal_ends_the_command_after_its_batch(api: Api, number: signal.Signals) -> None:
    wallet_id = api.open()
    with processing() as process:
        accepted = deposit_later(api, wallet_id, 1)
        wait_until(lambda: operation(api, accepted)["status"] == "COMPLETED", "no operation is carried out")
        process.send_signal(number)
        output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (process.returncode, output, errors) == (0, "", "")


def test_until_empty_ends_and_reports_the_count(api: Api) -> None:
    drain_all()
    wallet_id = api.open()
    later(api, "/operations", {"operations": deposits(wallet_id, [1] * 7)})
    output = StringIO()
    call_command("process_inbox", "--until-empty", "--batch", "3", stdout=output)
    assert output.getvalue() == "7 operations carried out\n"
    assert api.balance(wallet_id) == "7.00"


@pytest.mark.slow
def test_command_reconnects_after_a_lost_connection(api: Api) -> None:
    wallet_id = api.open()
    drain_all()
    before = backends()
    with processing() as process:
        wait_until(lambda: backends() > before, "the command does not connect")
        with psycopg.connect(cluster.url("postgres")) as database:
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [[*backends() - before]]
            )
        accepted = deposit_later(api, wallet_id, 1)
        wait_until(
            lambda: operation(api, accepted)["status"] == "COMPLETED", "the command does not reconnect"
        )
        process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0
    assert errors.count("database unavailable") == errors.count("database available again") == 1
    assert "Traceback" not in errors


def backends() -> set[int]:
    with psycopg.connect(cluster.url("postgres")) as database:
        found = database.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'walletsvc'")
        return {pid for (pid,) in found.fetchall()}


# --- Status -----------------------------------------------------------------------------------------
def test_status_shows_the_count_and_the_oldest_entry(api: Api) -> None:
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


def test_verify_names_an_operation_in_ledger_and_inbox(api: Api) -> None:
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

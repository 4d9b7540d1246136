"""Idempotency keys of restricted callers have their own namespace, separate from the keys of others."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import LazySettings
from django.db import DEFAULT_DB_ALIAS

from tests.conftest import Books, Unchanged
from tests.support.client import Answer, Api
from tests.support.keys import new_key, session_of
from tests.support.people import Person, bank, new_account, new_wallet
from wallets.access.rights import ADMIN
from wallets.events.cloudevents import events_of
from wallets.ledger import submit_all
from wallets.ledger.commands import Command, MakeTransfer
from wallets.ledger.execute import execute
from wallets.ledger.inbox import drain
from wallets.ledger.tables import Tables
from wallets.models import Operation, User
from wallets.problems import Problem

pytestmark = pytest.mark.usefixtures("quick_hashing")

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture(autouse=True)
def _require_credentials(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"


@pytest.fixture
def anna() -> Person:
    return new_account("100")


@pytest.fixture
def boris() -> Person:
    return new_account()


def restricted(user: User) -> Api:
    return Api(key=new_key(ADMIN, owner=user, is_restricted=True))


def drain_all() -> None:
    while drain(500):
        pass


CALLERS: dict[str, Callable[[User], Api]] = {"a session": session_of, "a restricted key": restricted}


@pytest.fixture(params=CALLERS)
def owner(request: pytest.FixtureRequest, anna: Person) -> Api:
    """Anna's API client, restricted to her wallets."""
    return CALLERS[request.param](anna.user)


# --- Two namespaces ---------------------------------------------------------------------------------
@pytest.mark.parametrize("amount", ["1", "1000"], ids=["carried out", "refused"])
def test_owner_does_not_occupy_the_banks_key(
    anna: Person, boris: Person, owner: Api, unchanged: Unchanged, amount: str
) -> None:
    own = owner.transfer(anna.wallet_id, boris.wallet_id, amount, key="k")
    deposited = bank().deposit(anna.wallet_id, "5", key="k")
    assert deposited.status == 201
    assert "idempotent-replayed" not in deposited.headers
    with unchanged(anna.wallet_id, boris.wallet_id):
        own_again = owner.transfer(anna.wallet_id, boris.wallet_id, amount, key="k")
        assert (own_again.status, own_again.headers["idempotent-replayed"]) == (own.status, "true")
        again = bank().deposit(anna.wallet_id, "5", key="k")
        assert (again.json, again.headers["idempotent-replayed"]) == (deposited.json, "true")
        assert bank().withdraw(anna.wallet_id, "5", key="k").code == "idempotency_key_reused"
    Books((anna.wallet_id, boris.wallet_id)).verify()


def test_bank_does_not_occupy_an_owners_key(anna: Person, boris: Person, owner: Api) -> None:
    assert bank().transfer(anna.wallet_id, boris.wallet_id, "1000", key="k").code == "insufficient_funds"
    done = owner.transfer(anna.wallet_id, boris.wallet_id, "1000", key="k")
    assert done.code == "insufficient_funds"
    assert "idempotent-replayed" not in done.headers
    assert owner.transfer(anna.wallet_id, boris.wallet_id, "1", key="free").status == 201
    assert bank().transfer(anna.wallet_id, boris.wallet_id, "1", key="free").status == 201
    assert bank().balance(anna.wallet_id) == "98.00"


def test_callers_of_one_owner_share_their_keys(anna: Person, boris: Person, unchanged: Unchanged) -> None:
    first = restricted(anna.user).transfer(anna.wallet_id, boris.wallet_id, "1", key="k")
    with unchanged(anna.wallet_id, boris.wallet_id):
        for caller in (restricted(anna.user), session_of(anna.user)):
            assert caller.transfer(anna.wallet_id, boris.wallet_id, "1", key="k").json == first.json
            other = caller.transfer(anna.wallet_id, boris.wallet_id, "2", key="k")
            assert other.code == "idempotency_key_reused"


def test_unrestricted_callers_share_their_keys(anna: Person, unchanged: Unchanged) -> None:
    first = bank().deposit(anna.wallet_id, "1", key="k")
    with unchanged(anna.wallet_id):
        assert bank().deposit(anna.wallet_id, "1", key="k").json == first.json


@pytest.mark.parametrize("atomic", [False, True])
def test_bulk_uses_its_callers_namespace(
    anna: Person, boris: Person, owner: Api, unchanged: Unchanged, atomic: bool
) -> None:
    items: list[dict[str, Any]] = [
        {"sourceWalletId": anna.wallet_id, "targetWalletId": boris.wallet_id, "amount": "1"},
        {"sourceWalletId": anna.wallet_id, "targetWalletId": boris.wallet_id, "amount": "2"},
    ]
    items[1]["idempotencyKey"] = "second"
    key = str(uuid4())  # a bulk's key belongs to no wallet: all tests share the bank's keys
    own = owner.bulk(*items, atomic=atomic, key=key)
    of_bank = bank().bulk(*items, atomic=atomic, key=key)
    assert bank().balance(boris.wallet_id) == "6.00"
    shown = [result["transfer"]["source"]["idempotencyKey"] for result in own.json["results"]]
    assert shown == [f"{key}/0", "second"]
    with unchanged(anna.wallet_id, boris.wallet_id):
        for caller, first in ((owner, own), (bank(), of_bank)):
            again = caller.bulk(*items, atomic=atomic, key=key)
            assert again.headers["idempotent-replayed"] == "true"
            assert ids_in(again) == ids_in(first)
    assert set(ids_in(own)).isdisjoint(ids_in(of_bank))


def ids_in(bulk: Answer) -> list[str]:
    return [result["transfer"]["id"] for result in bulk.json["results"]]


def test_accepted_transfer_keeps_its_callers_namespace(anna: Person, boris: Person, owner: Api) -> None:
    def send(caller: Api) -> Answer:
        body = {"sourceWalletId": anna.wallet_id, "targetWalletId": boris.wallet_id, "amount": "1"}
        return caller.post("/transfers", body, Idempotency_Key="k", **ASYNC)

    callers = (owner, bank())
    accepted = [send(caller) for caller in callers]
    assert [answer.status for answer in accepted] == [202, 202]
    assert [send(caller).json for caller in callers] == [answer.json for answer in accepted]
    drain_all()
    assert [send(caller).json for caller in callers] == [answer.json for answer in accepted]
    assert bank().balance(boris.wallet_id) == "2.00"
    assert owner.get(f"/operations/{accepted[0].json['id']}").json["idempotencyKey"] == "k"
    Books((anna.wallet_id, boris.wallet_id)).verify()


def test_one_batch_keeps_the_namespaces_apart(anna: Person, boris: Person) -> None:
    def transfer(amount: int, actor: str, key: str, owner_restriction: int | None) -> Command:
        source, target = UUID(anna.wallet_id), UUID(boris.wallet_id)
        return MakeTransfer(
            wallet_id=source,
            target_id=target,
            amount=Decimal(amount),
            actor=actor,
            key=key,
            owner_restriction=owner_restriction,
        )

    user_id = anna.user.pk
    own, own_again = (transfer(1, f"user:{user_id}", f"owner:{user_id} k", user_id) for _ in range(2))
    of_bank, of_bank_again = (transfer(2, "key:bank", "k", None) for _ in range(2))
    outcomes: list[Any] = execute([own, of_bank, own_again, of_bank_again])
    assert [outcome.replayed for outcome in outcomes] == [False, False, True, True]
    assert [outcome.operation.id for outcome in outcomes] == [own.id, of_bank.id] * 2
    assert bank().balance(boris.wallet_id) == "3.00"


def test_longest_key_fits_behind_its_namespace(anna: Person, boris: Person, owner: Api) -> None:
    key = "~" * 255
    done = owner.transfer(anna.wallet_id, boris.wallet_id, "1", key=key)
    assert (done.status, done.json["source"]["idempotencyKey"]) == (201, key)


def test_target_address_is_not_looked_up_under_the_banks_key(anna: Person, boris: Person, owner: Api) -> None:
    savings = new_wallet(anna.user)
    assert bank().transfer(anna.wallet_id, savings, "1", key="k").status == 201
    body = {"sourceWalletId": anna.wallet_id, "targetEmail": boris.user.email, "amount": "1"}
    sent = owner.post("/transfers", body, Idempotency_Key="k")
    assert sent.json["target"]["walletId"] == boris.wallet_id


# --- Ids --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("amount", ["1", "1000"], ids=["carried out", "refused"])
def test_id_of_another_namespace_is_refused_without_details(
    anna: Person, boris: Person, owner: Api, unchanged: Unchanged, amount: str
) -> None:
    for first, second in ((owner, bank()), (bank(), owner)):
        transfer = {"sourceWalletId": anna.wallet_id, "targetWalletId": boris.wallet_id, "amount": amount}
        named = transfer | {"id": str(uuid4())}
        answer = first.post("/transfers", named)
        assert answer.status == (201 if amount == "1" else 409)
        with unchanged(anna.wallet_id, boris.wallet_id):
            refused = second.post("/transfers", named)
            assert refused.code == "idempotency_key_reused"
            assert not refused.json.keys() & {"operationId", "errors"}
            assert second.bulk(named).json["results"][0]["problem"]["code"] == "idempotency_key_reused"
            assert second.bulk(named, atomic=True).code == "idempotency_key_reused"
            again = first.post("/transfers", named)
            assert (again.status, again.headers["idempotent-replayed"]) == (answer.status, "true")


def test_id_of_a_keyless_operation_belongs_to_its_caller(anna: Person, unchanged: Unchanged) -> None:
    one, other = restricted(anna.user), restricted(anna.user)
    made = one.deposit(anna.wallet_id, "1").json
    with unchanged(anna.wallet_id):
        for caller in (other, bank()):
            assert caller.deposit(anna.wallet_id, "1", id=made["id"]).code == "idempotency_key_reused"
        assert one.deposit(anna.wallet_id, "1", id=made["id"]).json == made


def test_wallet_id_belongs_to_one_namespace(anna: Person, unchanged: Unchanged) -> None:
    for first, second in ((restricted(anna.user), bank()), (bank(), restricted(anna.user))):
        chosen = {"id": str(uuid4()), "label": "secret"}
        opened = first.post("/wallets", chosen)
        with unchanged(chosen["id"]):
            refused = second.post("/wallets", chosen)
            assert refused.code == "idempotency_key_reused"
            assert "secret" not in refused.content.decode()
            assert first.post("/wallets", chosen).json == opened.json


# --- Bare keys, stored before keys had namespaces ---------------------------------------------------
def recorded(anna: Person, boris: Person, amount: str, actor: str = "", **fields: Any) -> UUID:
    """Record a transfer of a restricted caller as versions before 0.7 did: under the bare key."""
    command = MakeTransfer(
        wallet_id=UUID(anna.wallet_id),
        target_id=UUID(boris.wallet_id),
        amount=Decimal(amount),
        key="k",
        actor=actor or f"user:{anna.user.pk}",
        owner_restriction=anna.user.pk,
        **fields,
    )
    outcome: Any = submit_all([command])[0]
    operation_id = outcome.operation_id if isinstance(outcome, Problem) else outcome.operation.id
    assert operation_id
    return operation_id


@pytest.mark.parametrize("amount", ["1", "1000"], ids=["carried out", "refused"])
def test_retry_of_a_bare_key_is_a_replay(
    anna: Person, boris: Person, unchanged: Unchanged, amount: str
) -> None:
    first = str(recorded(anna, boris, amount))
    caller = session_of(anna.user)
    item = {"sourceWalletId": anna.wallet_id, "targetWalletId": boris.wallet_id, "amount": amount}
    by_address = {"sourceWalletId": anna.wallet_id, "targetEmail": boris.user.email, "amount": amount}
    with unchanged(anna.wallet_id, boris.wallet_id):
        for answer in (
            caller.transfer(anna.wallet_id, boris.wallet_id, amount, key="k"),
            caller.post("/transfers", by_address, Idempotency_Key="k"),
            caller.bulk(item | {"idempotencyKey": "k"}),
            caller.bulk(item | {"idempotencyKey": "k"}, atomic=True),
            caller.post("/transfers", item, Idempotency_Key="k", **ASYNC),
        ):
            assert first in answer.content.decode()
            assert b'"replayed":true' in answer.content or answer.headers["idempotent-replayed"] == "true"
        other = caller.transfer(anna.wallet_id, boris.wallet_id, "2", key="k")
        assert other.code == "idempotency_key_reused"


def test_retry_of_a_bare_key_in_the_inbox_is_a_replay(anna: Person, boris: Person) -> None:
    accepted = str(recorded(anna, boris, "1", is_async=True))
    caller = session_of(anna.user)
    for _ in range(2):
        again = caller.transfer(anna.wallet_id, boris.wallet_id, "1", key="k")
        assert (again.status, again.json["id"]) == (202, accepted)
        assert bank().transfer(anna.wallet_id, boris.wallet_id, "1", key="k").status == 422
        drain_all()
    assert bank().balance(boris.wallet_id) == "1.00"


def test_bare_key_of_another_caller_leaves_the_owners_free(anna: Person, boris: Person) -> None:
    first = recorded(anna, boris, "1", actor="key:bank")
    done = session_of(anna.user).transfer(anna.wallet_id, boris.wallet_id, "1", key="k")
    assert (done.status, done.json["id"] == str(first)) == (201, False)
    assert "idempotent-replayed" not in done.headers


def test_bare_key_of_an_owner_is_refused_to_the_bank(
    anna: Person, boris: Person, unchanged: Unchanged
) -> None:
    recorded(anna, boris, "1000")
    with unchanged(anna.wallet_id, boris.wallet_id):
        refused = bank().transfer(anna.wallet_id, boris.wallet_id, "1000", key="k")
    assert refused.code == "idempotency_key_reused"
    assert "operationId" not in refused.json


# --- Responses and events ---------------------------------------------------------------------------
def test_all_callers_see_the_key_without_its_namespace(anna: Person, boris: Person, owner: Api) -> None:
    done = owner.transfer(anna.wallet_id, boris.wallet_id, "1", key="order-7").json["source"]
    assert Operation.objects.get(id=done["id"]).idempotency_key == f"owner:{anna.user.pk} order-7"
    for caller in (owner, bank()):
        wallet = f"/wallets/{anna.wallet_id}"
        shown = [
            done,
            caller.get(f"/operations/{done['id']}").json,
            caller.get(f"/transfers/{done['id']}").json["source"],
            caller.history(anna.wallet_id)[0],
            caller.get(f"{wallet}/statement").json["entries"][-1],
        ]
        assert {operation["idempotencyKey"] for operation in shown} == {"order-7"}
        assert ",order-7,,\r\n" in caller.get(f"{wallet}/statement", Accept="text/csv").content.decode()
    found = Tables(DEFAULT_DB_ALIAS).operation(UUID(done["id"]))
    assert found
    completed = json.loads(events_of([found[0]])[0].content)
    assert completed["data"]["idempotencyKey"] == "order-7"

"""One idempotency key covers a whole request: a bulk, or the creation of a wallet, webhook or secret."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.utils import timezone
from pydantic import BaseModel

from tests.conftest import Books, Unchanged
from tests.support.client import Answer, Api
from tests.support.keys import new_key, new_owner
from wallets import ledger
from wallets.access.rights import ADMIN, WRITE
from wallets.contract.parsing import check, parse_object
from wallets.contract.request_schemas import BulkToPost, WalletToOpen, WebhookToRegister
from wallets.keyed_requests import digest_of
from wallets.models import KeyedRequest, Subscriber, Wallet

pytestmark = pytest.mark.usefixtures("no_subscribers")


def deposit(wallet_id: str, amount: Any = "1", **fields: Any) -> dict[str, Any]:
    return {"walletId": wallet_id, "operationType": "DEPOSIT", "amount": amount, **fields}


def transfer(source_id: str, target_id: str, amount: Any = "1") -> dict[str, Any]:
    return {"sourceWalletId": source_id, "targetWalletId": target_id, "amount": amount}


def new_key_name() -> str:
    return f"key-{uuid4()}"


def is_replay(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


def assert_reused(answer: Answer) -> None:
    assert (answer.status, answer.code) == (422, "idempotency_key_reused"), answer


# --- Bulks ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("change", ["more", "fewer", "order", "amount", "metadata", "key", "atomic"])
def test_different_bulk_with_the_key_is_refused(
    api: Api, unchanged: Unchanged, change: str, atomic: bool
) -> None:
    one, other, key = api.open(deposit="10"), api.open(), new_key_name()
    body = [deposit(one, "1"), transfer(one, other, "2")]
    changed = {
        "more": [*body, deposit(one, "5")],
        "fewer": body[:1],
        "order": body[::-1],
        "amount": [deposit(one, "1.01"), body[1]],
        "metadata": [deposit(one, "1", metadata={"a": True}), body[1]],
        "key": [deposit(one, "1", idempotencyKey="own"), body[1]],
        "atomic": body,
    }[change]
    assert api.bulk(*body, key=key, atomic=atomic).status == 200
    with unchanged(one, other):
        assert_reused(api.bulk(*changed, key=key, atomic=atomic != (change == "atomic")))
        assert is_replay(api.bulk(*body, key=key, atomic=atomic))


def test_replayed_bulk_may_be_spelled_differently(api: Api, unchanged: Unchanged) -> None:
    one, key = api.open(), new_key_name()
    first = api.bulk(deposit(one, "1.50", metadata={"a": 1, "b": 2}), key=key)
    with unchanged(one):
        again = api.bulk(deposit(one.upper(), 1.5, description="", metadata={"b": 2, "a": 1}), key=f'"{key}"')
        assert is_replay(again)
        assert again.json["results"][0]["operation"] == first.json["results"][0]["operation"]
        assert is_replay(api.bulk(deposit(one, "1.5000", metadata={"a": 1, "b": 2}), key=key))


# SHA-256 of requests as version 0.7.0 recorded them: a replay after an upgrade is still recognised.
RECORDED = {
    ("POST /operations", BulkToPost): (
        b'{"operations": [{"walletId": "01930a5d-0000-7000-8000-000000000001", "operationType": "DEPOSIT",'
        b' "amount": 1.50, "metadata": {"b": 2, "a": 1e-7}, "description": "x"},'
        b' {"sourceWalletId": "01930a5d-0000-7000-8000-000000000001",'
        b' "targetWalletId": "01930a5d-0000-7000-8000-000000000002", "amount": "5.00",'
        b' "idempotencyKey": "k"}], "atomic": true}',
        "be77d837873f7ac6ac68ec54eb1de97f7380e43e301a1ac5ab8fdc4771d362dd",  # pragma: allowlist secret
    ),
    ("POST /wallets", WalletToOpen): (
        b'{"currency": "EUR", "label": "e\xcc\x81", "overdraftLimit": "10.00", "maxBalance": null}',
        "0b8d1b2ff294527a3e6976f435e7437b1b7c3f4ec1ca0f58d5b6bee5cd5b05f1",  # pragma: allowlist secret
    ),
    ("POST /webhooks", WebhookToRegister): (
        b'{"name": "shop", "url": "https://example.com/e", "types": ["wallet.opened"], "batch": 5,'
        b' "from": "beginning"}',
        "69f505fdbe361edd747bb9774b1902a066fe9f00b0cabbf5c93f5fd96566e47b",  # pragma: allowlist secret
    ),
}


@pytest.mark.parametrize(("request_line", "schema"), RECORDED)
def test_digest_is_that_of_earlier_versions(request_line: str, schema: type[BaseModel]) -> None:
    content, digest = RECORDED[request_line, schema]
    assert digest_of(request_line, check(schema, parse_object(content))).hex() == digest


def test_invalid_bulk_leaves_the_key_free(api: Api) -> None:
    one, key = api.open(), new_key_name()
    with_both = deposit(one, id=str(uuid4()), idempotencyKey="a")
    for operations in ([deposit(one, "x")], [with_both], [deposit(one)] * 1001):
        assert api.bulk(*operations, key=key).code == "validation_error"
    restricted = Api(key=new_key("operations:withdraw"))
    assert restricted.bulk(deposit(one), key=key).code == "forbidden"
    assert api.bulk(deposit(one), key=key).status == 200


def test_bulk_continues_after_a_crash(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is recorded, the bulk is not carried out: the same bulk is carried out, another is refused."""
    one, key = api.open(), new_key_name()
    with monkeypatch.context() as crash:
        crash.setattr(ledger, "submit_all", _fail)
        assert api.bulk(deposit(one), key=key).status == 500
    assert_reused(api.bulk(deposit(one, "2"), key=key))
    answer = api.bulk(deposit(one), key=key)
    assert (answer.status, is_replay(answer), api.balance(one)) == (200, False, "1.00")


def _fail(*_: object) -> Any:
    raise RuntimeError("crashed")


def test_bulk_without_a_record_replays_by_its_items(api: Api, unchanged: Unchanged) -> None:
    one, key = api.open(), new_key_name()
    items = [deposit(one, "1", idempotencyKey=f"{key}/0"), deposit(one, "2", idempotencyKey=f"{key}/1")]
    assert api.bulk(*items).status == 200  # the rows that a bulk with the key leaves
    with unchanged(one):
        assert is_replay(api.bulk(deposit(one, "1"), deposit(one, "2"), key=key))


def test_bulk_may_be_replayed_with_another_preference(api: Api) -> None:
    one, key = api.open(), new_key_name()
    body = {"operations": [deposit(one)]}
    first = api.post("/operations", body, Idempotency_Key=key, Prefer="respond-async")
    again = api.post("/operations", body, Idempotency_Key=key)
    assert [answer.json["results"][0]["status"] for answer in (first, again)] == [202, 202]


def test_one_of_concurrent_bulks_with_a_key_is_carried_out(api: Api) -> None:
    one, key = api.open(), new_key_name()

    def send(amount: int) -> int:
        try:
            return Api().bulk(*[deposit(one, amount)] * 20, key=key).status
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(send, range(1, 7))) == [200] + [422] * 5
    balance = int(float(api.balance(one)))
    assert balance % 20 == 0
    assert balance // 20 in range(1, 7)
    Books((one,)).verify()


def test_bulk_without_a_key_leaves_no_record(api: Api) -> None:
    before = KeyedRequest.objects.count()
    assert api.bulk(deposit(api.open(), idempotencyKey="own")).status == 200
    assert KeyedRequest.objects.count() == before


# --- Wallets ----------------------------------------------------------------------------------------
def test_wallet_is_opened_once_for_a_key(api: Api) -> None:
    key, body = new_key_name(), {"label": "a", "overdraftLimit": "10", "metadata": {"n": 1}}
    first = api.post("/wallets", body, Idempotency_Key=key)
    assert (first.status, is_replay(first)) == (201, False)
    api.deposit(first.json["id"], 5)
    for address in ("/wallets", "/wallet/create"):
        again = api.post(address, body | {"overdraftLimit": 10.0}, Idempotency_Key=key)
        assert (again.status, again.json, is_replay(again)) == (201, first.json, True)
    assert again.headers["location"] == first.headers["location"]


@pytest.mark.parametrize("other", [{"label": "b"}, {"currency": "EUR"}, {"maxBalance": 5}])
def test_different_wallet_with_the_key_is_refused(api: Api, other: dict[str, Any]) -> None:
    key = new_key_name()
    api.post("/wallets", {"label": "a"}, Idempotency_Key=key)
    before = Wallet.objects.count()
    assert_reused(api.post("/wallets", {"label": "a"} | other, Idempotency_Key=key))
    assert Wallet.objects.count() == before


def test_wallet_with_id_and_key_is_refused(api: Api) -> None:
    body = {"id": str(uuid4())}
    answer = api.post("/wallets", body, Idempotency_Key=new_key_name())
    assert (answer.code, answer.json["errors"][0]["code"]) == ("validation_error", "conflict")
    assert api.get(f"/wallets/{body['id']}").status == 404


def test_invalid_wallet_leaves_the_key_free(api: Api) -> None:
    key = new_key_name()
    for body in ({"overdraftLimit": "0.001"}, {"currency": "HRK"}, {"label": 1}):
        assert api.post("/wallets", body, Idempotency_Key=key).code == "validation_error"
    assert api.post("/wallets", {}, Idempotency_Key=key).status == 201


def test_key_replays_no_wallet_of_another_owner(api: Api) -> None:
    key = new_key_name()
    mine = api.post("/wallets", {}, Idempotency_Key=key).json["id"]
    of_owners = []
    for _ in range(2):
        restricted = Api(key=new_key(WRITE, owner=new_owner(), is_restricted=True))
        opened = restricted.post("/wallets", {}, Idempotency_Key=key)
        assert (opened.status, is_replay(opened)) == (201, False)
        assert restricted.post("/wallets", {}, Idempotency_Key=key).json == opened.json
        of_owners.append(opened.json["id"])
    assert len({mine, *of_owners}) == 3


def test_concurrent_requests_with_a_key_open_one_wallet(api: Api) -> None:
    key = new_key_name()

    def send(_: int) -> tuple[int, str]:
        try:
            answer = Api().post("/wallets", {}, Idempotency_Key=key)
            return answer.status, answer.json["id"]
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        assert len({*pool.map(send, range(6))}) == 1


def test_key_covers_one_request_of_all_kinds(api: Api, unchanged: Unchanged) -> None:
    key = new_key_name()
    wallet_id = api.post("/wallets", {}, Idempotency_Key=key).json["id"]
    with unchanged(wallet_id):
        assert_reused(api.bulk(deposit(wallet_id), key=key))
        assert_reused(api.post("/webhooks", webhook(), Idempotency_Key=key))
    assert api.deposit(wallet_id, 1, key=key).status == 201  # a wallet has its own key space


# --- Webhooks ---------------------------------------------------------------------------------------
def webhook() -> dict[str, Any]:
    return {"name": f"shop {uuid4()}", "url": "https://example.com/events"}


def test_webhook_is_registered_once_for_a_key() -> None:
    api, key, body = Api(key=new_key(ADMIN)), new_key_name(), webhook()
    first = api.post("/webhooks", body, Idempotency_Key=key)
    again = api.post("/webhooks", body, Idempotency_Key=key)
    assert (again.status, again.json, is_replay(again)) == (201, first.json, True)
    assert_reused(api.post("/webhooks", webhook(), Idempotency_Key=key))
    answer = api.post("/webhooks", webhook() | {"id": str(uuid4())}, Idempotency_Key=new_key_name())
    assert answer.json["errors"][0]["code"] == "conflict"
    assert Subscriber.objects.count() == 1


def test_secret_is_rotated_once_for_a_key() -> None:
    api, key = Api(key=new_key(ADMIN)), new_key_name()
    path = f"/webhooks/{api.post('/webhooks', webhook()).json['id']}/rotation"
    first = api.post(path, {}, Idempotency_Key=key)
    again = api.post(path, {}, Idempotency_Key=key)
    assert (again.status, again.json, is_replay(again)) == (200, first.json, True)
    assert_reused(api.post(path, {"formerValidHours": 1}, Idempotency_Key=key))
    newest = api.post(path, {}, Idempotency_Key=new_key_name()).json["secret"]
    late = api.post(path, {}, Idempotency_Key=key)
    assert (late.json["secret"], is_replay(late)) == (None, True)
    assert Subscriber.objects.get().secret == newest


def test_replayed_rotation_has_no_secret_after_an_hour() -> None:
    api, key = Api(key=new_key(ADMIN)), new_key_name()
    webhook_id = api.post("/webhooks", webhook()).json["id"]
    api.post(f"/webhooks/{webhook_id}/rotation", {}, Idempotency_Key=key)
    Subscriber.objects.update(secret_at=timezone.now() - timedelta(hours=2))
    assert api.post(f"/webhooks/{webhook_id}/rotation", {}, Idempotency_Key=key).json["secret"] is None


def test_rotation_of_an_unknown_webhook_leaves_the_key_free() -> None:
    api, key = Api(key=new_key(ADMIN)), new_key_name()
    assert api.post(f"/webhooks/{uuid4()}/rotation", {}, Idempotency_Key=key).status == 404
    assert not KeyedRequest.objects.filter(key=key).exists()


def test_record_of_a_key_has_only_a_digest(api: Api) -> None:
    key = new_key_name()
    wallet_id = api.post("/wallets", {"label": "secret"}, Idempotency_Key=key).json["id"]
    recorded = KeyedRequest.objects.get(key=key)
    assert (recorded.id, recorded.domain, len(recorded.digest)) == (UUID(wallet_id), "", 32)

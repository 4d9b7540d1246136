"""The webhook endpoints: registration, changes, tests, removal, and forbidden URLs."""

import base64
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any, get_args
from uuid import uuid4

import psycopg
import pytest
from django.conf import LazySettings
from django.db import connection
from django.utils import timezone

from tests.support.client import UNKNOWN_ID, Answer, Api
from tests.support.cluster import cluster
from tests.support.events import wait_until
from tests.support.keys import new_key, prefix_of
from tests.support.receivers import answering, fail, receiver
from wallets.access.rights import ADMIN
from wallets.api.webhooks import with_standing
from wallets.contract import responses
from wallets.contract.fields import EventType
from wallets.contract.request_schemas import WebhookToRegister
from wallets.events import delivery_state, webhook_registry
from wallets.events.cloudevents import TYPES
from wallets.models import Delivery, ParkedEvent, Subscriber

URL = "https://example.com/events"

pytestmark = pytest.mark.usefixtures("no_subscribers")


@pytest.fixture
def api() -> Api:
    return Api(key=new_key(ADMIN))


def register(api: Api, **fields: Any) -> Answer:
    return api.post("/webhooks", {"name": f"shop {uuid4()}", "url": URL, **fields})


def registered(api: Api, **fields: Any) -> Any:
    answer = register(api, **fields)
    assert answer.status == 201, answer
    return answer.json


def change(api: Api, webhook: Any, **fields: Any) -> Answer:
    return api.patch(f"/webhooks/{webhook['id']}", fields)


def read(api: Api, webhook: Any) -> Any:
    return api.get(f"/webhooks/{webhook['id']}").json


def stored(webhook: Any) -> Subscriber:
    return Subscriber.objects.get(id=webhook["id"])


def park(webhook: Any, status: str = "DEAD", **fields: Any) -> ParkedEvent:
    """Create a row; by default, for the opening of a new wallet."""
    wallet = Api().open()
    given = {"event_id": f"{wallet}:opened", "type": "wallet.opened", "wallet_id": wallet, "status": status}
    return ParkedEvent.objects.create(subscriber_id=webhook["id"], **given | fields)


def record_delivery(webhook: Any, event_id: str) -> None:
    Delivery.objects.create(
        subscriber_id=webhook["id"],
        event_id=event_id,
        events=1,
        at=timezone.now(),
        duration=timedelta(seconds=0.25),
        status_code=503,
        error="answered 503",
        response="down",
    )


def wrong_field(answer: Answer) -> str:
    assert answer.code == "validation_error"
    (error,) = answer.json["errors"]
    return str(error["field"])


# --- Registration -----------------------------------------------------------------------------------
def test_registration_shows_the_secret_once(api: Api) -> None:
    types = ["wallet.balance.changed", "wallet.hold.placed"]
    answer = register(api, name="shop", types=types, batch=20)
    webhook = answer.json
    assert answer.status == 201
    assert answer.headers["location"] == f"/api/v1/webhooks/{webhook['id']}"
    responses.RegisteredWebhookBody.model_validate(webhook)
    assert len(base64.b64decode(webhook["secret"].removeprefix("whsec_"))) == 32
    found = api.get(f"/webhooks/{webhook['id']}")
    responses.WebhookBody.model_validate(found.json)
    assert found.json.items() >= {"name": "shop", "url": URL, "types": types, "batch": 20}.items()
    assert found.json.items() >= {"isEnabled": True, "lag": 0, "parked": 0, "dead": 0}.items()
    for other in (found, api.get("/webhooks"), change(api, webhook, batch=2)):
        assert webhook["secret"].encode() not in other.content
        assert b"secret" not in other.content.lower().replace(b"formersecretuntil", b"")


def test_registration_begins_now_or_at_the_beginning(api: Api) -> None:
    api.open()
    assert int(stored(registered(api)).begin_xid) > 0
    assert int(stored(registered(api, **{"from": "beginning"})).begin_xid) == 0


def test_contract_has_the_types_of_all_events() -> None:
    assert set(get_args(EventType.__value__)) == set(TYPES)


def test_repeated_registration_is_a_replay(api: Api) -> None:
    body = {"id": str(uuid4()), "name": "shop", "url": URL, "types": ["wallet.opened"]}
    first = api.post("/webhooks", body)
    change(api, first.json, name="other", url="https://example.com/elsewhere", types=[])
    again = api.post("/webhooks", body)
    assert (again.status, again.json, again.headers["idempotent-replayed"]) == (201, first.json, "true")
    assert webhook_registry.webhooks().count() == 1


def test_repeated_registration_with_other_fields_is_refused(api: Api) -> None:
    webhook = registered(api, id=str(uuid4()), name="shop")
    for fields in ({"url": f"{URL}/2"}, {"batch": 2}, {"types": ["wallet.opened"]}, {"from": "beginning"}):
        answer = api.post("/webhooks", {"id": webhook["id"], "name": "shop", "url": URL, **fields})
        assert (answer.status, answer.code) == (422, "idempotency_key_reused")
    assert stored(webhook).url == URL


@pytest.mark.parametrize("after", ["an hour", "a rotation"])
def test_late_replay_has_no_secret(api: Api, after: str) -> None:
    body = {"id": str(uuid4()), "name": "shop", "url": URL}
    api.post("/webhooks", body)
    if after == "a rotation":
        api.post(f"/webhooks/{body['id']}/rotation", {})
    else:
        webhook_registry.webhooks().update(secret_at=timezone.now() - timedelta(minutes=61))
    again = api.post("/webhooks", body)
    assert (again.status, again.json["secret"]) == (201, None)


def test_concurrent_replays_register_one_webhook(api: Api) -> None:
    body = {"id": str(uuid4()), "name": "shop", "url": URL}
    answers = run_concurrently(8, lambda _: Api(key=api.key).post("/webhooks", body))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["secret"] for answer in answers}) == 1


def test_duplicate_webhook_name_is_refused(api: Api) -> None:
    webhook = registered(api, name="shop")
    other = registered(api)
    for answer in (register(api, name="shop"), change(api, other, name="shop")):
        assert (answer.status, answer.code) == (409, "webhook_name_taken")
    assert change(api, webhook, name="shop").status == 200  # the name that it has
    answers = run_concurrently(8, lambda _: register(Api(key=api.key), name="market"))
    assert sorted(answer.status for answer in answers) == [201, *[409] * 7]


@pytest.mark.parametrize("name", ["rabbitmq", "kafka"])
def test_broker_name_is_reserved(api: Api, name: str) -> None:
    assert register(api, name=name).code == "webhook_name_taken"
    assert change(api, registered(api), name=name).code == "webhook_name_taken"


def test_number_of_webhooks_is_limited(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_registry, "MAX_WEBHOOKS", 3)
    answers = run_concurrently(6, lambda _: register(Api(key=api.key)))
    assert sorted(answer.status for answer in answers) == [201] * 3 + [409] * 3
    assert {answer.code for answer in answers if answer.status == 409} == {"too_many_webhooks"}
    assert webhook_registry.webhooks().count() == 3


def run_concurrently(times: int, ask: Callable[[int], Answer]) -> list[Answer]:
    answers: list[Answer] = []

    def run(number: int) -> None:
        answers.append(ask(number))
        connection.close()

    threads = [threading.Thread(target=run, args=[number]) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# --- Forbidden URLs ---------------------------------------------------------------------------------
FORBIDDEN_URLS = [
    *(
        "",
        "events",
        "https://",
        "https:///events",
        "ftp://example.com/",
        "javascript:alert(1)",
        "https:example.com",
    ),
    *("http://example.com/events", "HTTP://example.com/", "//example.com/events"),
    *("https://anna:secret@example.com/", "https://anna@example.com/", "https://@example.com/"),
    *(
        "https://example.com/#part",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://example.com:x/",
    ),
    *("https://localhost/", "https://LOCALHOST:8000/", "https://intranet/", "https://localhost./"),
    *(
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
    ),
    *("https://0/", "https://0.0.0.0/", "https://127.0.0.1./", "https://1.2.3.4.5/", "https://0x7f.1/"),
    *("https://10.0.0.1/", "https://172.16.0.1/", "https://192.168.1.1/", "https://100.64.0.1/"),
    *("https://169.254.169.254/latest/meta-data/", "https://224.0.0.1/", "https://255.255.255.255/"),
    *(
        "https://[::1]/",
        "https://[::]/",
        "https://[fe80::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fc00::1]/",
    ),
    *("https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::ffff:a9fe:a9fe]/"),
    *(
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::127.0.0.1]/",
        "https://[64:ff9b:1::1]/",
        "https://[fec0::1]/",
    ),
    *(
        "https://[2002:7f00:1::]/",
        "https://[2001:0:7f00:1::]/",
        "https://[ff02::1]/",
        "https://[2001:db8::1]/",
    ),
    *("https://[::1", "https://]/", "https://[v1.x]/"),
    *(
        "https://example.com/\r\nHost: x",
        "https://example.com/\n",
        "https://exa\tmple.com/",
        " https://example.com/",
    ),
    *(
        "https://example.com/a b",
        "https://exämple.com/",
        'https://exa"mple.com/',
        "https://example.com\\@127.0.0.1/",
        "https://пример.рф/",
        "https://example。com/",
    ),
    *(
        "https://１２７.０.０.１/",
        "https://example.com/\x00",
        "https://example.com/\u202e",
        "https://ex\x7fample.com/",
    ),
    "https://example.com/" + "x" * 1981,  # 2,001 characters
]


@pytest.mark.parametrize("url", FORBIDDEN_URLS, ids=range(len(FORBIDDEN_URLS)))
def test_forbidden_url_is_refused(api: Api, url: str) -> None:
    webhook = registered(api)
    assert wrong_field(register(api, url=url)) == "url"
    assert wrong_field(change(api, webhook, url=url)) == "url"
    assert list(webhook_registry.webhooks().values_list("url", flat=True)) == [URL]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://EXAMPLE.com:8443/a/b;c?d=e&f=%20#",
        "https://xn--e1afmkfd.xn--p1ai/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:8443/",
        "https://[64:ff9b::808:808]/",
        "https://example.com/" + "x" * 1980,
    ],
)
def test_allowed_url_is_stored_unchanged(api: Api, url: str) -> None:
    assert read(api, registered(api, url=url))["url"] == url


def test_targets_any_allows_http_and_private_addresses(api: Api, settings: LazySettings) -> None:
    settings.WEBHOOK_TARGETS = "any"
    for url in ("http://127.0.0.1:8001/", "http://receiver/", "https://[::1]/", "http://10.0.0.1/"):
        assert register(api, url=url).status == 201
    for url in ("http://2130706433/", "http://anna@receiver/", "ftp://receiver/", "http://receiver/\r\n"):
        assert wrong_field(register(api, url=url)) == "url"


# --- Names and other fields -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["shop", "Магазин 7", "o'; DROP TABLE subscriber --", "<b>", "店" * 100, "%s {0}"]
)
def test_webhook_name_is_stored_unchanged(api: Api, name: str) -> None:
    webhook = registered(api, name=name)
    assert read(api, webhook)["name"] == name
    assert change(api, webhook, name=f"{name[:99]}2").status == 200


def test_webhook_name_is_stripped(api: Api) -> None:
    assert registered(api, name="  shop\u00a0")["name"] == "shop"


INVALID_NAMES: list[Any] = ["", " ", "a\nb", "a\x00", "\u202e", "\ud800", "x" * 101, 7, ["a"], {}]
INVALID_URLS: list[Any] = [7, True, ["https://example.com"]]
INVALID_BATCHES: list[Any] = [0, -1, 501, 1.5, "1", True, 10**30]
INVALID_TYPE_LISTS: list[Any] = ["wallet.opened", {}, ["wallet.opened"] * 2]
INVALID_TYPES: list[Any] = ["wallet", "webhook.test", "", None, 1, "wallet.opened "]
INVALID_FIELDS: list[tuple[str, Any]] = [
    *(("name", value) for value in INVALID_NAMES),
    *(("url", value) for value in INVALID_URLS),
    *(("batch", value) for value in INVALID_BATCHES),
    *(("types", value) for value in INVALID_TYPE_LISTS),
    *(("types.0", [value]) for value in INVALID_TYPES),
]


@pytest.mark.parametrize(("field", "value"), INVALID_FIELDS, ids=range(len(INVALID_FIELDS)))
def test_invalid_field_is_refused(api: Api, field: str, value: Any) -> None:
    webhook = registered(api)
    before = Subscriber.objects.filter(id=webhook["id"]).values().get()
    name = field.partition(".")[0]
    for answer in (register(api, **{name: value}), change(api, webhook, **{name: value})):
        assert wrong_field(answer) == field
    assert webhook_registry.webhooks().values().get() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("from", "yesterday"), ("id", "x"), ("id", UNKNOWN_ID + "0"), ("secret", "whsec_mine")],
)
def test_invalid_registration_field_is_refused(api: Api, field: str, value: Any) -> None:
    assert wrong_field(register(api, **{field: value})) == field
    assert not webhook_registry.webhooks().exists()


@pytest.mark.parametrize("missing", ["name", "url"])
def test_name_and_url_are_required(api: Api, missing: str) -> None:
    body = {"name": "shop", "url": URL}
    assert wrong_field(api.post("/webhooks", body | {missing: None})) == missing
    del body[missing]
    assert wrong_field(api.post("/webhooks", body)) == missing


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"isEnabled": "yes"},
        {"isEnabled": 1},
        {"secret": "whsec_x"},
        {"kind": "BROKER"},
        {"id": UNKNOWN_ID},
    ],
)
def test_invalid_change_is_refused(api: Api, fields: dict[str, Any]) -> None:
    webhook = registered(api)
    before = Subscriber.objects.filter(id=webhook["id"]).values().get()
    assert change(api, webhook, **fields).code == "validation_error"
    assert webhook_registry.webhooks().values().get() == before


# --- Reading and changes ----------------------------------------------------------------------------
def test_the_list_is_paged_newest_first(api: Api) -> None:
    made = [registered(api)["id"] for _ in range(5)]
    first = api.get("/webhooks?limit=3").json
    second = api.get(f"/webhooks?limit=3&cursor={first['nextCursor']}").json
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["nextCursor"] is None


def test_webhook_shows_its_delivery_state(api: Api) -> None:
    webhook = registered(api)
    wallet = api.open()
    park(webhook), park(webhook), park(webhook, "WAITING")
    time = timezone.now()
    Subscriber.objects.filter(id=webhook["id"]).update(
        failing_since=time, retry_at=time, last_error="answered 500", delivered_at=time
    )
    found = read(api, webhook)
    assert found.items() >= {"dead": 2, "parked": 1, "lastError": "answered 500"}.items()
    assert found["failingSince"] == found["retryAt"] == found["deliveredAt"]
    assert 0 < found["lag"] < 60, wallet  # the opening of the wallet is not delivered
    assert api.get("/webhooks").json["items"][0].keys() == found.keys()


def test_change_affects_only_the_given_fields(api: Api) -> None:
    webhook = registered(api, types=["wallet.opened"], batch=5)
    before = read(api, webhook)
    changed = change(api, webhook, batch=7)
    assert changed.json == before | {"batch": 7}
    assert change(api, webhook, types=[], name="other").json == before | {
        "batch": 7,
        "types": [],
        "name": "other",
    }


def test_change_keeps_concurrent_updates_of_the_relay(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay updates the row between the read and the write of the change."""
    webhook = registered(api)
    locked = webhook_registry._locked
    moved = {"begin_xid": "123456789", "last_error": "answered 502", "failures": 7}

    def locked_then_moved(webhook_id: Any) -> Subscriber:
        found = locked(webhook_id)
        Subscriber.objects.filter(id=webhook_id).update(**moved)
        return found

    monkeypatch.setattr(webhook_registry, "_locked", locked_then_moved)
    change(api, webhook, name="other", types=["wallet.opened"], batch=3, isEnabled=False)
    api.post(f"/webhooks/{webhook['id']}/rotation", {})
    row = stored(webhook)
    assert (str(row.begin_xid), row.last_error, row.failures) == tuple(moved.values())


def test_reenabled_webhook_resumes_with_failures_reset(api: Api) -> None:
    webhook = registered(api)
    waiting = park(webhook, "WAITING", next_attempt_at=timezone.now() + timedelta(hours=6), attempts=9)
    position = delivery_state.position_of(stored(webhook))
    off = change(api, webhook, isEnabled=False).json
    assert (off["isEnabled"], off["disabledBecause"]) == (
        False,
        f"Disabled by key:{prefix_of(api.key or '')}.",
    )
    hours_ago = timezone.now() - timedelta(hours=50)
    webhook_registry.webhooks().update(
        failures=12, failing_since=hours_ago, retry_at=timezone.now() + timedelta(hours=6)
    )
    on = change(api, webhook, isEnabled=True).json
    assert (on["isEnabled"], on["disabledBecause"], on["failingSince"], on["retryAt"]) == (
        True,
        "",
        None,
        None,
    )
    assert delivery_state.position_of(stored(webhook)) == position
    waiting.refresh_from_db()
    assert waiting.next_attempt_at <= timezone.now()


def test_new_url_makes_waiting_events_due(api: Api) -> None:
    webhook = registered(api)
    later = timezone.now() + timedelta(hours=6)
    waiting = park(webhook, "WAITING", next_attempt_at=later)
    webhook_registry.webhooks().update(failures=12, failing_since=timezone.now(), retry_at=later)
    change(api, webhook, batch=2, url=URL)  # the same URL
    assert read(api, webhook)["retryAt"] is not None
    assert change(api, webhook, url=f"{URL}/2").json["retryAt"] is None
    waiting.refresh_from_db()
    assert waiting.next_attempt_at <= timezone.now()


def test_removal_deletes_all_rows_of_the_webhook(api: Api) -> None:
    webhook, other = registered(api), registered(api)
    for each in (webhook, other):
        park(each)
        record_delivery(each, "an event")
    assert api.send("DELETE", f"/webhooks/{webhook['id']}").status == 204
    for method, path in ENDPOINTS:
        answer = api.send(method, path.format(webhook["id"]), {"batch": 1} if method == "PATCH" else None)
        assert (answer.status, answer.code) == (404, "webhook_not_found")
    for model in (ParkedEvent, Delivery):
        (left,) = model.objects.values_list("subscriber_id", flat=True)
        assert str(left) == other["id"]


def test_removal_waits_for_the_relay_without_deadlock(api: Api) -> None:
    webhook = registered(api)
    park(webhook)

    def remove() -> int:
        with closing(connection):
            return Api(key=api.key).send("DELETE", f"/webhooks/{webhook['id']}").status

    def is_waiting() -> bool:
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        return relay.execute(blocked, [relay.info.backend_pid]).fetchone() == (1,)

    with psycopg.connect(cluster.url("postgres")) as relay, ThreadPoolExecutor(1) as pool:
        relay.execute("SELECT FROM subscriber WHERE id = %s FOR NO KEY UPDATE", [webhook["id"]])
        removal = pool.submit(remove)
        wait_until(is_waiting, "the removal does not wait for the relay")
        relay.execute("SELECT FROM parked_event WHERE subscriber_id = %s FOR UPDATE NOWAIT", [webhook["id"]])
        relay.commit()
        assert removal.result() == 204
    assert not Subscriber.objects.filter(id=webhook["id"]).exists()


ENDPOINTS = [
    *(("GET", "/webhooks/{}"), ("PATCH", "/webhooks/{}"), ("DELETE", "/webhooks/{}")),
    *(("POST", "/webhooks/{}/rotation"), ("POST", "/webhooks/{}/test"), ("POST", "/webhooks/{}/replay")),
    *(("GET", "/webhooks/{}/deliveries"), ("GET", "/webhooks/{}/dead-letters")),
    ("DELETE", "/webhooks/{}/dead-letters"),
]


@pytest.mark.parametrize("method_and_path", ENDPOINTS, ids=" ".join)
def test_a_broker_is_no_webhook(api: Api, method_and_path: tuple[str, str]) -> None:
    broker = delivery_state.broker("rabbitmq")
    method, path = method_and_path
    before = Subscriber.objects.filter(id=broker.id).values().get()
    for id in (str(broker.id), UNKNOWN_ID, "none"):
        answer = api.send(method, path.format(id), {"isEnabled": False} if method == "PATCH" else None)
        assert answer.code == "webhook_not_found"
    assert Subscriber.objects.filter(id=broker.id).values().get() == before
    assert api.get("/webhooks").json["items"] == []


# --- Secrets -----------------------------------------------------------------------------------------
def rotate(api: Api, webhook: Any, **fields: Any) -> Answer:
    return api.post(f"/webhooks/{webhook['id']}/rotation", fields)


def test_rotation_keeps_the_former_secret_for_a_day(api: Api) -> None:
    webhook = registered(api)
    rotated = rotate(api, webhook).json
    responses.SecretBody.model_validate(rotated)
    row = stored(webhook)
    assert (row.secret, row.former_secret) == (rotated["secret"], webhook["secret"])
    assert row.former_secret_until is not None
    assert timedelta(hours=23, minutes=59) < row.former_secret_until - timezone.now() <= timedelta(hours=24)
    assert read(api, webhook)["formerSecretUntil"] == rotated["formerSecretUntil"]


def test_the_former_secret_can_end_at_once(api: Api) -> None:
    webhook = registered(api)
    assert rotate(api, webhook, formerValidHours=0).json["formerSecretUntil"] is None
    assert stored(webhook).former_secret == ""


def test_repeated_rotation_is_a_replay(api: Api) -> None:
    webhook = registered(api)
    id = str(uuid4())
    answers = [rotate(api, webhook, id=id) for _ in range(2)]
    assert answers[0].json == answers[1].json
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert stored(webhook).former_secret == webhook["secret"]
    assert rotate(api, webhook, id=str(uuid4())).json["secret"] != answers[0].json["secret"]


def test_whole_number_with_a_decimal_point_is_accepted(api: Api) -> None:
    webhook = registered(api)
    assert change(api, webhook, batch=2.0).json["batch"] == 2
    assert rotate(api, webhook, formerValidHours=0.0).json["formerSecretUntil"] is None


def test_late_replay_of_a_rotation_has_no_secret(api: Api) -> None:
    webhook, id = registered(api), str(uuid4())
    first = rotate(api, webhook, id=id).json
    webhook_registry.webhooks().update(secret_at=timezone.now() - timedelta(minutes=61))
    again = rotate(api, webhook, id=id)
    responses.SecretBody.model_validate(again.json)
    assert (again.status, again.json) == (200, first | {"secret": None})


@pytest.mark.parametrize("hours", [-1, 169, 1.5, "24", True])
def test_invalid_former_valid_hours_is_refused(api: Api, hours: Any) -> None:
    webhook = registered(api)
    assert wrong_field(rotate(api, webhook, formerValidHours=hours)) == "formerValidHours"
    assert stored(webhook).secret == webhook["secret"]


def test_secrets_are_in_no_log(api: Api, caplog: pytest.LogCaptureFixture, settings: LazySettings) -> None:
    settings.WEBHOOK_TARGETS = "any"
    with caplog.at_level(logging.DEBUG), receiver() as shop:
        webhook = registered(api, url=shop.url("/events?token=sesame"))
        rotated = rotate(api, webhook).json
        api.post(f"/webhooks/{webhook['id']}/test", {})
        change(api, webhook, isEnabled=False)
        api.send("DELETE", f"/webhooks/{webhook['id']}")
    actor = f"key:{prefix_of(api.key or '')}"
    messages = [
        record.getMessage() for record in caplog.records if record.name == "wallets.events.webhook_registry"
    ]
    assert messages == [
        f"{actor} {action} the webhook {webhook['name']} ({webhook['id']})"
        for action in ("registered", "rotated the secret of", "changed", "removed")
    ]
    rest = [record for record in caplog.records if not record.name.startswith("django.db")]
    log_text = " ".join(f"{record.getMessage()} {record.__dict__}" for record in rest)
    assert "sesame" not in log_text
    for secret in (webhook["secret"], rotated["secret"]):
        assert secret not in log_text
        assert secret.removeprefix("whsec_") not in log_text


# --- Test events ------------------------------------------------------------------------------------
def test_test_event_is_sent_and_recorded(api: Api, settings: LazySettings) -> None:
    settings.WEBHOOK_TARGETS = "any"
    with receiver(answering(202, b"thank you")) as shop:
        webhook = registered(api, url=shop.url())
        change(api, webhook, isEnabled=False)
        answer = api.post(f"/webhooks/{webhook['id']}/test", {})
        (request,) = shop.requests
    responses.DeliveryBody.model_validate(answer.json)
    assert (answer.status, answer.json["statusCode"], answer.json["response"]) == (200, 202, "thank you")
    assert (answer.json["error"], answer.json["eventId"]) == ("", request.ids[0])
    assert request.events[0]["type"] == "webhook.test"
    assert api.get(f"/webhooks/{webhook['id']}/deliveries").json["items"] == [answer.json]
    assert read(api, webhook)["isEnabled"] is False


def test_failed_test_event_has_the_reason(api: Api, settings: LazySettings) -> None:
    settings.WEBHOOK_TARGETS = "any"
    with receiver(fail) as shop:
        webhook = registered(api, url=shop.url())
        answer = api.post(f"/webhooks/{webhook['id']}/test", {})
    assert (answer.status, answer.json["statusCode"], answer.json["error"]) == (200, 500, "answered 500")
    gone = api.post(f"/webhooks/{webhook['id']}/test", {}).json
    assert gone["statusCode"] is None
    assert "refused" in gone["error"]
    settings.WEBHOOK_TARGETS = "public"
    assert "NotAllowed" in api.post(f"/webhooks/{webhook['id']}/test", {}).json["error"]


def test_webhook_removed_during_its_test_is_not_found(api: Api, settings: LazySettings) -> None:
    settings.WEBHOOK_TARGETS = "any"

    with receiver() as shop:
        webhook = registered(api, url=shop.url())

        def remove(connection: Any, request: Any) -> bool:
            from django.db import connection as database

            webhook_registry.webhooks().delete()
            database.close()
            return answering(200)(connection, request)

        shop.behave = remove
        assert api.post(f"/webhooks/{webhook['id']}/test", {}).code == "webhook_not_found"


# --- Deliveries and dead letters --------------------------------------------------------------------
def test_deliveries_are_paged_newest_first(api: Api) -> None:
    webhook, other = registered(api), registered(api)
    for number in range(5):
        record_delivery(webhook, f"event-{number}")
        record_delivery(other, "another's")
    first = api.get(f"/webhooks/{webhook['id']}/deliveries?limit=3").json
    assert first["items"][0].items() >= {"statusCode": 503, "durationMs": 250, "response": "down"}.items()
    record_delivery(webhook, "event-5")
    second = api.get(f"/webhooks/{webhook['id']}/deliveries?limit=3&cursor={first['nextCursor']}").json
    assert [item["eventId"] for item in first["items"] + second["items"]] == [
        f"event-{n}" for n in (4, 3, 2, 1, 0)
    ]
    assert second["nextCursor"] is None


def test_dead_letters_are_listed_and_replayed(api: Api) -> None:
    webhook, other = registered(api), registered(api)
    dead = [park(webhook, attempts=7, last_error="answered 500") for _ in range(3)]
    waiting, foreign = park(webhook, "WAITING", attempts=2), park(other)
    first = api.get(f"/webhooks/{webhook['id']}/dead-letters?limit=2").json
    second = api.get(f"/webhooks/{webhook['id']}/dead-letters?limit=2&cursor={first['nextCursor']}").json
    items = first["items"] + second["items"]
    assert [item["eventId"] for item in items] == [row.event_id for row in dead[::-1]]
    assert items[0].items() >= {"attempts": 7, "lastError": "answered 500"}.items()
    assert [item["event"]["subject"] for item in items] == [row.wallet_id for row in dead[::-1]]
    responses.DeadLetterPage.model_validate(first)
    assert api.post(f"/webhooks/{webhook['id']}/replay", {}).json == {"replayed": 3}
    assert api.post(f"/webhooks/{webhook['id']}/replay", {}).json == {"replayed": 0}
    for row in (*dead, waiting, foreign):
        row.refresh_from_db()
    assert {(row.status, row.attempts) for row in dead} == {("WAITING", 0)}
    assert (waiting.attempts, foreign.status) == (2, "DEAD")
    assert api.get(f"/webhooks/{webhook['id']}/dead-letters").json["items"] == []


def test_dead_letters_are_deleted(api: Api) -> None:
    webhook, other = registered(api), registered(api)
    kept = [park(webhook, "WAITING"), park(other)]
    park(webhook), park(webhook)
    for _ in range(2):
        answer = api.send("DELETE", f"/webhooks/{webhook['id']}/dead-letters")
        assert (answer.status, answer.content) == (204, b"")
    assert list(ParkedEvent.objects.order_by("id")) == kept


def encoded(cursor: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode().rstrip("=")


@pytest.mark.parametrize("path", ["deliveries", "dead-letters"])
def test_cursor_of_another_list_is_refused(api: Api, path: str) -> None:
    webhooks = [registered(api) for _ in range(2)]
    address = f"/webhooks/{webhooks[0]['id']}/{path}"
    other = api.get("/webhooks?limit=1").json["nextCursor"]
    name = f"{path.replace('-', '_')} of {webhooks[0]['id']}"
    forged: list[dict[str, Any]] = [
        {"list_name": name, "filters": {}, "id": id} for id in (0, 2**63, "1", 1.0)
    ]
    for cursor in (other, "x", *map(encoded, forged)):
        assert wrong_field(api.get(f"{address}?cursor={cursor}")) == "cursor"
    well_formed = encoded({"list_name": name, "filters": {}, "id": 1})
    assert api.get(f"{address}?cursor={well_formed}").status == 200
    assert wrong_field(api.get(f"/webhooks/{webhooks[1]['id']}/{path}?cursor={well_formed}")) == "cursor"
    for _ in range(2):
        record_delivery(webhooks[0], "an event")
        park(webhooks[0])
    numbered = api.get(f"{address}?limit=1").json["nextCursor"]
    assert wrong_field(api.get(f"/webhooks?cursor={numbered}")) == "cursor"


def test_webhook_removed_during_listing_is_omitted(api: Api) -> None:
    registered(api)
    (webhook,) = webhook_registry.webhooks()
    webhook.name = "removed"
    assert with_standing([webhook]) == []


def test_registration_schema_has_no_secret() -> None:
    assert "secret" not in WebhookToRegister.model_fields

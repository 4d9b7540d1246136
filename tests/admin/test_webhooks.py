"""Webhooks in the admin: viewed, registered, changed, disabled, tested and removed with a permission."""

import html
import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.admin.test_wallets_and_operations import logged_in, new_user, shown, text_of
from tests.support.client import UNKNOWN_ID
from tests.support.receivers import answering, fail, receiver
from wallets.events import delivery_state, webhook_registry
from wallets.models import Delivery, ParkedEvent, Subscriber

LIST = "/admin/wallets/subscriber/"
REGISTER = f"{LIST}register/"
URL = "https://shop.example.com/events?token=sesame"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]{44}")
MANAGED = ("edit", "send_test", "enable", "disable", "replay", "forget", "rotate")

pytestmark = pytest.mark.usefixtures("no_subscribers")


@pytest.fixture
def client() -> Client:
    """An operator with all permissions for webhooks."""
    return logged_in(new_user(*(f"{what}_subscriber" for what in ("view", "add", "change", "delete"))))


def registered(**fields: Any) -> Subscriber:
    given = {"name": f"shop {uuid4()}", "url": URL, **fields}
    return webhook_registry.register(webhook_registry.Registration(**given), "").webhook


def page(row: Subscriber, action: str = "change") -> str:
    return f"{LIST}{row.pk}/{action}/"


def trail(row: Subscriber) -> list[str]:
    entries = LogEntry.objects.filter(object_id=str(row.pk)).order_by("id")
    return list(entries.values_list("change_message", flat=True))


def registration_form(**fields: Any) -> dict[str, Any]:
    given = {"name": f"shop {uuid4()}", "url": URL, "batch": "1", "begins": "now", "id": str(uuid4())}
    return given | fields


def park(row: Subscriber, status: str = "DEAD", **fields: Any) -> ParkedEvent:
    given = {"event_id": f"{uuid4()}:balance", "type": "wallet.balance.changed", "wallet_id": uuid4()}
    return ParkedEvent.objects.create(subscriber=row, status=status, **given | fields)


def secret_in(response: Any) -> str | None:
    found = SECRET.search(html.unescape(text_of(response)))
    return found[0] if found else None


# --- Lists and pages --------------------------------------------------------------------------------
def test_pages_show_the_delivery_state_and_no_secret(client: Client) -> None:
    row = registered(name="<b>shop</b>", types=["wallet.opened", "wallet.hold.placed"])
    row = webhook_registry.rotate(row.id, "", former_valid=timedelta(hours=1)).webhook
    waiting, dead = park(row, "WAITING", last_error="answered 503"), park(row, last_error="<i>no</i>")
    Subscriber.objects.filter(id=row.id).update(failures=3, failing_since=timezone.now(), last_error="<u>")
    Delivery.objects.create(
        subscriber=row,
        event_id="an-event",
        events=4,
        at=timezone.now(),
        duration=timedelta(milliseconds=48),
        status_code=503,
        error="answered 503",
        response="<script>alert(1)</script>",
    )
    for content in (shown(client, LIST), shown(client, page(row))):
        for text in ("&lt;b&gt;shop&lt;/b&gt;", "shop.example.com", "FAILING"):
            assert text in content
        for secret in (row.secret, row.former_secret):
            assert secret not in html.unescape(content)
    assert "sesame" not in shown(client, LIST)
    for text in (
        waiting.event_id,
        dead.event_id,
        "an-event",
        "48 ms",
        "answered 503",
        "wallet.opened, wallet",
    ):
        assert text in content
    for markup in ("<script>alert", "<i>no", "<u>"):
        assert markup not in content


@pytest.mark.parametrize(
    ("columns", "status"),
    [({}, "HEALTHY"), ({"failures": 1}, "FAILING"), ({"failures": 1, "is_enabled": False}, "DISABLED")],
)
def test_page_shows_the_status(client: Client, columns: dict[str, Any], status: str) -> None:
    row = registered()
    Subscriber.objects.filter(id=row.id).update(**columns)
    assert status in shown(client, page(row))


def test_list_of_many_webhooks_needs_no_more_queries(client: Client) -> None:
    counts = []
    for _ in range(2):
        for _ in range(3):
            park(registered())
        with CaptureQueriesContext(connection) as captured:
            shown(client, LIST)
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_webhooks_are_found_by_name_and_address(client: Client) -> None:
    row, other = registered(name="market"), registered(url="https://other.example.com/")
    for term in ("mark", "shop.example"):
        content = shown(client, LIST, q=term)
        assert page(row) in content
        assert page(other) not in content


# --- Registration -----------------------------------------------------------------------------------
def test_webhook_is_registered_and_its_secret_shown_once(client: Client) -> None:
    assert REGISTER in shown(client, LIST)
    response = client.post(REGISTER, registration_form(name=" till 1 ", types=["wallet.opened"], batch="7"))
    (row,) = webhook_registry.webhooks()
    assert secret_in(response) == row.secret
    assert (row.name, row.url, row.types, row.batch) == ("till 1", URL, ["wallet.opened"], 7)
    for address in (LIST, page(row), page(row, "history"), page(row, "edit"), page(row, "rotate")):
        assert SECRET.search(html.unescape(shown(client, address))) is None
    assert trail(row) == ["Registered, for shop.example.com"]


def test_webhook_can_start_at_the_beginning_of_the_log(client: Client) -> None:
    client.post(REGISTER, registration_form(begins="beginning"))
    assert int(webhook_registry.webhooks().get().begin_xid) == 0


def test_form_sent_twice_registers_one_webhook(client: Client) -> None:
    sent = registration_form()
    secrets = [secret_in(client.post(REGISTER, sent)) for _ in range(2)]
    (row,) = webhook_registry.webhooks()
    assert secrets == [row.secret] * 2
    assert len(trail(row)) == 1
    webhook_registry.webhooks().update(secret_at=timezone.now() - timedelta(hours=2))
    late = client.post(REGISTER, sent, follow=True)
    assert secret_in(late) is None
    assert "not shown again" in text_of(late)


def test_used_form_is_refused_for_another_webhook(client: Client) -> None:
    sent = registration_form()
    client.post(REGISTER, sent)
    response = client.post(REGISTER, sent | {"name": "another"})
    assert "was used before" in text_of(response)
    assert sent["id"] not in text_of(response)
    assert webhook_registry.webhooks().count() == 1


@pytest.mark.parametrize(
    "fields",
    [
        *({"name": name} for name in ("", " ", "x" * 101, "a\nb", "\x00", "\u202e", "taken", "kafka")),
        *({"url": url} for url in ("", "x", "http://example.com/", "https://127.0.0.1/", "https://a@b.c/")),
        *(
            {"url": url}
            for url in ("https://[::ffff:10.0.0.1]/", "https://2130706433/", "https://a.b/\r\nx: y")
        ),
        *(
            {"url": url}
            for url in ("https://пример.рф/", "https://example.com/" + "x" * 1981, " https://a.b/")
        ),
        *({"batch": batch} for batch in ("", "0", "501", "-1", "1.5", "x")),
        *({"types": types} for types in (["x"], ["webhook.test"])),
        *({"begins": "x"}, {"id": "x"}, {"id": ""}),
    ],
    ids=str,
)
def test_invalid_registration_is_refused_with_an_error(client: Client, fields: dict[str, Any]) -> None:
    row = registered(name="taken")
    response = client.post(REGISTER, registration_form(**fields))
    assert response.status_code == 200
    assert secret_in(response) is None
    assert "error" in text_of(response)
    assert list(webhook_registry.webhooks()) == [row]


# --- Changes ----------------------------------------------------------------------------------------
def test_change_is_logged_without_the_secret_part_of_the_url(client: Client) -> None:
    row = registered(name="shop")
    assert page(row, "edit") in shown(client, page(row))
    content = shown(client, page(row, "edit"))
    assert html.escape(URL) in content
    sent = {
        "name": "market",
        "url": "https://market.example.com/hook?token=t",
        "batch": "9",
        "types": ["wallet.opened"],
    }
    assert client.post(page(row, "edit"), sent).status_code == 302
    row.refresh_from_db()
    assert (row.name, row.url, row.batch, row.types) == (sent["name"], sent["url"], 9, ["wallet.opened"])
    assert client.post(page(row, "edit"), sent).status_code == 302
    assert trail(row) == ["Changed name, url, types, batch, now for market.example.com"]


@pytest.mark.parametrize(
    "fields",
    [{"name": "taken"}, {"name": ""}, {"url": "https://10.0.0.1/"}, {"batch": "0"}, {"types": ["x"]}],
    ids=str,
)
def test_invalid_change_is_refused(client: Client, fields: dict[str, Any]) -> None:
    registered(name="taken")
    row = registered()
    before = Subscriber.objects.filter(id=row.id).values().get()
    response = client.post(page(row, "edit"), {"name": "new", "url": URL, "batch": "1", **fields})
    assert response.status_code == 200
    assert Subscriber.objects.filter(id=row.id).values().get() == before
    assert trail(row) == []


def test_webhook_is_disabled_and_enabled_after_confirmation(client: Client) -> None:
    row = registered()
    content = shown(client, page(row))
    assert page(row, "disable") in content
    assert page(row, "enable") not in content
    assert "continues from its position" in shown(client, page(row, "disable"))
    for _ in range(2):
        assert client.post(page(row, "disable")).status_code == 302
    row.refresh_from_db()
    assert row.is_enabled is False
    assert row.disabled_because.startswith("Disabled by operator:user-")
    assert page(row, "enable") in shown(client, page(row))
    client.post(page(row, "enable"))
    row.refresh_from_db()
    assert (row.is_enabled, row.disabled_because) == (True, "")
    assert trail(row) == ["Disabled", "Enabled"]


def test_rotated_secret_is_shown_once(client: Client) -> None:
    row = registered()
    sent = {"hours": "48", "id": str(uuid4())}
    responses = [client.post(page(row, "rotate"), sent) for _ in range(2)]
    rotated = Subscriber.objects.get(id=row.id)
    assert [secret_in(response) for response in responses] == [rotated.secret] * 2
    assert rotated.former_secret == row.secret != rotated.secret
    assert f"{rotated.former_secret_until:%Y-%m-%d %H:%M} UTC" in text_of(responses[0])
    assert trail(row) == ["New secret; the former one is valid for 48 hours"]
    webhook_registry.webhooks().update(secret_at=timezone.now() - timedelta(hours=2))
    late = client.post(page(row, "rotate"), sent, follow=True)
    assert secret_in(late) is None
    assert "not shown again" in text_of(late)
    assert SECRET.search(html.unescape(shown(client, page(row)))) is None


@pytest.mark.parametrize("hours", ["-1", "169", "", "x"])
def test_invalid_validity_of_the_former_secret_is_refused(client: Client, hours: str) -> None:
    row = registered()
    response = client.post(page(row, "rotate"), {"hours": hours, "id": str(uuid4())})
    assert secret_in(response) is None
    assert Subscriber.objects.get(id=row.id).secret == row.secret


def test_test_event_is_sent_and_its_result_shown(client: Client, settings: LazySettings) -> None:
    settings.WEBHOOK_TARGETS = "any"
    with receiver(answering(202)) as shop:
        row = registered(url=shop.url())
        assert page(row, "send_test") in shown(client, page(row))
        assert client.get(page(row, "send_test")).status_code == 200
        assert shop.requests == []
        assert "Accepted: status 202" in text_of(client.post(page(row, "send_test"), follow=True))
        shop.behave = fail
        assert "Not accepted: answered 500" in text_of(client.post(page(row, "send_test"), follow=True))
        assert [request.events[0]["type"] for request in shop.requests] == ["webhook.test"] * 2
    assert trail(row) == ["Sent a test"] * 2


def test_dead_letters_are_replayed(client: Client) -> None:
    row = registered()
    assert page(row, "replay") not in shown(client, page(row))
    dead = [park(row), park(row)]
    assert page(row, "replay") in shown(client, page(row))
    assert "2 dead letters will be sent again" in text_of(client.post(page(row, "replay"), follow=True))
    assert {ParkedEvent.objects.get(id=each.id).status for each in dead} == {"WAITING"}
    assert trail(row) == ["Replayed 2 dead letters"]


def test_dead_letters_are_deleted(client: Client) -> None:
    row = registered()
    waiting = park(row, "WAITING")
    assert page(row, "forget") not in shown(client, page(row))
    park(row), park(row)
    assert page(row, "forget") in shown(client, page(row))
    assert "cannot be undone" in shown(client, page(row, "forget"))
    assert "Deleted 2 dead letters." in text_of(client.post(page(row, "forget"), follow=True))
    assert list(ParkedEvent.objects.filter(subscriber=row)) == [waiting]
    assert trail(row) == ["Deleted 2 dead letters"]


def test_webhook_is_removed_after_confirmation(client: Client) -> None:
    row = registered()
    park(row)
    assert "cannot be undone" in shown(client, page(row, "remove"))
    assert Subscriber.objects.filter(id=row.id).exists()
    response = client.post(page(row, "remove"))
    assert (response.status_code, response["Location"]) == (302, LIST)
    assert not Subscriber.objects.filter(id=row.id).exists()
    entry = LogEntry.objects.get(object_id=str(row.id))
    assert (entry.action_flag, entry.object_repr) == (3, row.name)


# --- The broker -------------------------------------------------------------------------------------
def test_broker_can_only_be_viewed_enabled_and_disabled(client: Client) -> None:
    row = delivery_state.broker("rabbitmq")
    assert page(row) in shown(client, LIST)
    content = shown(client, page(row))
    assert "the broker" in content
    before = Subscriber.objects.filter(id=row.id).values().get()
    for action in (*MANAGED, "remove"):
        if action in ("enable", "disable"):
            continue
        assert page(row, action) not in content
        for send in (client.get, client.post):
            response = send(page(row, action), registration_form(hours="1"))
            assert response.status_code == 302
            assert response["Location"].startswith("/admin/")
    assert Subscriber.objects.filter(id=row.id).values().get() == before
    client.post(page(row, "disable"))
    assert not Subscriber.objects.get(id=row.id).is_enabled
    client.post(page(row, "enable"))
    assert Subscriber.objects.get(id=row.id).is_enabled


# --- Permissions ------------------------------------------------------------------------------------
NEEDED = {
    **dict.fromkeys(MANAGED, "change_subscriber"),
    "remove": "delete_subscriber",
    "register": "add_subscriber",
}


@pytest.mark.parametrize("action", NEEDED)
def test_each_action_needs_its_permission(action: str) -> None:
    others = {"view_subscriber", "add_subscriber", "change_subscriber", "delete_subscriber"} - {
        NEEDED[action]
    }
    row = registered()
    park(row)
    client = logged_in(new_user(*others))
    address = REGISTER if action == "register" else page(row, action)
    before = list(Subscriber.objects.values()), list(ParkedEvent.objects.values())
    assert address not in shown(client, LIST if action == "register" else page(row))
    for send in (client.get, client.post):
        assert send(address, registration_form(hours="0")).status_code == 403
    assert (list(Subscriber.objects.values()), list(ParkedEvent.objects.values())) == before
    assert trail(row) == []


def test_pages_need_the_view_permission() -> None:
    row = registered()
    operator = logged_in(new_user("view_wallet"))
    for address in (LIST, page(row)):
        assert operator.get(address).status_code == 403


def test_django_pages_cannot_change_webhooks() -> None:
    root = logged_in(new_user(is_superuser=True))
    row = registered()
    before = Subscriber.objects.filter(id=row.id).values().get()
    assert root.get(f"{LIST}add/").status_code == 403
    for action in ("change", "delete"):
        assert root.post(page(row, action), {"name": "mine", "secret": "mine"}).status_code == 403
    assert Subscriber.objects.filter(id=row.id).values().get() == before


@pytest.mark.parametrize("action", [*MANAGED, "remove"])
def test_action_on_a_missing_webhook_redirects(client: Client, action: str) -> None:
    for id in (UNKNOWN_ID, "none"):
        response = client.get(f"{LIST}{id}/{action}/", follow=True)
        assert "doesn’t exist" in text_of(response)


def test_action_on_a_webhook_removed_meanwhile_shows_an_error(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = registered()
    find = webhook_registry.find

    def removed(webhook_id: Any) -> Subscriber:
        webhook_registry.webhooks().delete()
        return find(webhook_id)

    monkeypatch.setattr(webhook_registry, "find", removed)
    assert "No webhook with this id exists" in text_of(client.post(page(row, "replay"), follow=True))

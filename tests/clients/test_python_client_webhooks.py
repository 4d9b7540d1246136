"""The Python client verifies the requests of webhooks."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import standardwebhooks

from tests.support.client import Api
from tests.support.events import relaying, subscribed
from tests.support.receivers import Receiver, receiver
from wallets.events import webhooks
from walletsvc_client import Event, InvalidWebhook, verify_webhook

SECRET = webhooks.new_secret()
EVENT = {
    "specversion": "1.0",
    "id": "a",
    "source": "walletsvc",
    "type": "webhook.test",
    "time": "2026-11-21T09:30:00.000000Z",
    "data": {"balance": "1.00"},
}
BODY = json.dumps(EVENT).encode()


def signed(body: bytes = BODY, secret: str = SECRET, age_seconds: int = 0) -> dict[str, str]:
    timestamp = int(time.time()) - age_seconds
    moment = datetime.fromtimestamp(timestamp, UTC)
    signature = standardwebhooks.Webhook(secret).sign("m1", moment, body.decode())
    return {"Webhook-Id": "m1", "Webhook-Timestamp": str(timestamp), "Webhook-Signature": signature}


def test_event_is_returned() -> None:
    moment = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    expected = Event("a", "webhook.test", "walletsvc", None, moment, {"balance": "1.00"})
    assert verify_webhook(BODY, signed(), SECRET) == [expected]


def test_batch_is_returned() -> None:
    body = json.dumps([EVENT, EVENT | {"id": "b"}]).encode()
    assert [event.id for event in verify_webhook(body, signed(body), SECRET)] == ["a", "b"]


def test_one_valid_signature_is_enough() -> None:
    headers = signed()
    headers["Webhook-Signature"] = f"v1,abc v1a,é {headers['Webhook-Signature']}"
    assert verify_webhook(BODY, headers, SECRET)


@pytest.mark.parametrize(
    "change",
    [
        {"Webhook-Id": "m2"},
        {"Webhook-Timestamp": ""},
        {"Webhook-Timestamp": "²"},
        {"Webhook-Timestamp": str(int(time.time()) - 30)},
        {"Webhook-Signature": ""},
        {"Webhook-Signature": "v1,"},
        {"Webhook-Signature": "é"},
        signed(secret=webhooks.new_secret()),
        signed(BODY + b" "),
        signed(age_seconds=301),
        signed(age_seconds=-100_000),
    ],
)
def test_other_requests_are_invalid(change: dict[str, str]) -> None:
    with pytest.raises(InvalidWebhook):
        verify_webhook(BODY, signed() | change, SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64"])
def test_malformed_secret_verifies_nothing(secret: str) -> None:
    with pytest.raises(ValueError, match="the secret of a webhook"):
        verify_webhook(BODY, signed(), secret)


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.mark.slow
def test_events_of_the_relay_are_verified(api: Api, server: Receiver) -> None:
    with subscribed(server.url(), batch=10) as subscriber, relaying():
        wallet_id = api.open("5.00")
        server.wait_until(lambda: len(server.of(wallet_id)) == 3)
        events = [
            event
            for request in server.requests
            for event in verify_webhook(request.body, request.headers, subscriber.secret)
        ]
    own = [event for event in events if event.subject == wallet_id]
    assert {event.type for event in own} >= {"wallet.opened", "wallet.balance.changed"}
    assert [event.data["balance"] for event in own if event.type == "wallet.balance.changed"] == ["5.00"]

"""Webhook delivery to real servers that accept, fail, hang, disconnect, or have a wrong certificate."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
import standardwebhooks
import trustme
from django.conf import LazySettings
from django.db import connections
from django.utils import timezone

from tests.conftest import running_service
from tests.support.client import Api, OverHttp
from tests.support.events import relaying
from tests.support.receivers import (
    OK,
    Behaviour,
    Receiver,
    Request,
    answering,
    dripping,
    fail,
    hanging,
    is_in_order,
    receiver,
    refusing,
    saying,
    take,
)
from wallets.events import relay, retries, webhook_registry, webhooks
from wallets.events.cloudevents import Event
from wallets.events.delivery_state import Overtaken
from wallets.events.relay import DeliveryThread, EntryNotifier
from wallets.events.webhooks import MAX_REQUEST_BYTES, Webhook
from wallets.models import Delivery, ParkedEvent, Subscriber

PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _alone(settings: LazySettings, no_subscribers: None) -> None:
    settings.WEBHOOK_TARGETS = "any"


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        webhooks, "REQUEST_TIMEOUT_SECONDS", 1.0
    )  # for receivers that hang; others may need longer


@pytest.fixture
def longer_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "REQUEST_TIMEOUT_SECONDS", 4.0)


@pytest.fixture
def destination() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.close()


@pytest.fixture
def shop() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def registered(url: str, **fields: Any) -> Subscriber:
    wanted = webhook_registry.Registration(name=f"shop {uuid4()}", url=url, **fields)
    return webhook_registry.register(wanted, "").webhook


def event(wallet_id: UUID | None = None, size: int = 10) -> Event:
    id = f"{uuid4()}:balance"
    wallet_id = wallet_id or uuid4()
    content = orjson.dumps({"id": id, "subject": str(wallet_id), "data": "x" * size})
    return Event(id, "wallet.balance.changed", wallet_id, content)


def run_until_idle(webhook: Subscriber, destination: Webhook) -> None:
    """Run rounds of the relay for this webhook until it is idle."""
    thread = DeliveryThread(webhook, destination, EntryNotifier())
    while thread._round() == 0 and not thread._stopped.is_set():
        pass


def make_retries_due(webhook: Subscriber, **columns: Any) -> None:
    Subscriber.objects.filter(id=webhook.id).update(**{"retry_at": None, **columns})
    ParkedEvent.objects.filter(subscriber=webhook).update(next_attempt_at=PAST)


def parked(webhook: Subscriber, status: str = "WAITING") -> list[ParkedEvent]:
    return list(ParkedEvent.objects.filter(subscriber=webhook, status=status).order_by("id"))


def ids_of(events: Sequence[Event]) -> list[str]:
    return [event.id for event in events]


# --- Behaviour of the receiver ----------------------------------------------------------------------
MANY_HEADERS = b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 1000 + b"\r\n"
REDIRECTED = "redirects are not followed; it pointed to"
FAULTS: dict[str, tuple[Behaviour, int | None, str]] = {
    "fails": (fail, 500, "answered 500"),
    "refuses": (answering(404), 404, "answered 404"),
    "is overloaded": (answering(429, b"", "Retry-After: 1"), 429, "answered 429"),
    "redirects": (
        answering(302, b"", "Location: http://127.0.0.1:1/"),
        302,
        f"{REDIRECTED} http://127.0.0.1:1/",
    ),
    "redirects to itself": (answering(307, b"", "Location: /events"), 307, f"{REDIRECTED} /events"),
    "redirects without a Location": (answering(304), 304, "answered 304"),
    "sends nothing": (saying(b""), None, "closed connection without response"),
    "cuts its response": (saying(b"HTTP/1.1 2"), None, "HTTP/1.1 2"),
    "does not speak HTTP": (saying(b"SSH-2.0-OpenSSH_9.6\x00\x1b[31m\r\n"), None, "SSH-2.0-OpenSSH_9.6"),
    "sends no text": (saying(bytes(range(256)) * 4), None, "BadStatusLine"),
    "sends endless headers": (saying(MANY_HEADERS), None, "headers"),
    "hangs": (hanging, None, "no complete response within 1 s"),
    "drips its response": (dripping(OK), None, "no complete response within 1 s"),
    "sends endless 100 Continue": (
        dripping(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.01),
        None,
        "no complete response within 1 s",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("batch", [1, 10])
def test_failed_delivery_records_the_reason_and_parks(  # noqa: PLR0913, PLR0917
    api: Api,
    shop: Receiver,
    destination: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    batch: int,
) -> None:
    shop.behave, status, error = FAULTS[fault]
    monkeypatch.setattr(webhooks, "REQUEST_TIMEOUT_SECONDS", 1.0 if "within 1 s" in error else 10.0)
    webhook = registered(shop.url(), types=["wallet.opened"], batch=batch)
    wallet = api.open()
    run_until_idle(webhook, destination)
    (waiting,) = parked(webhook)
    assert (str(waiting.wallet_id), waiting.attempts) == (wallet, 1)
    delivery = Delivery.objects.get(subscriber=webhook)
    assert (delivery.status_code, delivery.event_id) == (status, waiting.event_id)
    assert error in delivery.error == waiting.last_error
    assert delivery.error.isprintable()
    webhook.refresh_from_db()
    assert (webhook.failures, webhook.last_error, webhook.is_enabled) == (1, delivery.error, True)
    assert {request.path for request in shop.requests} == {"/events"}
    monkeypatch.setattr(webhooks, "REQUEST_TIMEOUT_SECONDS", 10.0)
    shop.behave = take
    make_retries_due(webhook)
    run_until_idle(webhook, destination)
    assert parked(webhook) == []
    assert set(shop.ids_of(wallet)) == {waiting.event_id}


ACCEPTED_RESPONSES: dict[str, Behaviour] = {
    "nothing": answering(204),
    "a line": answering(200, b"ok"),
    "megabytes": answering(200, b"x" * 5_000_000),
    "no text": answering(200, bytes(range(256))),
    "false content encoding": answering(200, b"x" * 100, "Content-Encoding: gzip"),
    "no length": saying(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 1000),
    "less than Content-Length": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
    "broken chunks": saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nonly this"),
    "dripping body": lambda connection, request: (
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n") or dripping(b"z" * 100, 0.06)(connection, request)  # type: ignore[func-returns-value]
    ),
}


@pytest.mark.parametrize("answer", ACCEPTED_RESPONSES)
@pytest.mark.usefixtures("longer_timeout")
def test_success_status_counts_whatever_the_body(
    api: Api, shop: Receiver, destination: Webhook, answer: str
) -> None:
    shop.behave = ACCEPTED_RESPONSES[answer]
    webhook = registered(shop.url(), types=["wallet.opened"])
    wallets = [api.open() for _ in range(2)]
    run_until_idle(webhook, destination)
    assert parked(webhook) == []
    assert sorted(request.events[0]["subject"] for request in shop.requests) == sorted(wallets)
    for delivery in Delivery.objects.filter(subscriber=webhook):
        assert (delivery.error, delivery.status_code in (200, 204)) == ("", True)
        assert len(delivery.response) <= 500
        assert delivery.response == "" or delivery.response.isprintable()


def test_a_redirect_is_not_followed(shop: Receiver, destination: Webhook) -> None:
    with receiver() as elsewhere:
        shop.behave = answering(308, b"", f"Location: {elsewhere.url()}")
        failures, _ = destination.deliver(registered(shop.url()), [event()])
        assert (len(failures), len(shop.requests), elsewhere.requests) == (1, 1, [])


def test_refused_connection_is_a_failure(destination: Webhook) -> None:
    with receiver() as gone:
        url = gone.url()
    failures, (delivery,) = destination.deliver(registered(url), [event()])
    assert len(failures) == 1
    assert "refused" in delivery.error


@pytest.mark.usefixtures("short_timeout")
def test_receiver_that_does_not_read_is_disconnected(destination: Webhook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts the connection but reads nothing
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        webhook = registered(url, batch=500)
        _, (delivery,) = destination.deliver(webhook, [event(size=250_000)])
    assert delivery.error


# --- Connections ------------------------------------------------------------------------------------
def test_connection_is_reused_and_replaced_after_a_drop(shop: Receiver, destination: Webhook) -> None:
    webhook = registered(shop.url())
    for _ in range(3):
        assert destination.deliver(webhook, [event()])[0] == {}
    assert {request.connection for request in shop.requests} == {1}
    shop.drop_connections()
    assert destination.deliver(webhook, [event()])[0] == {}
    assert shop.requests[-1].connection == 2


def test_request_on_a_stale_connection_is_sent_again(shop: Receiver, destination: Webhook) -> None:
    """The receiver may close an idle connection just as the relay uses it."""
    webhook = registered(shop.url())
    destination.deliver(webhook, [event()])

    def cut_once(connection: socket.socket, request: Request) -> bool:
        shop.behave = take
        return False

    shop.behave = cut_once
    again = event()
    assert destination.deliver(webhook, [again])[0] == {}
    assert [request.ids for request in shop.requests[1:]] == [[again.id]] * 2


def test_changed_url_uses_a_new_connection(shop: Receiver, destination: Webhook) -> None:
    webhook = registered(shop.url())
    destination.deliver(webhook, [event()])
    with receiver() as other:
        moved = webhook_registry.change(webhook.id, "", url=other.url("/new?a=b"))
        destination.deliver(moved, [event()])
        (request,) = other.requests
    assert (request.path, request.headers["host"]) == ("/new?a=b", f"127.0.0.1:{other.port}")
    assert len(shop.requests) == 1


# --- Names and addresses ----------------------------------------------------------------------------
class Names:
    """A fake resolver that records the requested names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[str, list[list[str]]] = {}  # by name, the addresses of each lookup
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(host)
        answers = self.addresses.get(host, [[host]])
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        kwargs["type"] = socket.SOCK_STREAM
        kwargs["flags"] = socket.AI_NUMERICHOST  # no real DNS lookup
        return [found for each in addresses for found in self._real(each, port, **kwargs)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),  # noqa: S104
    *("224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1"),
    *(
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
    ),
    *("2001:db8::1", "2001:0:7f00:1::"),
]


@pytest.mark.parametrize("beside", [[], ["8.8.8.8"], ["2606:4700:4700::1111"]], ids=["alone", "IPv4", "IPv6"])
@pytest.mark.parametrize("address", PRIVATE)
def test_host_with_a_private_address_is_not_called(
    settings: LazySettings, names: Names, destination: Webhook, address: str, beside: list[str]
) -> None:
    settings.WEBHOOK_TARGETS = "public"
    names.addresses["shop.example.com"] = [[*beside, address]]
    webhook = registered("https://shop.example.com/")
    _, (delivery,) = destination.deliver(webhook, [event()])
    assert (delivery.status_code, "is not a public address" in delivery.error) == (None, True)
    assert names.asked == ["shop.example.com"]  # and no connection was made


@pytest.mark.parametrize("url", ["http://example.com/", "https://127.0.0.1/", "https://localhost/"])
def test_url_that_is_no_longer_allowed_is_not_called(
    settings: LazySettings, names: Names, destination: Webhook, url: str
) -> None:
    webhook = registered(url)
    settings.WEBHOOK_TARGETS = "public"
    _, (delivery,) = destination.deliver(webhook, [event()])
    assert delivery.error.startswith("NotAllowed")
    assert names.asked == []


def test_request_goes_to_the_checked_address(shop: Receiver, names: Names, destination: Webhook) -> None:
    """DNS rebinding: the address may change between the check and the request."""
    names.addresses["shop.test"] = [["127.0.0.1"], ["203.0.113.7"]]
    webhook = registered(shop.url(host="shop.test"))
    assert destination.deliver(webhook, [event()])[0] == {}
    assert names.asked == [
        "shop.test",
        "127.0.0.1",
    ]  # the second lookup is that of the connection: an address, not a name
    assert shop.requests[0].headers["host"] == f"shop.test:{shop.port}"
    names.addresses["shop.test"] = [["127.0.0.2"]]
    failures, _ = destination.deliver(webhook, [event()])
    assert len(failures) == 1  # refused: the connection to the former address was not reused
    assert len(shop.requests) == 1


def test_host_with_several_addresses_keeps_its_connection(
    shop: Receiver, names: Names, destination: Webhook
) -> None:
    """The resolver may return the addresses in another order each time."""
    names.addresses["shop.test"] = [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]]
    webhook = registered(shop.url(host="shop.test"))
    for _ in range(3):
        assert destination.deliver(webhook, [event()])[0] == {}
    assert [request.connection for request in shop.requests] == [1, 1, 1]


def test_next_address_is_tried_after_a_refused_connection(
    shop: Receiver, names: Names, destination: Webhook
) -> None:
    names.addresses["shop.test"] = [["127.0.0.2", "127.0.0.3", "127.0.0.1", "127.0.0.4"]]
    assert destination.deliver(registered(shop.url(host="shop.test")), [event()])[0] == {}
    names.addresses["gone.test"] = [["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"]]
    _, (delivery,) = destination.deliver(registered(shop.url(host="gone.test")), [event()])
    assert "refused" in delivery.error  # only three addresses are tried
    assert len(shop.requests) == 1


@pytest.mark.usefixtures("longer_timeout")
def test_next_address_is_tried_after_a_connect_timeout(
    shop: Receiver, names: Names, destination: Webhook
) -> None:
    names.addresses["shop.test"] = [["127.0.0.2", "127.0.0.1"]]
    webhook = registered(shop.url(host="shop.test"))
    with socket.create_server(("127.0.0.2", shop.port), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())  # fills the backlog: further connections time out
        assert destination.deliver(webhook, [event()])[0] == {}
    assert len(shop.requests) == 1


def test_unresolvable_host_is_a_failure(names: Names, destination: Webhook) -> None:
    for host in ("unknown.test", "a..b.test", "x" * 70 + ".test"):
        _, (delivery,) = destination.deliver(registered(f"https://{host}/"), [event()])
        assert delivery.error


# --- TLS --------------------------------------------------------------------------------------------
@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """A certificate authority that the service trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    webhooks._tls.cache_clear()
    yield made
    webhooks._tls.cache_clear()


@pytest.fixture
def local_hosts(names: Names) -> None:
    for host in ("shop.test", "other.test"):
        names.addresses[host] = [["127.0.0.1"]]


def server_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def test_valid_certificate_is_accepted(
    authority: trustme.CA, local_hosts: None, destination: Webhook
) -> None:
    with receiver(tls=server_of(authority.issue_cert("shop.test", "127.0.0.1"))) as shop:
        for host in ("shop.test", "127.0.0.1"):
            assert destination.deliver(registered(shop.url(host=host)), [event()])[0] == {}
        assert len(shop.requests) == 2


def test_tls_connection_is_reused_and_replaced_after_a_drop(
    authority: trustme.CA, local_hosts: None, destination: Webhook
) -> None:
    with receiver(tls=server_of(authority.issue_cert("shop.test"))) as shop:
        webhook = registered(shop.url(host="shop.test"))
        for _ in range(3):
            assert destination.deliver(webhook, [event()])[0] == {}
        shop.drop_connections()
        assert destination.deliver(webhook, [event()])[0] == {}
        assert shop.requests[-1].connection > shop.requests[0].connection


INVALID_CERTIFICATES: dict[str, Callable[[trustme.CA], trustme.LeafCert]] = {
    "another host": lambda authority: authority.issue_cert("other.test", "127.0.0.1"),
    "only a matching common name": lambda authority: authority.issue_cert(
        "other.test", common_name="shop.test"
    ),
    "an unknown authority": lambda authority: trustme.CA().issue_cert("shop.test"),
    "an expired certificate": lambda authority: authority.issue_cert(
        "shop.test", not_before=PAST, not_after=datetime.now(UTC) - timedelta(days=1)
    ),
}


@pytest.mark.parametrize("invalid", INVALID_CERTIFICATES)
def test_invalid_certificate_gets_no_request(
    authority: trustme.CA, local_hosts: None, destination: Webhook, invalid: str
) -> None:
    with receiver(tls=server_of(authority.issue_cert("shop.test"))) as shop:
        assert destination.deliver(registered(shop.url(host="shop.test")), [event()])[0] == {}
    with receiver(tls=server_of(INVALID_CERTIFICATES[invalid](authority))) as other:
        _, (delivery,) = destination.deliver(registered(other.url(host="shop.test")), [event()])
        assert "CERTIFICATE_VERIFY_FAILED" in delivery.error
        assert other.requests == []


@pytest.mark.usefixtures("short_timeout")
def test_stalled_tls_handshake_times_out(authority: trustme.CA, destination: Webhook) -> None:
    with receiver(hanging) as plain, socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (plain.port, silent.getsockname()[1]):
            _, (delivery,) = destination.deliver(registered(f"https://127.0.0.1:{port}/"), [event()])
            assert delivery.error


# --- Signatures -------------------------------------------------------------------------------------
def verified(secret: str, request: Request) -> Any:
    """Verify with the reference implementation of Standard Webhooks."""
    return standardwebhooks.Webhook(secret).verify(request.body, request.headers)


@pytest.mark.parametrize("batch", [1, 50])
def test_every_request_is_signed(shop: Receiver, destination: Webhook, batch: int) -> None:
    webhook = registered(shop.url(), batch=batch)
    told = [event() for _ in range(5)]
    destination.deliver(webhook, told)
    assert sorted(shop_id for request in shop.requests for shop_id in request.ids) == sorted(ids_of(told))
    for request in shop.requests:
        verified(webhook.secret, request)
        kind = "application/cloudevents-batch+json" if batch > 1 else "application/cloudevents+json"
        assert request.headers["content-type"] == kind
        forged = Request(request.path, request.headers, request.body + b" ", 1)
        for secret, what in ((webhook.secret, forged), (webhooks.new_secret(), request)):
            with pytest.raises(standardwebhooks.WebhookVerificationError):
                verified(secret, what)


def test_both_secrets_sign_until_the_former_one_expires(shop: Receiver, destination: Webhook) -> None:
    former = registered(shop.url())
    rotated = webhook_registry.rotate(former.id, "", former_valid=timedelta(hours=1)).webhook
    destination.deliver(rotated, [event()])
    for secret in (former.secret, rotated.secret):
        verified(secret, shop.requests[-1])
    rotated.former_secret_until = timezone.now()
    destination.deliver(rotated, [event()])
    verified(rotated.secret, shop.requests[-1])
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verified(former.secret, shop.requests[-1])


def test_retry_has_the_same_id_and_a_new_timestamp(shop: Receiver, destination: Webhook) -> None:
    webhook, told = registered(shop.url()), event()
    shop.behave = fail
    destination.deliver(webhook, [told])
    shop.behave = take
    destination.deliver(webhook, [told])
    first, second = shop.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == told.id
    assert int(second.headers["webhook-timestamp"]) >= int(first.headers["webhook-timestamp"])
    verified(webhook.secret, second)


def test_batch_id_identifies_its_content(shop: Receiver, destination: Webhook) -> None:
    """Receivers ignore a known id: a new event under a known id would be lost."""
    webhook = registered(shop.url(), batch=10)
    a, b, c, d = (event() for _ in range(4))
    for told in ([a, b, c], [a, b, c], [a, b, d], [a, b], [a]):
        destination.deliver(webhook, told)
    ids = [request.headers["webhook-id"] for request in shop.requests]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


# --- Batches ----------------------------------------------------------------------------------------
def test_batch_respects_event_and_byte_limits(shop: Receiver, destination: Webhook) -> None:
    told = [event(size=size) for size in (10, 10, 10, 100_000, 100_000, 62_000, 100_000, 300_000)]
    # Two that fill a request to the byte, and two that exceed it by one byte.
    empty = len(event(size=0).content)
    told += [event(size=MAX_REQUEST_BYTES // 2 - empty - 2), event(size=MAX_REQUEST_BYTES // 2 - empty - 1)]
    told += [event(size=MAX_REQUEST_BYTES // 2 - empty - 1), event(size=MAX_REQUEST_BYTES // 2 - empty - 1)]
    destination.deliver(registered(shop.url(), batch=3), told)
    sent = [(len(request.events), len(request.body)) for request in shop.requests]
    assert [events for events, _ in sent] == [3, 2, 2, 1, 2, 1, 1]
    assert max(size for events, size in sent if events > 1) == MAX_REQUEST_BYTES
    assert [id for request in shop.requests for id in request.ids] == ids_of(told)


def refusing_events(ids: set[str]) -> Behaviour:
    def behave(connection: socket.socket, request: Request) -> bool:
        return (fail if ids.intersection(request.ids) else take)(connection, request)

    return behave


@pytest.mark.parametrize("batch", [1, 3, 500])
def test_refused_event_delays_only_its_own_wallet(shop: Receiver, destination: Webhook, batch: int) -> None:
    refused_wallet, good_wallet, other = uuid4(), uuid4(), uuid4()
    told = [event(wallet) for _ in range(4) for wallet in (good_wallet, refused_wallet, other)]
    refused_ids = [each.id for each in told if each.wallet_id == refused_wallet]
    shop.behave = refusing_events({refused_ids[1]})
    failures, _ = destination.deliver(registered(shop.url(), batch=batch), told)
    assert set(failures) == set(refused_ids[1:])
    assert [failures[id].was_tried for id in refused_ids[1:]] == [True, False, False]
    for wallet in (good_wallet, other):
        assert is_in_order([each.id for each in told if each.wallet_id == wallet], shop.ids_of(str(wallet)))
    assert not set(refused_ids[2:]).intersection(
        id for request in shop.requests for id in request.ids if len(request.events) == 1
    )


# --- Retries ----------------------------------------------------------------------------------------
def test_retries_keep_the_order_of_the_wallet(api: Api, shop: Receiver, destination: Webhook) -> None:
    webhook = registered(shop.url(), types=["wallet.opened", "wallet.balance.changed"])
    refused_wallet, good_wallet = api.open(deposit="1"), api.open(deposit="1")
    shop.behave = refusing(refused_wallet)
    run_until_idle(webhook, destination)
    api.deposit(refused_wallet, "2"), api.deposit(good_wallet, "2")
    run_until_idle(webhook, destination)
    (row,) = parked(webhook)
    assert row.attempts == 1
    assert len(shop.ids_of(good_wallet)) == 3
    shop.behave = take
    make_retries_due(webhook)
    before = len(shop.requests)
    run_until_idle(webhook, destination)
    came = [each for request in shop.requests[before:] for each in request.events]
    assert came[0]["id"] == row.event_id
    assert [(each["subject"], each["data"].get("sequence")) for each in came] == [
        *((refused_wallet, None), (refused_wallet, 1), (refused_wallet, 2))
    ]
    webhook.refresh_from_db()
    assert (webhook.failures, webhook.failing_since, parked(webhook)) == (0, None, [])


def test_retries_slow_down_until_a_dead_letter_is_replayed(
    api: Api, shop: Receiver, destination: Webhook, settings: LazySettings
) -> None:
    webhook = registered(shop.url(), types=["wallet.opened", "wallet.balance.changed"])
    refused_wallet, good_wallet = api.open(), api.open()
    shop.behave = refusing(refused_wallet)
    run_until_idle(webhook, destination)
    api.deposit(refused_wallet, "1")
    waits = []
    for _ in range(11):
        (first, *_rest) = parked(webhook)
        waits.append((first.next_attempt_at - timezone.now()).total_seconds())
        make_retries_due(webhook)
        run_until_idle(webhook, destination)
    assert waits[:10] == sorted(waits[:10])  # the jitter is less than the increase
    assert 0 < waits[0] < 2
    assert 3600 * 4 < waits[-1] < 3600 * 8
    ParkedEvent.objects.filter(subscriber=webhook).update(
        created_at=timezone.now() - timedelta(days=settings.EVENTS_RETRY_DAYS)
    )
    make_retries_due(webhook)
    run_until_idle(webhook, destination)
    dead = parked(webhook, "DEAD")
    assert {str(letter.wallet_id) for letter in dead} == {refused_wallet}
    assert (dead[0].type, dead[0].last_error) == ("wallet.opened", "answered 500")
    before = len(shop.requests)
    make_retries_due(webhook)
    shop.behave = take
    run_until_idle(webhook, destination)
    given_up = [letter.event_id for letter in dead]
    assert not set(given_up).intersection(id for request in shop.requests[before:] for id in request.ids)
    assert webhook_registry.replay(webhook.id, "") == len(dead)
    before = len(shop.requests)
    run_until_idle(webhook, destination)
    assert [id for request in shop.requests[before:] for id in request.ids] == given_up
    assert parked(webhook) == parked(webhook, "DEAD") == []
    assert len(shop.ids_of(good_wallet)) == 1


def test_webhook_failing_for_days_is_disabled_and_resumes_completely(
    api: Api, shop: Receiver, destination: Webhook, settings: LazySettings
) -> None:
    shop.behave = fail
    webhook = registered(shop.url(), types=["wallet.opened"])
    wallets = [api.open()]
    run_until_idle(webhook, destination)
    assert is_enabled(webhook)
    since = timezone.now() - timedelta(days=settings.EVENTS_RETRY_DAYS, seconds=1)
    make_retries_due(webhook, failing_since=since)
    run_until_idle(webhook, destination)
    webhook.refresh_from_db()
    assert (webhook.is_enabled, webhook.disabled_because) == (False, "No event was accepted for 3 days.")
    sent = len(shop.requests)
    shop.behave = take
    make_retries_due(webhook)
    wallets.append(api.open())
    run_until_idle(webhook, destination)
    assert len(shop.requests) == sent
    webhook_registry.change(webhook.id, "", is_enabled=True)
    run_until_idle(webhook, destination)
    assert {each["subject"] for request in shop.requests[sent:] for each in request.events} == set(wallets)


def is_enabled(webhook: Subscriber) -> bool:
    return Subscriber.objects.get(id=webhook.id).is_enabled


def test_success_restarts_the_retry_period(api: Api, shop: Receiver, destination: Webhook) -> None:
    webhook = registered(shop.url(), types=["wallet.opened"])
    make_retries_due(webhook, failing_since=PAST, failures=30)
    api.open()
    run_until_idle(webhook, destination)
    shop.behave = fail
    api.open()
    run_until_idle(webhook, destination)
    webhook.refresh_from_db()
    assert (webhook.is_enabled, webhook.failures) == (True, 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_status_410_disables_at_once_and_resumes_completely(
    api: Api, shop: Receiver, destination: Webhook, batch: int
) -> None:
    shop.behave = answering(410)
    webhook = registered(shop.url(), types=["wallet.opened"], batch=batch)
    wallets = [api.open() for _ in range(20)]
    run_until_idle(webhook, destination)
    webhook.refresh_from_db()
    assert (webhook.is_enabled, webhook.disabled_because) == (False, "The webhook answered 410 Gone.")
    assert len(shop.requests) <= webhooks.MAX_CONCURRENT_REQUESTS
    shop.behave = take
    webhook_registry.change(webhook.id, "", is_enabled=True)
    run_until_idle(webhook, destination)
    assert {each["subject"] for each in shop.events} == set(wallets)
    assert parked(webhook) == []


def test_failing_webhook_gets_no_request_per_event(api: Api, shop: Receiver, destination: Webhook) -> None:
    shop.behave = fail
    webhook = registered(shop.url(), types=["wallet.opened"])
    for _ in range(40):
        api.open()
    run_until_idle(webhook, destination)
    assert len(shop.requests) < retries.MIN_FAILED_WALLETS + webhooks.MAX_CONCURRENT_REQUESTS
    assert len(parked(webhook)) == 40
    webhook.refresh_from_db()
    assert webhook.retry_at is not None


def test_failing_subscriber_reads_a_few_entries_at_each_attempt(
    api: Api, shop: Receiver, destination: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MAX_ENTRIES_IN_FLIGHT", 4)
    monkeypatch.setattr(relay, "PROBE_SIZE", 1)
    shop.behave = fail
    webhook = registered(shop.url(), types=["wallet.opened"])
    wallets = [api.open() for _ in range(20)]
    thread = DeliveryThread(webhook, destination, EntryNotifier())
    for attempts in range(1, 6):
        Subscriber.objects.filter(id=webhook.id, retry_at__isnull=False).update(retry_at=PAST)
        thread._round()
        assert len(parked(webhook)) == 3 + attempts
    assert thread._round() > 0  # the subscriber is paused
    shop.behave = take
    Subscriber.objects.filter(id=webhook.id).update(retry_at=PAST)
    run_until_idle(webhook, destination)
    assert {each["subject"] for each in shop.events} == set(wallets)
    assert parked(webhook) == []


def test_slow_receiver_does_not_block_the_page(
    api: Api, shop: Receiver, destination: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_PAGE_SECONDS", 0.3)

    def slowly(connection: socket.socket, request: Request) -> bool:
        time.sleep(0.2)
        return take(connection, request)

    shop.behave = slowly
    webhook = registered(shop.url(), types=["wallet.balance.changed"])
    wallet = api.open()
    for _ in range(20):
        api.deposit(wallet, "1")
    DeliveryThread(webhook, destination, EntryNotifier())._round()
    taken = len(shop.requests)
    assert 0 < taken < 20
    (rest,) = parked(webhook)
    assert (rest.attempts, rest.last_error) == (0, "the receiver is slow")
    shop.behave = take
    run_until_idle(webhook, destination)
    assert [each["data"]["sequence"] for each in shop.events] == list(range(1, 21))


def test_webhook_removed_during_delivery_leaves_no_rows(
    api: Api, shop: Receiver, destination: Webhook
) -> None:
    webhook = registered(shop.url(), types=["wallet.opened"])
    shop.behave = fail
    api.open()
    run_until_idle(webhook, destination)
    make_retries_due(webhook)

    def remove(connection: socket.socket, request: Request) -> bool:
        webhook_registry.remove(webhook.id, "")
        connections["default"].close()
        return fail(connection, request)

    shop.behave = remove
    with pytest.raises(Overtaken):
        run_until_idle(webhook, destination)
    assert not ParkedEvent.objects.filter(subscriber_id=webhook.id).exists()
    assert not Delivery.objects.filter(subscriber_id=webhook.id).exists()


# --- Relay processes --------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.slow
def test_hanging_or_failing_webhook_delays_no_other(api: Api, shop: Receiver, batch: int) -> None:
    with receiver(fail) as failing, receiver(hanging) as stuck, relaying():
        servers = (shop, failing, stuck)
        told = [registered(server.url(), types=["wallet.balance.changed"], batch=batch) for server in servers]
        wallets = [api.open() for _ in range(10)]
        for number in range(100):
            api.deposit(wallets[number % 10], "1")
        shop.wait_until(lambda: len(shop.events) >= 100)
        assert len({each["id"] for each in shop.events}) == 100
        for server in (failing, stuck):
            server.wait_until(lambda: bool(server.requests))  # noqa: B023
            server.behave = take
            server.drop_connections()
        for webhook in told[1:]:
            webhook_registry.change(webhook.id, "", is_enabled=False)
            webhook_registry.change(webhook.id, "", is_enabled=True)  # makes the retries due now
        for server in (failing, stuck):
            server.wait_until(lambda: has_all(server, wallets))  # noqa: B023
    for server in servers:
        for wallet in wallets:
            of_wallet = [each["data"]["sequence"] for each in server.events if each["subject"] == wallet]
            assert is_in_order(list(range(1, 11)), of_wallet), (server.port, of_wallet)


def has_all(server: Receiver, wallets: Sequence[str]) -> bool:
    return all(
        {each["data"]["sequence"] for each in server.events if each["subject"] == wallet} == set(range(1, 11))
        for wallet in wallets
    )


@pytest.mark.slow
def test_relay_killed_during_requests_loses_and_reorders_nothing(api: Api, shop: Receiver) -> None:
    webhook = registered(shop.url(), types=["wallet.balance.changed"], batch=7)
    wallets = [api.open() for _ in range(5)]
    for number in range(50):
        api.deposit(wallets[number % 5], "1")
    for kills in range(3):
        seen = len(shop.requests)
        shop.behave = hanging if kills < 2 else take
        with relaying() as process:
            shop.wait_until(lambda: len(shop.requests) > seen)  # noqa: B023
            process.kill()
        shop.drop_connections()
    shop.behave = take
    with relaying():
        shop.wait_until(lambda: all(len(set(shop.ids_of(wallet))) == 10 for wallet in wallets))
    for wallet in wallets:
        sequences = [each["data"]["sequence"] for each in shop.events if each["subject"] == wallet]
        assert list(dict.fromkeys(sequences)) == list(range(1, 11))
    assert is_enabled(webhook)


@pytest.mark.slow
def test_gevent_worker_sends_test_events(authority: trustme.CA) -> None:
    """A web worker uses gevent, unlike the relay, also for TLS."""
    with (
        receiver(tls=server_of(authority.issue_cert("127.0.0.1"))) as shop,
        running_service(WEBHOOK_TARGETS="any") as address,
    ):
        sender = OverHttp(address)
        api = Api(sender)
        webhook = api.post("/webhooks", {"name": "shop", "url": shop.url()}).json
        path = f"/webhooks/{webhook['id']}/test"
        assert api.post(path, {}).json.items() >= {"statusCode": 200, "error": ""}.items()
        verified(webhook["secret"], shop.requests[0])
        shop.behave = saying(b"")
        assert api.post(path, {}).json["statusCode"] is None
        sender.connection.close()

"""Refused events: they delay only their own wallet, need one row, and are later delivered in order."""

import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import LazySettings
from django.db import connection
from django.utils import timezone

from tests.events.test_webhook_delivery import (
    PAST,
    make_retries_due,
    parked,
    refusing_events,
    registered,
    run_until_idle,
)
from tests.support.client import Api
from tests.support.events import horizon
from tests.support.receivers import Receiver, Request, fail, hanging, is_in_order, receiver, refusing, take
from wallets.events import delivery_state, parking, retries, webhook_registry, webhooks
from wallets.events.cloudevents import Event
from wallets.events.delivery_state import Overtaken
from wallets.events.relay import DeliveryThread, EntryNotifier
from wallets.events.retries import Failure
from wallets.events.webhooks import Webhook
from wallets.ledger.commands import Deposit
from wallets.ledger.execute import execute
from wallets.models import Delivery, ParkedEvent, Subscriber

BALANCE = "wallet.balance.changed"


@pytest.fixture(autouse=True)
def _alone(settings: LazySettings, no_subscribers: None) -> None:
    settings.WEBHOOK_TARGETS = "any"


@pytest.fixture
def destination() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.close()


@pytest.fixture
def shop() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def one_round(webhook: Subscriber, destination: Any) -> None:
    """Run one round of the relay, which sees everything that was committed before."""
    horizon()
    DeliveryThread(webhook, destination, EntryNotifier())._round()


def deposits(wallet: str, times: int) -> None:
    for done in range(0, times, 1000):
        some = min(1000, times - done)
        execute([Deposit(wallet_id=UUID(wallet), amount=Decimal(1)) for _ in range(some)])


def sequences(told: Receiver, wallet: str) -> list[int]:
    return [event["data"]["sequence"] for event in told.of(wallet)]


# --- Other wallets ----------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", [1, 20])
def test_refused_event_delays_no_other_wallet(
    api: Api, shop: Receiver, destination: Webhook, batch: int
) -> None:
    refused_wallet = api.open()
    webhook = registered(shop.url(), types=[BALANCE], batch=batch)
    shop.behave = refusing(refused_wallet)
    api.deposit(refused_wallet, "1")
    run_until_idle(webhook, destination)  # only the refused event, so no event was accepted
    webhook.refresh_from_db()
    assert (webhook.failures, webhook.retry_at) == (1, None)
    others = [api.open(deposit="1") for _ in range(50)]
    one_round(webhook, destination)
    assert {event["subject"] for event in shop.events} == {refused_wallet, *others}
    assert [str(row.wallet_id) for row in parked(webhook)] == [refused_wallet]


@pytest.mark.parametrize("batch", [1, 20, 500])
def test_refused_event_delays_no_other_wallet_of_its_page(
    api: Api, shop: Receiver, destination: Webhook, batch: int
) -> None:
    webhook = registered(shop.url(), types=[BALANCE], batch=batch)
    wallets = [api.open(deposit="1") for _ in range(51)]
    shop.behave = refusing(wallets[0])
    one_round(webhook, destination)
    assert all(sequences(shop, wallet) == [1] for wallet in wallets[1:] if batch == 1)
    assert all(set(sequences(shop, wallet)) == {1} for wallet in wallets[1:])
    assert [str(row.wallet_id) for row in parked(webhook)] == wallets[:1]


def test_retries_of_a_refused_event_never_pause_the_subscriber(
    api: Api, shop: Receiver, destination: Webhook
) -> None:
    webhook = registered(shop.url(), types=[BALANCE])
    refused_wallet = api.open(deposit="1")
    shop.behave = refusing(refused_wallet)
    for _ in range(10):
        run_until_idle(webhook, destination)
        ParkedEvent.objects.filter(subscriber=webhook).update(next_attempt_at=PAST)
    webhook.refresh_from_db()
    assert (webhook.failures, webhook.retry_at) == (1, None)
    assert len(shop.requests) == 10


def test_two_refused_wallets_delay_only_themselves(api: Api, shop: Receiver, destination: Webhook) -> None:
    webhook = registered(shop.url(), types=[BALANCE])
    bad, worse, good = api.open(deposit="1"), api.open(deposit="1"), api.open(deposit="1")
    shop.behave = refusing(bad, worse)
    run_until_idle(webhook, destination)
    for wallet in (bad, worse, good):
        api.deposit(wallet, "1")
    run_until_idle(webhook, destination)
    assert sequences(shop, good) == [1, 2]
    assert {str(row.wallet_id) for row in parked(webhook)} == {bad, worse}
    shop.behave = refusing(worse)
    make_retries_due(webhook)
    run_until_idle(webhook, destination)
    assert is_in_order([1, 2], sequences(shop, bad))
    assert set(sequences(shop, worse)) == {1}
    assert [str(row.wallet_id) for row in parked(webhook)] == [worse]


def test_refusals_of_several_wallets_in_a_row_pause_the_subscriber_briefly(
    api: Api, shop: Receiver, destination: Webhook
) -> None:
    """The relay cannot tell this from a receiver that is down; events with fewer attempts come first."""
    webhook = registered(shop.url(), types=[BALANCE])
    bad = [api.open() for _ in range(retries.MIN_FAILED_WALLETS)]
    shop.behave = refusing(*bad)
    for wallet in bad:
        api.deposit(wallet, "1")
        run_until_idle(webhook, destination)
    webhook.refresh_from_db()
    assert webhook.retry_at is not None
    first_pause = timedelta(seconds=retries.RETRY_PAUSES_SECONDS[0] * (1 + retries.JITTER_FRACTION))
    assert webhook.retry_at - timezone.now() <= first_pause
    Subscriber.objects.filter(id=webhook.id).update(retry_at=timezone.now() + timedelta(hours=1))
    good = api.open(deposit="1")
    run_until_idle(webhook, destination)
    assert sequences(shop, good) == []
    Subscriber.objects.filter(id=webhook.id).update(retry_at=PAST)
    one_round(webhook, destination)
    assert sequences(shop, good) == [1]
    assert Subscriber.objects.get(id=webhook.id, failures=0).retry_at is None


@pytest.mark.slow
def test_receiver_that_is_down_gets_few_requests_a_minute(
    api: Api, shop: Receiver, destination: Webhook
) -> None:
    webhook = registered(shop.url(), types=[BALANCE])
    for _ in range(150):
        api.open(deposit="1")
    shop.behave = fail
    for _ in range(12):
        before = len(shop.requests)
        one_round(webhook, destination)
        assert len(shop.requests) - before < retries.MIN_FAILED_WALLETS + webhooks.MAX_CONCURRENT_REQUESTS
        webhook.refresh_from_db()
        Subscriber.objects.filter(id=webhook.id).update(retry_at=PAST)
    assert webhook.retry_at is not None
    left_alone = (webhook.retry_at - timezone.now()).total_seconds()
    assert 40 < left_alone <= retries.MAX_SUBSCRIBER_PAUSE_SECONDS * (1 + retries.JITTER_FRACTION)


def test_batch_without_response_delays_other_wallets_once(
    api: Api, shop: Receiver, destination: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a response, the relay does not know which event of the batch is the cause."""
    monkeypatch.setattr(webhooks, "REQUEST_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(webhooks, "MAX_PAGE_SECONDS", 1.0)
    webhook = registered(shop.url(), types=[BALANCE], batch=100)
    wallets = [api.open(deposit="1") for _ in range(5)]

    def hang_on_the_first(connection: socket.socket, request: Request) -> bool:
        is_bad = any(event["subject"] == wallets[0] for event in request.events)
        return (hanging if is_bad else take)(connection, request)

    shop.behave = hang_on_the_first
    one_round(webhook, destination)
    assert {str(row.wallet_id) for row in parked(webhook)} == set(wallets)
    make_retries_due(webhook)
    one_round(webhook, destination)
    assert [str(row.wallet_id) for row in parked(webhook)] == wallets[:1]
    shop.drop_connections()


# --- One row for a wallet ---------------------------------------------------------------------------
@pytest.mark.slow
def test_refused_wallet_has_one_row_for_all_later_events(
    api: Api, shop: Receiver, destination: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = registered(shop.url(), types=["wallet.operation.completed", BALANCE], batch=500)
    refused_wallet = api.open()
    shop.behave = refusing(refused_wallet)
    deposits(refused_wallet, 10_000)  # two events each
    run_until_idle(webhook, destination)
    (row,) = parked(webhook)
    assert (row.event, row.last_error) == (None, "answered 500")
    other = api.open(deposit="1")
    one_round(webhook, destination)
    assert len(shop.of(other)) == 2
    shop.behave = take
    monkeypatch.setattr(parking, "MAX_ENTRIES_PER_WALLET", 1000)
    shop.requests.clear()
    make_retries_due(webhook)
    run_until_idle(webhook, destination)
    kinds = [(event["data"]["sequence"], event["type"]) for event in shop.of(refused_wallet)]
    wanted = [
        (number, kind) for number in range(1, 10_001) for kind in ("wallet.operation.completed", BALANCE)
    ]
    assert kinds == wanted
    assert parked(webhook) == []


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("entries", [1, 2, 20])
def test_order_is_kept_after_refusals(  # noqa: PLR0913, PLR0917
    api: Api,
    shop: Receiver,
    destination: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    entries: int,
) -> None:
    monkeypatch.setattr(parking, "MAX_ENTRIES_PER_WALLET", entries)
    webhook = registered(shop.url(), batch=batch)
    wallet = api.open()
    refused: set[str] = set()
    shop.behave = refusing_events(refused)
    for _ in range(5):
        operation = api.deposit(wallet, "1").json["id"]
        refused.add(
            f"{operation}:balance"
        )  # of each entry, the first event is accepted and the second refused
    run_until_idle(webhook, destination)
    for _ in range(5):
        (row,) = parked(webhook)
        assert row.event_id in refused
        refused.remove(row.event_id)
        api.deposit(wallet, "1")
        make_retries_due(webhook)
        run_until_idle(webhook, destination)
    assert parked(webhook) == []
    taken = [event["id"] for request in shop.requests for event in request.events]
    wanted = [f"{wallet}:opened"] + [
        f"{operation['id']}:{end}"
        for operation in reversed(api.history(wallet))
        for end in ("completed", "balance")
    ]
    assert list(dict.fromkeys(taken)) == wanted


def test_events_of_other_types_are_skipped(
    api: Api, shop: Receiver, destination: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The types change, and a page of the wallet has no event of these types."""
    monkeypatch.setattr(parking, "MAX_ENTRIES_PER_WALLET", 2)
    webhook = registered(shop.url(), types=["wallet.opened", "wallet.hold.placed"])
    wallet = api.open()
    shop.behave = fail
    run_until_idle(webhook, destination)
    for _ in range(7):
        api.deposit(wallet, "1")
    hold = api.hold(wallet, "1").json["id"]
    run_until_idle(webhook, destination)
    webhook_registry.change(webhook.id, "", types=["wallet.hold.placed"])
    shop.behave = take
    make_retries_due(webhook)
    shop.requests.clear()
    run_until_idle(webhook, destination)
    assert shop.ids_of(wallet) == [f"{hold}:placed"]
    assert parked(webhook) == []


def test_retried_event_is_identical_to_the_byte(api: Api, shop: Receiver, destination: Webhook) -> None:
    """Later changes of the wallet and the hold do not affect it."""
    webhook = registered(shop.url())
    begin = delivery_state._columns(delivery_state.position_of(webhook))
    wallet = api.open(label="till", metadata={"shop": 1})
    api.deposit(wallet, "5", description="Grüße", metadata={"order": 1})
    hold = api.hold(wallet, "4").json["id"]
    run_until_idle(webhook, destination)
    first = {request.ids[0]: request.body for request in shop.requests}
    Subscriber.objects.filter(id=webhook.id).update(**begin)
    api.capture(hold, "3")
    api.patch(f"/wallets/{wallet}", {"label": "other", "metadata": {}, "status": "FROZEN"})
    shop.behave = refusing(wallet)
    run_until_idle(webhook, destination)
    shop.behave = take
    shop.requests.clear()
    make_retries_due(webhook)
    run_until_idle(webhook, destination)
    second = {request.ids[0]: request.body for request in shop.requests}
    assert len(first) == 4
    assert {id: second[id] for id in first} == first


# --- Crashes ----------------------------------------------------------------------------------------
class CrashingDestination:
    """A destination whose relay crashes after the delivery, before it is recorded."""

    def __init__(self, destination: Webhook) -> None:
        self._destination = destination

    def deliver(self, *arguments: Any) -> tuple[dict[str, Failure], list[Delivery]]:
        self._destination.deliver(*arguments)
        raise KeyboardInterrupt

    def close(self) -> None: ...


def test_crash_after_a_delivery_repeats_and_loses_nothing(
    api: Api, shop: Receiver, destination: Webhook
) -> None:
    webhook = registered(shop.url(), types=[BALANCE])
    wallet = api.open(deposit="1")
    shop.behave = fail
    run_until_idle(webhook, destination)
    for _ in range(3):
        api.deposit(wallet, "1")
    shop.behave = take
    shop.requests.clear()
    before = [*parked(webhook)]
    for _ in range(2):
        make_retries_due(webhook)
        with pytest.raises(KeyboardInterrupt):
            one_round(webhook, CrashingDestination(destination))
        assert [row.event_id for row in parked(webhook)] == [before[0].event_id]
    run_until_idle(webhook, destination)
    assert sequences(shop, wallet) == [1, 2, 3, 4] * 3
    assert parked(webhook) == []


def test_overtaken_relay_changes_nothing(api: Api, shop: Receiver, destination: Webhook) -> None:
    webhook = registered(shop.url(), types=[BALANCE])
    wallet = api.open(deposit="1")
    shop.behave = fail
    run_until_idle(webhook, destination)
    make_retries_due(webhook)

    def other_relay_goes_on(peer: socket.socket, request: Request) -> bool:
        Subscriber.objects.filter(id=webhook.id).update(begin_xid="999999999", end_xid=None)
        connection.close()
        return take(peer, request)

    shop.behave = other_relay_goes_on
    with pytest.raises(Overtaken):
        one_round(webhook, destination)
    assert [str(row.wallet_id) for row in parked(webhook)] == [wallet]


def test_entry_with_an_earlier_time_sets_the_wallet_back(
    api: Api, shop: Receiver, destination: Webhook
) -> None:
    """The expiry of a hold can be microseconds before an operation that was committed earlier."""
    webhook = registered(shop.url(), types=[BALANCE])
    wallet = api.open(deposit="1")
    shop.behave = fail
    run_until_idle(webhook, destination)
    (row,) = parked(webhook)
    assert row.entry_at is not None
    earlier = (row.entry_at - timedelta(microseconds=1), uuid4())
    later = (row.entry_at + timedelta(microseconds=1), uuid4())
    hold = uuid4()
    for place, wanted in ((later, row.entry_at), (earlier, earlier[0])):
        late = Event(f"{hold}:expired", "wallet.hold.expired", UUID(wallet), b"", place)
        parking.set_back(webhook, [late])
        row.refresh_from_db()
        assert row.entry_at == wanted
    assert row.event_id == f"{hold}:expired"


# --- Dead letters -----------------------------------------------------------------------------------
def expire_retries(webhook: Subscriber, settings: LazySettings) -> None:
    long_ago = timezone.now() - timedelta(days=settings.EVENTS_RETRY_DAYS)
    ParkedEvent.objects.filter(subscriber=webhook).update(created_at=long_ago)
    make_retries_due(webhook)


def test_wallet_continues_after_a_dead_letter(
    api: Api, shop: Receiver, destination: Webhook, settings: LazySettings
) -> None:
    webhook = registered(shop.url(), types=[BALANCE])
    wallet = api.open(deposit="1")
    poison = f"{api.history(wallet)[0]['id']}:balance"
    shop.behave = refusing_events({poison})
    run_until_idle(webhook, destination)
    for _ in range(3):
        api.deposit(wallet, "1")
    run_until_idle(webhook, destination)
    assert sequences(shop, wallet) == [1]
    expire_retries(webhook, settings)
    run_until_idle(webhook, destination)
    (letter,) = parked(webhook, "DEAD")
    assert (letter.event_id, letter.entry_at, letter.event) == (poison, None, None)
    assert sequences(shop, wallet)[-3:] == [2, 3, 4]
    assert parked(webhook) == []


def test_next_refused_event_has_its_own_retry_period(
    api: Api, shop: Receiver, destination: Webhook, settings: LazySettings
) -> None:
    webhook = registered(shop.url(), types=[BALANCE])
    wallet = api.open(deposit="1")
    shop.behave = refusing(wallet)
    run_until_idle(webhook, destination)
    api.deposit(wallet, "1")
    expire_retries(webhook, settings)
    run_until_idle(webhook, destination)
    (letter,), (waiting,) = parked(webhook, "DEAD"), parked(webhook)
    newest, oldest = api.history(wallet)
    assert letter.event_id == f"{oldest['id']}:balance"
    assert (waiting.event_id, waiting.attempts) == (f"{newest['id']}:balance", 1)
    assert timezone.now() - waiting.created_at < timedelta(minutes=1)


def test_replayed_dead_letter_is_sent_alone_and_new_events_wait_behind_it(
    api: Api, shop: Receiver, destination: Webhook, settings: LazySettings
) -> None:
    webhook = registered(shop.url(), types=[BALANCE])
    wallet = api.open(deposit="1")
    shop.behave = refusing(wallet)
    run_until_idle(webhook, destination)
    expire_retries(webhook, settings)
    run_until_idle(webhook, destination)
    shop.behave = take
    api.deposit(wallet, "1")
    run_until_idle(webhook, destination)
    shop.behave = refusing(wallet)
    shop.requests.clear()
    assert webhook_registry.replay(webhook.id, "") == 1
    run_until_idle(webhook, destination)
    api.deposit(wallet, "1")
    run_until_idle(webhook, destination)
    assert set(sequences(shop, wallet)) == {1}
    assert [row.entry_at is None for row in parked(webhook)] == [True, False]
    shop.behave = take
    shop.requests.clear()
    make_retries_due(webhook)
    run_until_idle(webhook, destination)
    assert sequences(shop, wallet) == [1, 3]
    assert parked(webhook) == parked(webhook, "DEAD") == []


def test_deleted_dead_letter_is_never_sent(
    api: Api, shop: Receiver, destination: Webhook, settings: LazySettings
) -> None:
    webhook = registered(shop.url(), types=[BALANCE])
    wallet = api.open(deposit="1")
    shop.behave = fail
    run_until_idle(webhook, destination)
    expire_retries(webhook, settings)
    run_until_idle(webhook, destination)
    assert webhook_registry.forget(webhook.id, "") == 1
    shop.behave = take
    shop.requests.clear()
    make_retries_due(webhook)
    api.deposit(wallet, "1")
    run_until_idle(webhook, destination)
    assert sequences(shop, wallet) == [2]


# --- Rows of code before version 7 ------------------------------------------------------------------
def park_as_version_6(webhook: Subscriber, events: Sequence[dict[str, Any]], **columns: Any) -> None:
    """Park the events as version 6 did: one row for each, with the event's text."""
    for event in events:
        ParkedEvent.objects.create(
            subscriber=webhook,
            event_id=event["id"],
            type=event["type"],
            wallet_id=event["subject"],
            event="the text that was stored",
            **{"next_attempt_at": PAST, **columns},
        )


def test_rows_of_version_6_are_delivered_in_order(api: Api, shop: Receiver, destination: Webhook) -> None:
    webhook = registered(shop.url(), types=["wallet.opened", BALANCE])
    wallet, other = api.open(), api.open(deposit="1")
    for _ in range(4):
        api.deposit(wallet, "1")
    run_until_idle(webhook, destination)
    events = [*shop.of(wallet), *shop.of(other)]
    park_as_version_6(webhook, events)
    shop.requests.clear()
    shop.behave = refusing(wallet)
    api.deposit(wallet, "1"), api.deposit(other, "1")
    run_until_idle(webhook, destination)
    assert len(shop.of(other)) == 3
    assert len(parked(webhook)) == 6  # five of version 6, and one with the position after them
    shop.behave = take
    make_retries_due(webhook)
    shop.requests.clear()
    run_until_idle(webhook, destination)
    assert shop.of(wallet)[:-1] == events[:5]
    assert shop.of(wallet)[-1]["data"]["sequence"] == 5
    assert parked(webhook) == []


def test_duplicate_row_of_a_version_6_relay_is_deleted(
    api: Api, shop: Receiver, destination: Webhook
) -> None:
    """During an upgrade, an old relay may park events that a row with a position covers."""
    webhook = registered(shop.url(), types=[BALANCE])
    wallet = api.open(deposit="1")
    shop.behave = fail
    run_until_idle(webhook, destination)
    last = api.deposit(wallet, "1").json["id"]
    run_until_idle(webhook, destination)
    event = {"id": f"{last}:balance", "type": BALANCE, "subject": wallet}
    park_as_version_6(webhook, [event])
    shop.behave = refusing_events({event["id"]})
    make_retries_due(webhook)
    run_until_idle(webhook, destination)
    (row,) = parked(webhook)
    assert (row.event_id, row.entry_at is None) == (event["id"], False)
    shop.behave = take
    make_retries_due(webhook)
    run_until_idle(webhook, destination)
    assert parked(webhook) == []

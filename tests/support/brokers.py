"""Checks of the delivery to any broker, through real relay processes."""

import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol
from uuid import UUID, uuid4

from django.utils.timezone import now

from tests.support.client import Api
from tests.support.events import relaying, wait_until
from wallets.events.cloudevents import Event
from wallets.models import ParkedEvent, Subscriber

EventData = dict[str, Any]


class Broker(Protocol):
    @property
    def url(self) -> str: ...

    def received(self) -> Sequence[EventData]:
        """Return all events that have arrived; those of a wallet are in order of arrival."""
        ...

    def stop(self) -> None: ...
    def start(self) -> None: ...


@contextmanager
def relaying_to(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a relay with this broker until the end of the block, when SIGKILL ends it."""
    with relaying(EVENTS_BROKER_URL=url) as relay:
        wait_until(lambda: Subscriber.objects.filter(kind="BROKER"), "the broker has no subscriber")
        yield relay


def forget_brokers() -> None:
    Subscriber.objects.filter(kind="BROKER").delete()


def events(wallets: int, each: int) -> list[Event]:
    """Make events of several wallets in turn, `each` of one wallet."""
    ids = [uuid4() for _ in range(wallets)]
    return [event(id, number) for number in range(each) for id in ids]


def event(wallet_id: UUID, number: int, label: str = "") -> Event:
    id, data = f"{uuid4()}:balance", {"sequence": number, "label": label}
    content = json.dumps({"id": id, "subject": str(wallet_id), "data": data}).encode()
    return Event(id, "wallet.balance.changed", wallet_id, content)


def ids_of(events: Sequence[Event], wallet_id: UUID) -> list[str]:
    return [event.id for event in events if event.wallet_id == wallet_id]


def first_ids(received_events: Sequence[EventData], wallet_id: UUID | str) -> list[str]:
    """Return the ids of the wallet's events, in order of first arrival."""
    return list(dict.fromkeys(event["id"] for event in received_events if event["subject"] == str(wallet_id)))


def repeats(received_events: Sequence[EventData]) -> list[str]:
    return [id for id, times in Counter(event["id"] for event in received_events).items() if times > 1]


def sequences(received_events: Sequence[EventData], wallet_id: str) -> list[int]:
    """Return the sequences of the wallet's completed operations, in order of first arrival."""
    completed = {
        event["id"]: event["data"]["sequence"]
        for event in received_events
        if event["subject"] == wallet_id and event["type"] == "wallet.operation.completed"
    }
    return list(completed.values())


def deposit_at_random(api: Api, wallets: Sequence[str], times: int) -> None:
    dice = random.Random(times)  # noqa: S311
    for _ in range(times):
        wallet_id = dice.choice(wallets)
        deposit = {"walletId": wallet_id, "operationType": "DEPOSIT", "amount": 1}
        assert api.bulk(*[deposit] * dice.randint(1, 9)).status == 200


def wait_for_all(api: Api, broker: Broker, wallets: Sequence[str]) -> None:
    expected = {id: list(range(1, api.wallet(id)["sequence"] + 1)) for id in wallets}

    def has_all() -> bool:
        received = broker.received()
        return {id: sequences(received, id) for id in wallets} == expected

    wait_until(has_all, "not all events have arrived in order")


def make_retries_due() -> None:
    """Make all retries of the brokers due now."""
    Subscriber.objects.filter(kind="BROKER").update(retry_at=None)
    ParkedEvent.objects.filter(subscriber__kind="BROKER").update(next_attempt_at=now())


# --- Checks ---------------------------------------------------------------------------------------------
def check_each_event_arrives_once_in_order(api: Api, broker: Broker) -> None:
    wallets = [api.open() for _ in range(5)]
    before = api.open(deposit="1")
    with relaying_to(broker.url) as relay:
        deposit_at_random(api, wallets, 60)
        wait_for_all(api, broker, wallets)
        api.deposit(before, "1")
        wait_until(lambda: sequences(broker.received(), before), "the last event does not arrive")
        relay.terminate()
        assert relay.wait(30) == 0
    assert sequences(broker.received(), before) == [2], "an earlier event was delivered"
    assert repeats(broker.received()) == []


def check_restarted_broker_gets_all_events(api: Api, broker: Broker) -> None:
    wallets = [api.open() for _ in range(5)]
    with relaying_to(broker.url), ThreadPoolExecutor(1) as pool:
        deposits = pool.submit(deposit_at_random, api, wallets, 150)
        wait_until(lambda: len(broker.received()) > 100, "no event arrives")
        broker.stop()
        deposits.result()
        deposit_at_random(api, wallets, 20)
        wait_until(lambda: Subscriber.objects.get(kind="BROKER").failures, "no failure is recorded")
        broker.start()
        make_retries_due()
        wait_for_all(api, broker, wallets)
        wait_until(_no_event_waits, "an event still waits")


def _no_event_waits() -> bool:
    make_retries_due()  # events that failed during the restart have long pauses
    return not ParkedEvent.objects.filter(subscriber__kind="BROKER").exists()


def check_killed_relay_loses_no_event(api: Api, broker: Broker) -> None:
    wallets = [api.open() for _ in range(5)]
    for _ in range(4):
        before = len(broker.received())
        with relaying_to(broker.url):
            deposit_at_random(api, wallets, 30)
            wait_until(lambda before=before: len(broker.received()) > before, "no event arrives")  # type: ignore[misc]
    with relaying_to(broker.url):
        wait_for_all(api, broker, wallets)


def check_failure_is_recorded_without_the_secret(api: Api, broker: Broker, reason: str, secret: str) -> None:
    with relaying_to(broker.url):
        api.open()
        wait_until(lambda: Subscriber.objects.get(kind="BROKER").failures, "no failure is recorded")
    found = Subscriber.objects.get(kind="BROKER")
    assert reason in found.last_error
    assert secret not in found.last_error
    assert all(secret not in parked.last_error for parked in ParkedEvent.objects.filter(subscriber=found))

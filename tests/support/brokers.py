"""What every broker has to be told, whatever happens, through the relay as it really runs."""

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

Told = dict[str, Any]


class Broker(Protocol):
    @property
    def url(self) -> str: ...

    def received(self) -> Sequence[Told]:
        """All that has arrived up to now, each wallet's in the order in which it came."""
        ...

    def stop(self) -> None: ...
    def start(self) -> None: ...


@contextmanager
def told(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A relay tells the broker, for the first time from now on; it ends with SIGKILL."""
    with relaying(EVENTS_BROKER_URL=url) as relay:
        wait_until(lambda: Subscriber.objects.filter(kind="BROKER"), "the broker is not signed up")
        yield relay


def forget_brokers() -> None:
    Subscriber.objects.filter(kind="BROKER").delete()


def events(wallets: int, each: int) -> list[Event]:
    """Of several wallets in turn, for a destination that is called without a relay."""
    ids = [uuid4() for _ in range(wallets)]
    return [event(id, number) for number in range(each) for id in ids]


def event(wallet_id: UUID, number: int, label: str = "") -> Event:
    id, data = f"{uuid4()}:balance", {"sequence": number, "label": label}
    content = json.dumps({"id": id, "subject": str(wallet_id), "data": data}).encode()
    return Event(id, "wallet.balance.changed", wallet_id, content)


def ids_of(events: Sequence[Event], wallet_id: UUID) -> list[str]:
    return [event.id for event in events if event.wallet_id == wallet_id]


def first_ids(told: Sequence[Told], wallet_id: UUID | str) -> list[str]:
    """In the order in which they came first: repeats are allowed."""
    return list(dict.fromkeys(event["id"] for event in told if event["subject"] == str(wallet_id)))


def repeats(told: Sequence[Told]) -> list[str]:
    return [id for id, times in Counter(event["id"] for event in told).items() if times > 1]


def sequences(told: Sequence[Told], wallet_id: str) -> list[int]:
    """Of the completed operations, in the order in which they came first."""
    completed = {
        event["id"]: event["data"]["sequence"]
        for event in told
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

    def is_all_there() -> bool:
        received = broker.received()
        return {id: sequences(received, id) for id in wallets} == expected

    wait_until(is_all_there, "not all has arrived in order")


def hurry() -> None:
    """Let what waits for better times be tried now."""
    Subscriber.objects.filter(kind="BROKER").update(retry_at=None)
    ParkedEvent.objects.filter(subscriber__kind="BROKER").update(next_attempt_at=now())


# --- What happens ---------------------------------------------------------------------------------------
def all_arrives_once_and_in_order(api: Api, broker: Broker) -> None:
    wallets = [api.open() for _ in range(5)]
    before = api.open(deposit="1")
    with told(broker.url) as relay:
        deposit_at_random(api, wallets, 60)
        wait_for_all(api, broker, wallets)
        api.deposit(before, "1")
        wait_until(lambda: sequences(broker.received(), before), "the last does not arrive")
        relay.terminate()
        assert relay.wait(30) == 0
    assert sequences(broker.received(), before) == [2], "it was told what happened before"
    assert repeats(broker.received()) == []


def a_broker_that_dies_has_it_all_in_the_end(api: Api, broker: Broker) -> None:
    wallets = [api.open() for _ in range(5)]
    with told(broker.url), ThreadPoolExecutor(1) as pool:
        going_on = pool.submit(deposit_at_random, api, wallets, 150)
        wait_until(lambda: len(broker.received()) > 100, "nothing arrives")
        broker.stop()
        going_on.result()
        deposit_at_random(api, wallets, 20)
        wait_until(lambda: Subscriber.objects.get(kind="BROKER").failures, "nobody notices")
        broker.start()
        hurry()
        wait_for_all(api, broker, wallets)
        wait_until(_nothing_waits, "something is still waiting")


def _nothing_waits() -> bool:
    hurry()  # what failed while the broker came back waits for longer and longer
    return not ParkedEvent.objects.filter(subscriber__kind="BROKER").exists()


def a_relay_that_is_killed_loses_nothing(api: Api, broker: Broker) -> None:
    wallets = [api.open() for _ in range(5)]
    for _ in range(4):
        before = len(broker.received())
        with told(broker.url):
            deposit_at_random(api, wallets, 30)
            wait_until(lambda before=before: len(broker.received()) > before, "nothing arrives")  # type: ignore[misc]
    with told(broker.url):
        wait_for_all(api, broker, wallets)


def it_is_said_why_nothing_arrives(api: Api, broker: Broker, why: str, secret: str) -> None:
    with told(broker.url):
        api.open()
        wait_until(lambda: Subscriber.objects.get(kind="BROKER").failures, "nothing fails")
    found = Subscriber.objects.get(kind="BROKER")
    assert why in found.last_error
    assert secret not in found.last_error
    assert all(secret not in parked.last_error for parked in ParkedEvent.objects.filter(subscriber=found))

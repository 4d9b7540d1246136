"""The relay as a process: each subscriber gets all events, in the order of each wallet, despite crashes."""

import random
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from django.db import DEFAULT_DB_ALIAS
from django.utils.timezone import now

from tests.support.client import Api, OverHttp
from tests.support.cluster import cluster
from tests.support.events import relaying, subscribed, wait_until
from tests.support.faults.proxy import Loss, Proxy
from tests.support.receivers import Receiver, fail, receiver, refusing, take
from wallets.advisory_locks import LockClass, lock_key
from wallets.events import delivery_state, log, parking
from wallets.events.cloudevents import Event
from wallets.events.delivery_state import DeliveryBatch, position_of, settle, standings
from wallets.events.relay import MAX_ENTRIES_IN_FLIGHT
from wallets.events.retries import Failure
from wallets.ledger.commands import Deposit
from wallets.ledger.execute import execute
from wallets.management.commands.relay_events import status
from wallets.models import Delivery, Subscriber, WalletChange


def has_sequences(told: Receiver, wallet: str, upto: int) -> bool:
    return len(told.sequences(wallet)) == upto


def test_new_subscriber_gets_events_from_now_on(api: Api) -> None:
    wallet = api.open(deposit="1")
    with receiver() as told, subscribed(told.url()), relaying():
        api.deposit(wallet, "2")
        api.withdraw(wallet, "4")
        wait_until(lambda: len(told.of(wallet)) == 3, "not all events have arrived")
    assert [(event["type"], event["time"]) for event in told.of(wallet)] == [
        (kind, operation["createdAt"])
        for operation in reversed(api.history(wallet)[:2])
        for kind in (
            ("wallet.operation.completed", "wallet.balance.changed")
            if operation["status"] == "COMPLETED"
            else ("wallet.operation.rejected",)
        )
    ]
    assert told.of(wallet)[0]["data"] == api.history(wallet)[1]


@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.slow
def test_events_of_each_wallet_arrive_in_order(service: str, live_api: Api, batch: int) -> None:
    wallets = [live_api.open() for _ in range(5)]
    with receiver() as told, subscribed(told.url(), batch=batch), relaying(), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: deposit_at_random(service, wallets, 50, seed), range(4)))
        wait_until(
            lambda: sum(len(told.sequences(each)) for each in wallets) == 200, "not all events have arrived"
        )
    for wallet in wallets:
        assert told.sequences(wallet) == list(range(1, live_api.wallet(wallet)["sequence"] + 1))
    assert not [id for id, times in Counter(event["id"] for event in told.events).items() if times > 1]


def deposit_at_random(service: str, wallets: list[str], times: int, seed: int) -> None:
    dice, sender = random.Random(seed), OverHttp(service)  # noqa: S311
    with closing(sender.connection):
        for _ in range(times):
            assert Api(sender).deposit(dice.choice(wallets), 1).status == 201


def test_window_ending_with_a_full_page_is_passed(api: Api) -> None:
    wallet = api.open()
    wait_until(lambda: log.horizon() > newest_transaction(), "the opening of the wallet is above the horizon")
    with receiver() as told, subscribed(told.url(), batch=500), relaying():
        execute([Deposit(wallet_id=UUID(wallet), amount=Decimal(1)) for _ in range(MAX_ENTRIES_IN_FLIGHT)])
        wait_until(
            lambda: has_sequences(told, wallet, MAX_ENTRIES_IN_FLIGHT), "not all of the page has arrived"
        )
        api.deposit(wallet, "1")
        wait_until(
            lambda: has_sequences(told, wallet, MAX_ENTRIES_IN_FLIGHT + 1),
            "the next event does not arrive",
        )


def newest_transaction() -> int:
    return max(int(each) for each in WalletChange.objects.values_list("transaction_id", flat=True))


def test_subscriber_gets_only_its_types(api: Api) -> None:
    wallet = api.open()
    with receiver() as told, subscribed(told.url(), types=["wallet.balance.changed"]), relaying():
        api.withdraw(wallet, "1")
        api.deposit(wallet, "1")
        wait_until(lambda: told.of(wallet), "no event arrives")
        api.deposit(wallet, "1")
        wait_until(lambda: len(told.of(wallet)) == 2, "the second does not arrive")
    assert {event["type"] for event in told.events} == {"wallet.balance.changed"}
    assert [event["data"]["balance"] for event in told.of(wallet)] == ["1.00", "2.00"]


@pytest.mark.slow
def test_repeatedly_killed_relay_loses_no_event(api: Api) -> None:
    wallets = [api.open() for _ in range(3)]
    with receiver() as told, subscribed(told.url(), batch=3):
        for _ in range(4):
            before = len(told.requests)
            with relaying():  # the end of the block sends SIGKILL
                for number in range(30):
                    api.deposit(wallets[number % 3], "1")
                wait_until(lambda before=before: len(told.requests) > before + 3, "no event arrives")  # type: ignore[misc]
        with relaying():
            wait_until(lambda: all(has_sequences(told, each, 40) for each in wallets), "an event is lost")
    for wallet in wallets:
        assert told.sequences(wallet) == list(range(1, 41))


@pytest.mark.parametrize("loss", [Loss.SILENT_COMMIT, Loss.SILENT_ANSWER])
@pytest.mark.slow
def test_lost_database_response_only_delays_delivery(api: Api, loss: Loss) -> None:
    wallet = api.open()
    with Proxy(cluster.port) as proxy, receiver() as told, subscribed(told.url()):
        proxied_url = (
            cluster.url().replace(f":{cluster.port}/", f":{proxy.port}/")
            + "?sslmode=disable&gssencmode=disable"
        )
        with relaying(DATABASE_URL=proxied_url, OPERATION_DEADLINE="1"):
            api.deposit(wallet, "1")
            wait_until(lambda: has_sequences(told, wallet, 1), "no event arrives")
            proxy.lose(loss)
            api.deposit(wallet, "1")
            wait_until(lambda: proxy.has_lost_all, "nothing is recorded")
            api.deposit(wallet, "1")
            wait_until(lambda: has_sequences(told, wallet, 3), "the relay stays blocked")
    assert told.sequences(wallet) == [1, 2, 3]


def test_another_relay_takes_over_from_a_killed_one(api: Api) -> None:
    wallet = api.open()
    with receiver() as told, subscribed(told.url()), relaying() as first:
        api.deposit(wallet, "1")
        wait_until(lambda: has_sequences(told, wallet, 1), "the first relay does not deliver")
        with relaying():
            api.deposit(wallet, "1")
            wait_until(lambda: has_sequences(told, wallet, 2), "no relay delivers")
            first.kill()
            first.wait()
            api.deposit(wallet, "1")
            wait_until(lambda: has_sequences(told, wallet, 3), "the second relay does not take over")
    assert told.sequences(wallet) == [1, 2, 3]


def test_several_relays_deliver_each_event_once(api: Api) -> None:
    wallet = api.open()
    with ExitStack() as stack:
        told = [stack.enter_context(receiver()) for _ in range(3)]
        for each in told:
            stack.enter_context(subscribed(each.url()))
        for _ in range(3):
            stack.enter_context(relaying())
        for _ in range(20):
            api.deposit(wallet, "1")
        wait_until(
            lambda: all(has_sequences(each, wallet, 20) for each in told), "not all events have arrived"
        )
    for each in told:
        assert each.sequences(wallet) == list(range(1, 21))
        assert len({event["id"] for event in each.events}) == len(each.events)


def test_sigterm_ends_the_relay_after_its_current_batch(api: Api) -> None:
    wallet = api.open()
    with receiver() as told, subscribed(told.url()) as subscriber, relaying() as relay:
        api.deposit(wallet, "1")
        wait_until(lambda: has_sequences(told, wallet, 1), "no event arrives")
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(30) == 0
        subscriber.refresh_from_db()
        standing = next(each for each in standings() if each.name == subscriber.name)
        assert (standing.lag, standing.parked, standing.dead) == (0, 0, 0)


def test_failing_subscriber_delays_no_other(api: Api) -> None:
    wallet = api.open()
    with (
        receiver(fail) as bad,
        receiver() as good,
        subscribed(bad.url()) as subscriber,
        subscribed(good.url()),
        relaying(),
    ):
        for _ in range(5):
            api.deposit(wallet, "1")
        wait_until(lambda: has_sequences(good, wallet, 5), "the working subscriber is delayed")
        wait_until(lambda: Subscriber.objects.get(id=subscriber.id).failures, "no failure is recorded")
        assert bad.sequences(wallet) == [1]
        line = next(each for each in status(standings()).splitlines() if each.startswith(subscriber.name))
        assert "1 parked wallets" in line
        bad.behave = take
        wait_until(lambda: has_sequences(bad, wallet, 5), "the event is not retried")
    assert bad.sequences(wallet) == [1, 2, 3, 4, 5]


def test_refused_events_delay_no_other_wallet(api: Api) -> None:
    """Traffic is so low that no other event is accepted between the refusals."""
    bad, worse, good = api.open(), api.open(), api.open()
    with receiver(refusing(bad, worse)) as told, subscribed(told.url()) as subscriber, relaying():
        for wallet in (bad, worse):
            api.deposit(wallet, "1")
        wait_until(
            lambda: waiting_wallets(subscriber) == {UUID(bad), UUID(worse)}, "the wallets are not parked"
        )
        parking.waiting(subscriber).update(next_attempt_at=now() + timedelta(hours=1))
        api.deposit(good, "1")
        wait_until(lambda: has_sequences(told, good, 1), "the third wallet is delayed")
        wait_until(
            lambda: not Subscriber.objects.get(id=subscriber.id).failures, "the failures are not reset"
        )


def waiting_wallets(subscriber: Subscriber) -> set[UUID]:
    return set(parking.waiting(subscriber).values_list("wallet_id", flat=True))


def test_a_hold_may_have_the_id_of_its_wallet(api: Api) -> None:
    wallet = api.open(deposit="5")
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    with receiver() as told, subscribed(told.url()), relaying():
        assert api.hold(wallet, "5", id=wallet, expiresAt=soon).status == 201
        wait_until(
            lambda: "wallet.hold.expired" in {event["type"] for event in told.of(wallet)},
            "the hold does not expire",
        )
        assert api.deposit(wallet, "1").status == 201
        wait_until(lambda: has_sequences(told, wallet, 1), "the relay does not continue")
    expired = [event for event in told.of(wallet) if event["type"] == "wallet.hold.expired"]
    assert [(event["id"], event["data"]["id"]) for event in expired] == [(f"{wallet}:expired", wallet)]


def test_operator_change_during_delivery_is_kept(api: Api) -> None:
    """A failure at the former URL is no evidence against the new one."""
    with subscribed("http://127.0.0.1:1/") as seen:
        batch = DeliveryBatch(
            seen, position_of(seen), fresh=[Event("x:opened", "wallet.opened", UUID(int=1), b"{}")]
        )
        Subscriber.objects.filter(id=seen.id).update(url="http://127.0.0.1:2/")
        seen.is_enabled = False  # as after a 410
        settle(batch, {"x:opened": Failure("answered 410", was_tried=True)})
        seen.refresh_from_db()
        assert (seen.failures, seen.retry_at, seen.is_enabled) == (0, None, True)
        assert parking.waiting(seen).count() == 1


def test_one_relay_at_a_time_deletes_old_deliveries(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_state, "MAX_KEPT_DELIVERIES", 2)
    with subscribed("http://127.0.0.1:1/") as subscriber, psycopg.connect(cluster.url("postgres")) as other:
        for number in range(4):
            Delivery.objects.create(
                subscriber=subscriber, event_id=str(number), events=1, at=now(), duration=timedelta(0)
            )
        other.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(LockClass.OLD_DELIVERIES)])
        delivery_state.forget_old_deliveries(DEFAULT_DB_ALIAS)
        assert Delivery.objects.filter(subscriber=subscriber).count() == 4
        other.rollback()
        delivery_state.forget_old_deliveries(DEFAULT_DB_ALIAS)
        kept = (
            Delivery.objects.filter(subscriber=subscriber).order_by("id").values_list("event_id", flat=True)
        )
        assert list(kept) == ["2", "3"]

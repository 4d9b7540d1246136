"""The consumers in examples/: every event reaches them and counts once."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pika
import pytest
import standardwebhooks
from confluent_kafka import Producer
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPChannelError

from local.postgres import free_port
from tests.support import brokers
from tests.support.client import Api
from tests.support.events import relaying, subscribed, wait_until
from tests.support.kafka import Cluster, cluster
from tests.support.rabbitmq import Server
from wallets.events import webhooks
from wallets.events.destinations import EXCHANGE_OR_TOPIC
from wallets.models import Subscriber

pytestmark = pytest.mark.slow

EXAMPLES = Path("examples")
A_TWICE_AND_B = [("a", "1.10"), ("a", "1.10"), ("b", "2.30")]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "balances.sqlite3"


@contextmanager
def example(name: str, database: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    with output(database).open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, EXAMPLES / f"{name}.py"],
            env=os.environ | {"BALANCES": str(database)} | environment,
            stdout=file,
        )
    try:
        wait_until(lambda: is_ready(database), "the example does not start")
        yield process
        assert process.poll() is None, "the example has ended"
    finally:
        process.terminate()
        process.wait(30)


def output(database: Path) -> Path:
    return database.with_suffix(".output")


def is_ready(database: Path) -> bool:
    return database.exists() and ("balance",) in select(database, "SELECT name FROM sqlite_master")


def balance(database: Path, wallet_id: str) -> str:
    found = select(database, "SELECT amount FROM balance WHERE wallet_id = ?", wallet_id)
    return str(found[0][0]) if found else ""


def select(database: Path, query: str, *parameters: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query, parameters).fetchall()


def move_money(api: Api, wallet_id: str) -> str:
    api.deposit(wallet_id, "10.10")
    api.withdraw(wallet_id, "99")
    api.withdraw(wallet_id, "0.05")
    api.deposit(wallet_id, "2")
    return api.balance(wallet_id)


def a_change(wallet_id: str, id: str, change: str) -> bytes:
    data = {"walletId": wallet_id, "change": change}
    return json.dumps({"id": id, "type": "wallet.balance.changed", "data": data}).encode()


# --- Webhooks ---------------------------------------------------------------------------------------
@pytest.fixture
def hook(database: Path) -> Iterator[Subscriber]:
    """Run the example; return its subscriber."""
    port = free_port()
    with (
        subscribed(f"http://127.0.0.1:{port}/") as subscriber,
        example("webhooks", database, WEBHOOK_SECRET=subscriber.secret, PORT=str(port)),
    ):
        wait_until(lambda: is_listening(port), "the example does not listen")
        yield subscriber


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


def sign(secret: str, timestamp: int, body: bytes) -> str:
    return standardwebhooks.Webhook(secret).sign("a", datetime.fromtimestamp(timestamp, UTC), body.decode())


def post(hook: Subscriber, body: bytes, headers: dict[str, str] | None = None, age: int = 0) -> int:
    timestamp = int(time.time()) - age
    signed = {
        "Webhook-Id": "a",
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": sign(hook.secret, timestamp, body),
    }
    request = urllib.request.Request(hook.url, body, signed | (headers or {}))  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return int(response.status)
    except HTTPError as answer:
        with answer:
            return answer.code


@pytest.mark.parametrize("batch", [1, 50])
@pytest.mark.slow
def test_webhook_example_receives_events(api: Api, database: Path, hook: Subscriber, batch: int) -> None:
    wallet_id = api.open()
    Subscriber.objects.filter(id=hook.id).update(batch=batch)
    with relaying():
        expected = move_money(api, wallet_id)
        wait_until(lambda: balance(database, wallet_id) == expected, "not all events have arrived")


def test_repeated_webhook_counts_once(database: Path, hook: Subscriber) -> None:
    first, second = a_change("w", "a", "1.10"), a_change("w", "b", "2.30")
    for body in (first, first, second, b"[" + first + b"," + second + b"]"):
        assert post(hook, body) == 204
    assert (balance(database, "w"), len(select(database, "SELECT * FROM seen"))) == ("3.40", 2)


def test_webhook_with_wrong_signature_or_time_is_refused(database: Path, hook: Subscriber) -> None:
    body, now = a_change("w", "a", "1.10"), int(time.time())
    wrong = sign(webhooks.new_secret(), now, body)
    assert post(hook, body, age=301) == 401
    assert post(hook, body, age=-330) == 401
    assert post(hook, body, {"Webhook-Id": "b"}) == 401
    assert post(hook, body, {"Webhook-Timestamp": "x"}) == 401
    assert post(hook, body, {"Webhook-Timestamp": str(now), "Webhook-Signature": wrong}) == 401
    assert select(database, "SELECT * FROM seen") == []
    both = f"{wrong} {sign(hook.secret, now, body)}"
    assert post(hook, body, {"Webhook-Timestamp": str(now), "Webhook-Signature": both}) == 204


# --- RabbitMQ ---------------------------------------------------------------------------------------
@contextmanager
def rabbitmq_reader(database: Path, server: Server) -> Iterator["subprocess.Popen[bytes]"]:
    with example("rabbitmq", database, AMQP_URL=server.url()) as process:
        wait_until(lambda: is_read(server), "the example does not consume")
        yield process


def is_read(server: Server) -> bool:
    with closing(pika.BlockingConnection(pika.URLParameters(server.url()))) as connection:
        try:
            found = connection.channel().queue_declare("balances", passive=True)
        except AMQPChannelError:
            return False
    return bool(found.method.consumer_count)


@pytest.mark.brokers
def test_rabbitmq_example_gets_events_sent_while_it_was_down(
    api: Api, database: Path, rabbitmq: Server
) -> None:
    wallet_id = api.open()
    with brokers.relaying_to(rabbitmq.url()):
        with rabbitmq_reader(database, rabbitmq):
            expected = move_money(api, wallet_id)
            wait_until(lambda: balance(database, wallet_id) == expected, "not all events have arrived")
        expected = move_money(api, wallet_id)
        with rabbitmq_reader(database, rabbitmq):
            wait_until(lambda: balance(database, wallet_id) == expected, "events sent meanwhile are lost")
    brokers.forget_brokers()


def test_repeated_rabbitmq_message_counts_once(database: Path, rabbitmq: Server) -> None:
    with rabbitmq_reader(database, rabbitmq), a_channel(rabbitmq) as channel:
        for id, change in A_TWICE_AND_B:
            channel.basic_publish(EXCHANGE_OR_TOPIC, "wallet.balance.changed", a_change("w", id, change))
        wait_until(lambda: balance(database, "w") == "3.40", "not all events have arrived")


@pytest.mark.brokers
def test_rabbitmq_example_reconnects(database: Path, rabbitmq: Server) -> None:
    """RabbitMQ closes the channel if a queue was declared with other arguments."""
    with a_channel(rabbitmq) as channel:
        channel.queue_delete("balances")
        channel.queue_declare("balances")
    with example("rabbitmq", database, AMQP_URL=rabbitmq.url()):
        wait_until(lambda: "PRECONDITION_FAILED" in output(database).read_text(), "the queue is not refused")
        with a_channel(rabbitmq) as channel:
            channel.queue_delete("balances")
        wait_until(lambda: is_read(rabbitmq), "the example does not consume")
        rabbitmq.control("close_all_connections", "for a test")
        wait_until(
            lambda: "CONNECTION_FORCED" in output(database).read_text(), "the example is not disconnected"
        )
        wait_until(lambda: is_read(rabbitmq), "the example does not reconnect")


@contextmanager
def a_channel(server: Server) -> Iterator[BlockingChannel]:
    with closing(pika.BlockingConnection(pika.URLParameters(server.url()))) as connection:
        yield connection.channel()


# --- Kafka ------------------------------------------------------------------------------------------
@pytest.fixture
def kafka() -> Iterator[Cluster]:
    with cluster() as running:
        yield running
    brokers.forget_brokers()


@pytest.mark.slow
def test_kafka_example_gets_events_sent_while_it_was_down(api: Api, database: Path, kafka: Cluster) -> None:
    wallet_id = api.open()
    with brokers.relaying_to(kafka.url):
        with example("kafka", database, KAFKA=kafka.address):
            expected = move_money(api, wallet_id)
            wait_until(lambda: balance(database, wallet_id) == expected, "not all events have arrived")
        expected = move_money(api, wallet_id)
        with example("kafka", database, KAFKA=kafka.address):
            wait_until(lambda: balance(database, wallet_id) == expected, "events sent meanwhile are lost")


def test_repeated_kafka_message_counts_once(database: Path, kafka: Cluster) -> None:
    with (
        closing(Producer({"bootstrap.servers": kafka.address})) as producer,
        example("kafka", database, KAFKA=kafka.address),
    ):
        for id, change in A_TWICE_AND_B:
            producer.produce(EXCHANGE_OR_TOPIC, a_change("w", id, change), key="w")
        wait_until(lambda: balance(database, "w") == "3.40", "not all events have arrived")

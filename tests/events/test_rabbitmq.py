"""Delivery to a real RabbitMQ, with failures: complete, and in the order of each wallet."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
import pytest
from django.core.exceptions import ImproperlyConfigured

from local.postgres import free_port
from tests.support import brokers
from tests.support.brokers import event, events, first_ids, ids_of
from tests.support.client import Api
from tests.support.events import wait_until
from tests.support.rabbitmq import PASSWORD, BreakableConnection, Queue, Server
from wallets.events.destinations import EXCHANGE_OR_TOPIC
from wallets.events.rabbitmq import REFUSED, RabbitMQ
from wallets.models import Subscriber

pytestmark = pytest.mark.brokers

SUBSCRIBER = Subscriber(name="rabbitmq")  # brokers get the events of all wallets


@pytest.fixture
def queue(rabbitmq: Server) -> Iterator[Queue]:
    queue = Queue(rabbitmq)
    yield queue
    queue.delete()
    brokers.forget_brokers()


@contextmanager
def destination(url: str) -> Iterator[RabbitMQ]:
    with closing(RabbitMQ(url)) as made:
        yield made


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wallets.events.rabbitmq.BROKER_TIMEOUT_SECONDS", 3.0)


# --- Through the relay ------------------------------------------------------------------------------
def test_relay_delivers_each_event_once_in_order(api: Api, queue: Queue) -> None:
    brokers.check_each_event_arrives_once_in_order(api, queue)


def test_restarted_broker_gets_all_events(api: Api, queue: Queue) -> None:
    brokers.check_restarted_broker_gets_all_events(api, queue)


def test_killed_relay_loses_no_event(api: Api, queue: Queue) -> None:
    brokers.check_killed_relay_loses_no_event(api, queue)


def test_wrong_password_is_recorded_without_the_password(api: Api, queue: Queue, rabbitmq: Server) -> None:
    queue.url = rabbitmq.url("not-the-secret")
    brokers.check_failure_is_recorded_without_the_secret(api, queue, "ACCESS_REFUSED", "not-the-secret")


def test_relay_with_an_invalid_url_exits_with_an_error() -> None:
    environment = os.environ | {"EVENTS_BROKER_URL": f"amqp://walletsvc:{PASSWORD}@127.0.0.1/?nothing=1"}
    command = [sys.executable, "manage.py", "relay_events"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    brokers.forget_brokers()
    expected = "walletsvc is not configured: EVENTS_BROKER_URL is not a valid AMQP URL\n"
    assert (done.returncode, done.stderr) == (1, expected)


# --- A message --------------------------------------------------------------------------------------
def test_message_has_the_event_and_is_persistent(queue: Queue) -> None:
    (sent,) = events(1, 1)
    with destination(queue.url) as broker:
        assert broker.deliver(SUBSCRIBER, [sent]) == ({}, [])
    assert queue.received() == [json.loads(sent.content)]
    ((frame, properties, _),) = queue.messages
    assert (frame.exchange, frame.routing_key) == (EXCHANGE_OR_TOPIC, sent.type)
    assert properties.content_type == "application/cloudevents+json"
    assert properties.delivery_mode == pika.DeliveryMode.Persistent.value
    assert (properties.message_id, properties.headers) == (sent.id, {"walletId": str(sent.wallet_id)})


def test_event_without_a_queue_is_no_failure(rabbitmq: Server) -> None:
    with destination(rabbitmq.url()) as broker:
        assert broker.deliver(SUBSCRIBER, events(2, 50)) == ({}, [])


# --- Failures ---------------------------------------------------------------------------------------
def test_events_after_a_refused_one_of_the_wallet_fail(rabbitmq: Server) -> None:
    queue = Queue(rabbitmq, **{"x-max-length": 3, "x-overflow": "reject-publish"})
    one, other = (sent.wallet_id for sent in events(2, 1))
    sent = [event(one, 1), event(other, 1), event(one, 2), event(one, 3), event(one, 4), event(other, 2)]
    with destination(queue.url) as broker:
        failures, _ = broker.deliver(SUBSCRIBER, sent)
        assert [*failures] == [sent[3].id, sent[4].id, sent[5].id]
        assert [failure.was_tried for failure in failures.values()] == [True, False, True]
        assert failures[sent[5].id].error == REFUSED
        assert len(queue.received()) == 3
        assert broker.deliver(SUBSCRIBER, sent[3:]) == ({}, [])
    queue.received()
    queue.delete()


def test_connection_lost_during_confirms_loses_no_event(queue: Queue, rabbitmq: Server) -> None:
    sent = events(5, 200)
    wallets = {each.wallet_id for each in sent}
    with BreakableConnection(rabbitmq.port) as wire, destination(rabbitmq.url(port=wire.port)) as broker:
        assert broker.deliver(SUBSCRIBER, events(1, 1)) == ({}, [])
        for _ in range(10):  # received confirms may be lost with the connection
            wire.break_after(sum(len(each.content) for each in sent) // 2)
            failures, _ = broker.deliver(SUBSCRIBER, sent)
            if 0 < len(failures) < len(sent):
                break
        assert 0 < len(failures) < len(sent), "the connection was not cut between confirms"
        for wallet_id in wallets:
            failed = [id for id in ids_of(sent, wallet_id) if id in failures]
            assert failed == ids_of(sent, wallet_id)[-len(failed) :]
            assert [failures[id].was_tried for id in failed] == [True] + [False] * (len(failed) - 1)
        assert broker.deliver(SUBSCRIBER, [each for each in sent if each.id in failures]) == ({}, [])
    received = queue.received()
    for wallet_id in wallets:
        assert first_ids(received, wallet_id) == ids_of(sent, wallet_id)


def test_restarted_broker_is_connected_again(queue: Queue) -> None:
    first, second, third = events(1, 3)
    with destination(queue.url) as broker:
        assert broker.deliver(SUBSCRIBER, [first]) == ({}, [])
        queue.stop()
        failures, _ = broker.deliver(SUBSCRIBER, [second, third])
        assert [*failures] == [second.id, third.id]
        queue.start()
        assert broker.deliver(SUBSCRIBER, [second, third]) == ({}, [])
    assert first_ids(queue.received(), first.wallet_id) == [first.id, second.id, third.id]


@pytest.mark.usefixtures("short_timeout")
def test_frozen_broker_times_out(queue: Queue, rabbitmq: Server) -> None:
    sent = events(1, 3)
    with destination(queue.url) as broker:
        assert broker.deliver(SUBSCRIBER, sent[:1]) == ({}, [])
        rabbitmq.freeze()
        for _ in range(2):  # once on the open connection, once while connecting
            failures, _ = broker.deliver(SUBSCRIBER, sent[1:])
            assert [*failures] == [each.id for each in sent[1:]]
        rabbitmq.thaw()
        wait_until(
            lambda: broker.deliver(SUBSCRIBER, sent[1:]) == ({}, []), "the delivery does not succeed again"
        )
    assert first_ids(queue.received(), sent[0].wallet_id) == [each.id for each in sent]


@pytest.mark.usefixtures("short_timeout")
def test_blocked_broker_times_out(queue: Queue, rabbitmq: Server) -> None:
    sent = events(1, 3)
    with destination(queue.url) as broker:
        rabbitmq.control("set_vm_memory_high_watermark", "absolute", "1")
        failures, _ = broker.deliver(SUBSCRIBER, sent)
        assert [*failures] == [each.id for each in sent]
        rabbitmq.control("set_vm_memory_high_watermark", "absolute", "2GB")
        assert broker.deliver(SUBSCRIBER, sent) == ({}, [])
    assert first_ids(queue.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_idle_connection_stays_open(queue: Queue, rabbitmq: Server) -> None:
    sent = events(1, 2)
    with (
        BreakableConnection(rabbitmq.port) as wire,
        destination(rabbitmq.url(port=wire.port, heartbeat=1)) as broker,
    ):
        assert broker.deliver(SUBSCRIBER, sent[:1]) == ({}, [])
        time.sleep(4)  # RabbitMQ closes a connection that is silent for two heartbeats
        assert wire.connections == 1
        assert broker.deliver(SUBSCRIBER, sent[1:]) == ({}, [])
        assert wire.connections == 1
    assert first_ids(queue.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_exchange_of_another_type_is_reported(rabbitmq: Server, queue: Queue) -> None:
    with queue.channel() as channel:
        channel.exchange_delete(EXCHANGE_OR_TOPIC)
        channel.exchange_declare(EXCHANGE_OR_TOPIC, "fanout")
    try:
        with destination(queue.url) as broker:
            failures, _ = broker.deliver(SUBSCRIBER, events(1, 1))
            assert "PRECONDITION_FAILED" in next(iter(failures.values())).error
    finally:
        with queue.channel() as channel:
            channel.exchange_delete(EXCHANGE_OR_TOPIC)


INVALID_URLS = [
    *(
        "a-password@127.0.0.1/?nothing=1",
        "a-password@127.0.0.1/?heartbeat=soon",
        "a-password@127.0.0.1:65536/",
    ),
    *("a-password/of-two@127.0.0.1/", "a?password=of-two@127.0.0.1/", "a-password@127.0.0.1/?ssl_options=("),
    "x@127.0.0.1/?ssl_options=a-password",
]


@pytest.mark.parametrize("address", INVALID_URLS)
def test_invalid_url_is_reported_without_the_password(address: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="^EVENTS_BROKER_URL is not a valid AMQP URL") as error:
        RabbitMQ(f"amqp://walletsvc:{address}")
    assert "password" not in str(error.value)


# --- Encrypted --------------------------------------------------------------------------------------
def test_tls_connection_verifies_the_server(tmp_path: Path) -> None:
    certificate, key, port = tmp_path / "certificate", tmp_path / "key", free_port()
    make_certificate(certificate, key)
    tls = f"""
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
"""
    trust: dict[str, Any] = {"ca_certs": str(certificate)}
    with Server(tmp_path, tls).running() as server:
        url = server.url(port=port).replace("amqp://", "amqps://")
        with destination(url) as broker:
            failures, _ = broker.deliver(SUBSCRIBER, events(1, 1))
            assert "CERTIFICATE_VERIFY_FAILED" in next(iter(failures.values())).error
        with destination(f"{url}&ssl_options={quote(repr(trust))}") as broker:
            assert broker.deliver(SUBSCRIBER, events(1, 1)) == ({}, [])
        with destination(
            f"{url.replace('127.0.0.1', 'localhost')}&ssl_options={quote(repr(trust))}"
        ) as broker:
            failures, _ = broker.deliver(SUBSCRIBER, events(1, 1))
            assert "CERTIFICATE_VERIFY_FAILED" in next(iter(failures.values())).error


def make_certificate(certificate: Path, key: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=tests"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key),
        ],
        check=True,
        capture_output=True,
    )

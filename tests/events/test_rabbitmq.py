"""RabbitMQ, the real one, is told everything in the order of each wallet, whatever breaks."""

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
from tests.support.rabbitmq import PASSWORD, Queue, Server, Wire
from wallets.events.destinations import EXCHANGE_OR_TOPIC
from wallets.events.rabbitmq import REFUSED, RabbitMQ
from wallets.models import Subscriber

pytestmark = pytest.mark.brokers

NOBODY = Subscriber(name="rabbitmq")  # a broker is told everything, whoever it is


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
def test_all_arrives_once_and_in_order(api: Api, queue: Queue) -> None:
    brokers.all_arrives_once_and_in_order(api, queue)


def test_a_broker_that_dies_has_it_all_in_the_end(api: Api, queue: Queue) -> None:
    brokers.a_broker_that_dies_has_it_all_in_the_end(api, queue)


def test_a_relay_that_is_killed_loses_nothing(api: Api, queue: Queue) -> None:
    brokers.a_relay_that_is_killed_loses_nothing(api, queue)


def test_a_wrong_password_is_said_and_not_shown(api: Api, queue: Queue, rabbitmq: Server) -> None:
    queue.url = rabbitmq.url("not-the-secret")
    brokers.it_is_said_why_nothing_arrives(api, queue, "ACCESS_REFUSED", "not-the-secret")


def test_a_relay_whose_address_cannot_be_ends_and_says_so() -> None:
    environment = os.environ | {"EVENTS_BROKER_URL": f"amqp://walletsvc:{PASSWORD}@127.0.0.1/?nothing=1"}
    command = [sys.executable, "manage.py", "relay_events"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    brokers.forget_brokers()
    expected = "walletsvc is not configured: EVENTS_BROKER_URL is not a valid AMQP URL\n"
    assert (done.returncode, done.stderr) == (1, expected)


# --- A message --------------------------------------------------------------------------------------
def test_a_message_is_the_event_and_outlives_the_broker(queue: Queue) -> None:
    (sent,) = events(1, 1)
    with destination(queue.url) as broker:
        assert broker.deliver(NOBODY, [sent]) == ({}, [])
    assert queue.received() == [json.loads(sent.content)]
    ((frame, properties, _),) = queue.messages
    assert (frame.exchange, frame.routing_key) == (EXCHANGE_OR_TOPIC, sent.type)
    assert properties.content_type == "application/cloudevents+json"
    assert properties.delivery_mode == pika.DeliveryMode.Persistent.value
    assert (properties.message_id, properties.headers) == (sent.id, {"walletId": str(sent.wallet_id)})


def test_what_nobody_wants_is_no_failure(rabbitmq: Server) -> None:
    with destination(rabbitmq.url()) as broker:
        assert broker.deliver(NOBODY, events(2, 50)) == ({}, [])


# --- What goes wrong --------------------------------------------------------------------------------
def test_what_is_behind_a_refused_event_of_its_wallet_is_not_delivered(rabbitmq: Server) -> None:
    queue = Queue(rabbitmq, **{"x-max-length": 3, "x-overflow": "reject-publish"})
    one, other = (sent.wallet_id for sent in events(2, 1))
    sent = [event(one, 1), event(other, 1), event(one, 2), event(one, 3), event(one, 4), event(other, 2)]
    with destination(queue.url) as broker:
        failures, _ = broker.deliver(NOBODY, sent)
        assert [*failures] == [sent[3].id, sent[4].id, sent[5].id]
        assert [failure.was_tried for failure in failures.values()] == [True, False, True]
        assert failures[sent[5].id].error == REFUSED
        assert len(queue.received()) == 3
        assert broker.deliver(NOBODY, sent[3:]) == ({}, [])
    queue.received()
    queue.delete()


def test_a_connection_that_is_cut_amid_the_confirms_loses_nothing(queue: Queue, rabbitmq: Server) -> None:
    sent = events(5, 200)
    wallets = {each.wallet_id for each in sent}
    with Wire(rabbitmq.port) as wire, destination(rabbitmq.url(port=wire.port)) as broker:
        assert broker.deliver(NOBODY, events(1, 1)) == ({}, [])
        for _ in range(10):  # what has been confirmed may be lost with the connection
            wire.break_after(sum(len(each.content) for each in sent) // 2)
            failures, _ = broker.deliver(NOBODY, sent)
            if 0 < len(failures) < len(sent):
                break
        assert 0 < len(failures) < len(sent), "it was not cut in the middle"
        for wallet_id in wallets:
            failed = [id for id in ids_of(sent, wallet_id) if id in failures]
            assert failed == ids_of(sent, wallet_id)[-len(failed) :]
            assert [failures[id].was_tried for id in failed] == [True] + [False] * (len(failed) - 1)
        assert broker.deliver(NOBODY, [each for each in sent if each.id in failures]) == ({}, [])
    received = queue.received()
    for wallet_id in wallets:
        assert first_ids(received, wallet_id) == ids_of(sent, wallet_id)


def test_a_broker_that_is_gone_and_back_is_connected_to_anew(queue: Queue) -> None:
    first, second, third = events(1, 3)
    with destination(queue.url) as broker:
        assert broker.deliver(NOBODY, [first]) == ({}, [])
        queue.stop()
        failures, _ = broker.deliver(NOBODY, [second, third])
        assert [*failures] == [second.id, third.id]
        queue.start()
        assert broker.deliver(NOBODY, [second, third]) == ({}, [])
    assert first_ids(queue.received(), first.wallet_id) == [first.id, second.id, third.id]


@pytest.mark.usefixtures("short_timeout")
def test_a_frozen_broker_is_not_waited_for_for_ever(queue: Queue, rabbitmq: Server) -> None:
    sent = events(1, 3)
    with destination(queue.url) as broker:
        assert broker.deliver(NOBODY, sent[:1]) == ({}, [])
        rabbitmq.freeze()
        for _ in range(2):  # while it is connected, and while it cannot connect
            failures, _ = broker.deliver(NOBODY, sent[1:])
            assert [*failures] == [each.id for each in sent[1:]]
        rabbitmq.thaw()
        wait_until(lambda: broker.deliver(NOBODY, sent[1:]) == ({}, []), "it does not come back")
    assert first_ids(queue.received(), sent[0].wallet_id) == [each.id for each in sent]


@pytest.mark.usefixtures("short_timeout")
def test_a_broker_without_memory_is_not_waited_for_for_ever(queue: Queue, rabbitmq: Server) -> None:
    sent = events(1, 3)
    with destination(queue.url) as broker:
        rabbitmq.control("set_vm_memory_high_watermark", "absolute", "1")
        failures, _ = broker.deliver(NOBODY, sent)
        assert [*failures] == [each.id for each in sent]
        rabbitmq.control("set_vm_memory_high_watermark", "absolute", "2GB")
        assert broker.deliver(NOBODY, sent) == ({}, [])
    assert first_ids(queue.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_a_connection_lives_on_while_there_is_nothing_to_say(queue: Queue, rabbitmq: Server) -> None:
    sent = events(1, 2)
    with Wire(rabbitmq.port) as wire, destination(rabbitmq.url(port=wire.port, heartbeat=1)) as broker:
        assert broker.deliver(NOBODY, sent[:1]) == ({}, [])
        time.sleep(4)  # RabbitMQ hangs up on who says nothing for twice the heartbeat
        assert wire.connections == 1
        assert broker.deliver(NOBODY, sent[1:]) == ({}, [])
        assert wire.connections == 1
    assert first_ids(queue.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_an_exchange_of_another_kind_is_said(rabbitmq: Server, queue: Queue) -> None:
    with queue.channel() as channel:
        channel.exchange_delete(EXCHANGE_OR_TOPIC)
        channel.exchange_declare(EXCHANGE_OR_TOPIC, "fanout")
    try:
        with destination(queue.url) as broker:
            failures, _ = broker.deliver(NOBODY, events(1, 1))
            assert "PRECONDITION_FAILED" in next(iter(failures.values())).error
    finally:
        with queue.channel() as channel:
            channel.exchange_delete(EXCHANGE_OR_TOPIC)


ADDRESSES = [
    *(
        "a-password@127.0.0.1/?nothing=1",
        "a-password@127.0.0.1/?heartbeat=soon",
        "a-password@127.0.0.1:65536/",
    ),
    *("a-password/of-two@127.0.0.1/", "a?password=of-two@127.0.0.1/", "a-password@127.0.0.1/?ssl_options=("),
    "x@127.0.0.1/?ssl_options=a-password",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_pika_does_not_take_is_said_without_the_password(address: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="^EVENTS_BROKER_URL is not a valid AMQP URL") as error:
        RabbitMQ(f"amqp://walletsvc:{address}")
    assert "password" not in str(error.value)


# --- Encrypted --------------------------------------------------------------------------------------
def test_an_encrypted_connection_is_to_the_right_server_or_to_none(tmp_path: Path) -> None:
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
            failures, _ = broker.deliver(NOBODY, events(1, 1))
            assert "CERTIFICATE_VERIFY_FAILED" in next(iter(failures.values())).error
        with destination(f"{url}&ssl_options={quote(repr(trust))}") as broker:
            assert broker.deliver(NOBODY, events(1, 1)) == ({}, [])
        with destination(
            f"{url.replace('127.0.0.1', 'localhost')}&ssl_options={quote(repr(trust))}"
        ) as broker:
            failures, _ = broker.deliver(NOBODY, events(1, 1))
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

"""Kafka, as librdkafka plays it, is told everything in the order of each wallet, whatever breaks."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from unittest import mock

import pytest
from confluent_kafka import KafkaError
from django.core.exceptions import ImproperlyConfigured

from tests.support import brokers
from tests.support.brokers import events, first_ids, ids_of
from tests.support.client import Api
from tests.support.events import wait_until
from tests.support.kafka import Cluster, cluster
from wallets.events.kafka import CONFIRM_TIMEOUT_ERROR, Kafka
from wallets.models import Subscriber

NOBODY = Subscriber(name="kafka")  # a broker is told everything, whoever it is
SECRET = "security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&sasl.username=me&sasl.password=not-the-secret"


@pytest.fixture
def kafka() -> Iterator[Cluster]:
    with cluster() as running:
        yield running
    brokers.forget_brokers()


@contextmanager
def destination(url: str) -> Iterator[Kafka]:
    with closing(Kafka(url)) as made:
        yield made


@contextmanager
def impatience() -> Iterator[None]:
    """Allow a confirmation one second while none can come; to connect, a busy machine may need longer."""
    with mock.patch("wallets.events.kafka.BROKER_TIMEOUT_SECONDS", 1.0):
        yield


# --- Through the relay ------------------------------------------------------------------------------
def test_all_arrives_once_and_in_order(api: Api, kafka: Cluster) -> None:
    brokers.all_arrives_once_and_in_order(api, kafka)


@pytest.mark.slow
def test_a_broker_that_dies_has_it_all_in_the_end(api: Api, kafka: Cluster) -> None:
    brokers.a_broker_that_dies_has_it_all_in_the_end(api, kafka)


@pytest.mark.slow
def test_a_relay_that_is_killed_loses_nothing(api: Api, kafka: Cluster) -> None:
    brokers.a_relay_that_is_killed_loses_nothing(api, kafka)


@pytest.mark.slow
def test_a_broker_that_lets_nobody_in_is_said_and_no_secret(api: Api, kafka: Cluster) -> None:
    kafka.query = SECRET
    brokers.it_is_said_why_nothing_arrives(api, kafka, "SASL", "not-the-secret")


# --- A message --------------------------------------------------------------------------------------
def test_a_message_is_the_event_and_its_key_the_wallet(kafka: Cluster) -> None:
    sent = events(3, 4)
    with destination(kafka.url) as broker:
        assert broker.deliver(NOBODY, sent) == ({}, [])
    received = kafka.received()
    assert {each["id"] for each in received} == {each.id for each in sent}
    for wallet_id in {each.wallet_id for each in sent}:
        assert first_ids(received, wallet_id) == ids_of(sent, wallet_id)
    by_id = {each.id: each for each in sent}
    for message in kafka.messages:
        content = json.loads(message.value() or b"")
        assert (message.key() or b"").decode() == content["subject"]
        assert dict(message.headers() or []) == {
            "content-type": b"application/cloudevents+json",
            "ce_id": content["id"].encode(),
            "ce_type": by_id[content["id"]].type.encode(),
        }


def test_the_topic_may_have_another_name(kafka: Cluster) -> None:
    (sent,) = events(1, 1)
    kafka.query = "topic=money&compression.type=zstd"
    with destination(kafka.url) as broker:
        assert broker.deliver(NOBODY, [sent]) == ({}, [])
    assert kafka.received("money") == [json.loads(sent.content)]


# --- What goes wrong --------------------------------------------------------------------------------
def test_what_may_be_repeated_is_repeated_at_once_and_doubles_nothing(kafka: Cluster) -> None:
    sent = events(2, 100)
    with destination(kafka.url) as broker:
        kafka.refuse(*[KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REQUEST_TIMED_OUT] * 2)
        assert broker.deliver(NOBODY, sent) == ({}, [])
    received = kafka.received()
    assert brokers.repeats(received) == []
    for wallet_id in {each.wallet_id for each in sent}:
        assert first_ids(received, wallet_id) == ids_of(sent, wallet_id)


@pytest.mark.parametrize(
    "error", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER]
)
def test_after_a_refusal_it_begins_anew(kafka: Cluster, error: int) -> None:
    sent = events(1, 3)
    with destination(kafka.url) as broker:
        kafka.refuse(error)
        failures, _ = broker.deliver(NOBODY, sent)
        assert [*failures] == [each.id for each in sent]
        assert [failure.was_tried for failure in failures.values()] == [True, False, False]
        assert next(iter(failures.values())).error
        assert broker.deliver(NOBODY, sent) == ({}, [])
    assert first_ids(kafka.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_a_topic_that_is_missing_is_said(kafka: Cluster) -> None:
    kafka.query = "topic=missing&topic.metadata.propagation.max.ms=500"
    kafka.deny("missing")
    with destination(kafka.url) as broker:
        failures, _ = broker.deliver(NOBODY, events(1, 1))
        assert "Unknown topic" in next(iter(failures.values())).error


def test_a_broker_that_is_gone_and_back_is_connected_to_anew(kafka: Cluster) -> None:
    sent = events(1, 3)
    with destination(kafka.url) as broker:
        assert broker.deliver(NOBODY, sent[:1]) == ({}, [])
        kafka.stop()
        with impatience():
            failures, _ = broker.deliver(NOBODY, sent[1:])
        assert [*failures] == [each.id for each in sent[1:]]
        assert "Connect" in failures[sent[1].id].error
        kafka.start()
        wait_until(lambda: broker.deliver(NOBODY, sent[1:]) == ({}, []), "it does not come back")
    assert first_ids(kafka.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_a_broker_that_does_not_answer_is_not_waited_for_for_ever(kafka: Cluster) -> None:
    sent = events(1, 3)
    with destination(kafka.url) as broker:
        assert broker.deliver(NOBODY, sent[:1]) == ({}, [])
        kafka.answer_late(5000)
        with impatience():
            failures, _ = broker.deliver(NOBODY, sent[1:])
        assert {failure.error for failure in failures.values() if failure.was_tried} == {
            CONFIRM_TIMEOUT_ERROR
        }
        assert [*failures] == [each.id for each in sent[1:]]
        kafka.answer_late(0)
        wait_until(lambda: broker.deliver(NOBODY, sent[1:]) == ({}, []), "it does not come back")
    assert first_ids(kafka.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_one_that_is_too_long_stands_in_the_way_of_its_wallet_alone(kafka: Cluster) -> None:
    one, other = events(2, 1)
    long = brokers.event(one.wallet_id, 1, "x" * 2_000_000)
    with destination(kafka.url) as broker:
        failures, _ = broker.deliver(NOBODY, [long, one, other])
        assert [*failures] == [long.id, one.id]
        assert "too large" in failures[long.id].error
    assert first_ids(kafka.received(), other.wallet_id) == [other.id]


@pytest.mark.parametrize("query", ["nothing=1", "security.protocol=none"])
def test_what_the_address_cannot_ask_for_is_said(query: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="^EVENTS_BROKER_URL: ") as error:
        Kafka(f"kafka://127.0.0.1:9?sasl.password=not-the-secret&{query}")
    assert "not-the-secret" not in str(error.value)

"""Delivery to librdkafka's mock of Kafka, with failures: complete, and in the order of each wallet."""

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

SUBSCRIBER = Subscriber(name="kafka")  # brokers get the events of all wallets
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
def short_timeout() -> Iterator[None]:
    """Allow a confirmation one second while none can come; to connect, a busy machine may need longer."""
    with mock.patch("wallets.events.kafka.BROKER_TIMEOUT_SECONDS", 1.0):
        yield


# --- Through the relay ------------------------------------------------------------------------------
def test_relay_delivers_each_event_once_in_order(api: Api, kafka: Cluster) -> None:
    brokers.check_each_event_arrives_once_in_order(api, kafka)


@pytest.mark.slow
def test_restarted_broker_gets_all_events(api: Api, kafka: Cluster) -> None:
    brokers.check_restarted_broker_gets_all_events(api, kafka)


@pytest.mark.slow
def test_killed_relay_loses_no_event(api: Api, kafka: Cluster) -> None:
    brokers.check_killed_relay_loses_no_event(api, kafka)


@pytest.mark.slow
def test_authentication_failure_is_recorded_without_the_secret(api: Api, kafka: Cluster) -> None:
    kafka.query = SECRET
    brokers.check_failure_is_recorded_without_the_secret(api, kafka, "SASL", "not-the-secret")


# --- A message --------------------------------------------------------------------------------------
def test_message_has_the_event_and_the_wallet_as_key(kafka: Cluster) -> None:
    sent = events(3, 4)
    with destination(kafka.url) as broker:
        assert broker.deliver(SUBSCRIBER, sent) == ({}, [])
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


def test_topic_name_is_configurable(kafka: Cluster) -> None:
    (sent,) = events(1, 1)
    kafka.query = "topic=money&compression.type=zstd"
    with destination(kafka.url) as broker:
        assert broker.deliver(SUBSCRIBER, [sent]) == ({}, [])
    assert kafka.received("money") == [json.loads(sent.content)]


# --- Failures ---------------------------------------------------------------------------------------
def test_transient_error_is_retried_without_duplicates(kafka: Cluster) -> None:
    sent = events(2, 100)
    with destination(kafka.url) as broker:
        kafka.refuse(*[KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REQUEST_TIMED_OUT] * 2)
        assert broker.deliver(SUBSCRIBER, sent) == ({}, [])
    received = kafka.received()
    assert brokers.repeats(received) == []
    for wallet_id in {each.wallet_id for each in sent}:
        assert first_ids(received, wallet_id) == ids_of(sent, wallet_id)


@pytest.mark.parametrize(
    "error", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER]
)
def test_delivery_after_a_refusal_succeeds(kafka: Cluster, error: int) -> None:
    sent = events(1, 3)
    with destination(kafka.url) as broker:
        kafka.refuse(error)
        failures, _ = broker.deliver(SUBSCRIBER, sent)
        assert [*failures] == [each.id for each in sent]
        assert [failure.was_tried for failure in failures.values()] == [True, False, False]
        assert next(iter(failures.values())).error
        assert broker.deliver(SUBSCRIBER, sent) == ({}, [])
    assert first_ids(kafka.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_missing_topic_is_reported(kafka: Cluster) -> None:
    kafka.query = "topic=missing&topic.metadata.propagation.max.ms=500"
    kafka.deny("missing")
    with destination(kafka.url) as broker:
        failures, _ = broker.deliver(SUBSCRIBER, events(1, 1))
        assert "Unknown topic" in next(iter(failures.values())).error


def test_restarted_broker_is_connected_again(kafka: Cluster) -> None:
    sent = events(1, 3)
    with destination(kafka.url) as broker:
        assert broker.deliver(SUBSCRIBER, sent[:1]) == ({}, [])
        kafka.stop()
        with short_timeout():
            failures, _ = broker.deliver(SUBSCRIBER, sent[1:])
        assert [*failures] == [each.id for each in sent[1:]]
        assert "Connect" in failures[sent[1].id].error
        kafka.start()
        wait_until(
            lambda: broker.deliver(SUBSCRIBER, sent[1:]) == ({}, []), "the delivery does not succeed again"
        )
    assert first_ids(kafka.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_unresponsive_broker_times_out(kafka: Cluster) -> None:
    sent = events(1, 3)
    with destination(kafka.url) as broker:
        assert broker.deliver(SUBSCRIBER, sent[:1]) == ({}, [])
        kafka.answer_late(5000)
        with short_timeout():
            failures, _ = broker.deliver(SUBSCRIBER, sent[1:])
        assert {failure.error for failure in failures.values() if failure.was_tried} == {
            CONFIRM_TIMEOUT_ERROR
        }
        assert [*failures] == [each.id for each in sent[1:]]
        kafka.answer_late(0)
        wait_until(
            lambda: broker.deliver(SUBSCRIBER, sent[1:]) == ({}, []), "the delivery does not succeed again"
        )
    assert first_ids(kafka.received(), sent[0].wallet_id) == [each.id for each in sent]


def test_oversized_event_delays_only_its_own_wallet(kafka: Cluster) -> None:
    one, other = events(2, 1)
    long = brokers.event(one.wallet_id, 1, "x" * 2_000_000)
    with destination(kafka.url) as broker:
        failures, _ = broker.deliver(SUBSCRIBER, [long, one, other])
        assert [*failures] == [long.id, one.id]
        assert "too large" in failures[long.id].error
    assert first_ids(kafka.received(), other.wallet_id) == [other.id]


@pytest.mark.parametrize("query", ["nothing=1", "security.protocol=none"])
def test_invalid_option_in_the_url_is_reported(query: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="^EVENTS_BROKER_URL: ") as error:
        Kafka(f"kafka://127.0.0.1:9?sasl.password=not-the-secret&{query}")
    assert "not-the-secret" not in str(error.value)

"""librdkafka's mock of Kafka: in-memory brokers in this process that speak the real protocol."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ctypes import CDLL, c_char_p, c_int, c_size_t, c_void_p, create_string_buffer
from pathlib import Path
from typing import Any, Final

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from wallets.events.destinations import EXCHANGE_OR_TOPIC

PRODUCE: Final = 0  # the request type in Kafka's protocol
PARTITIONS: Final = 4  # of each topic


def _library() -> CDLL:
    """Load confluent_kafka's own librdkafka: its Python interface lacks the functions that break brokers."""
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library = CDLL(str(next(folder.glob("librdkafka-*"))))
    for name in ("conf_new", "new", "mock_cluster_new"):
        getattr(library, f"rd_kafka_{name}").restype = c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = c_char_p
    return library


class Cluster:
    """A broker that can be stopped with all of its connections, and restarted with its messages."""

    def __init__(self) -> None:
        self._library = _library()
        error, settings = create_string_buffer(512), c_void_p(self._library.rd_kafka_conf_new())
        self._library.rd_kafka_conf_set(settings, b"log_level", b"0", error, c_size_t(512))
        self._handle = c_void_p(self._library.rd_kafka_new(0, settings, error, c_size_t(512)))
        self._cluster = c_void_p(self._library.rd_kafka_mock_cluster_new(self._handle, 1))
        self._library.rd_kafka_mock_topic_create(self._cluster, EXCHANGE_OR_TOPIC.encode(), PARTITIONS, 1)
        self.messages: list[Message] = []
        self.query = ""
        self.address: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def close(self) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)

    @property
    def url(self) -> str:
        return f"kafka://{self.address}?{self.query}"

    def received(self, topic: str = EXCHANGE_OR_TOPIC) -> list[dict[str, Any]]:
        """Return all events of the topic, partition by partition."""
        settings = {"bootstrap.servers": self.address, "group.id": "tests", "log_level": 0}
        with closing(Consumer({**settings, "enable.partition.eof": True})) as consumer:
            consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in range(PARTITIONS)])
            self.messages, ended = [], 0
            while ended < PARTITIONS and (message := consumer.poll(5)):
                if error := message.error():
                    ended += error.code() == KafkaError._PARTITION_EOF
                else:
                    self.messages.append(message)
        return [json.loads(message.value() or b"") for message in self.messages]

    def stop(self) -> None:
        self._library.rd_kafka_mock_broker_set_down(self._cluster, 1)

    def start(self) -> None:
        self._library.rd_kafka_mock_broker_set_up(self._cluster, 1)

    def refuse(self, *errors: int) -> None:
        """Answer the next produce requests with these errors."""
        codes = (c_int * len(errors))(*errors)
        push = self._library.rd_kafka_mock_push_request_errors_array
        push(self._cluster, PRODUCE, c_size_t(len(errors)), codes)

    def deny(self, topic: str) -> None:
        code = c_int(KafkaError.UNKNOWN_TOPIC_OR_PART)
        self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), code)

    def answer_late(self, milliseconds: int) -> None:
        self._library.rd_kafka_mock_broker_set_rtt(self._cluster, 1, milliseconds)


@contextmanager
def cluster() -> Iterator[Cluster]:
    running = Cluster()
    try:
        yield running
    finally:
        running.close()

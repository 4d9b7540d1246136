"""Read events from Kafka: KAFKA=127.0.0.1:9092 python examples/kafka.py

Several instances with one database share the partitions; all events of a wallet are in one partition.
"""

import json
import os
import signal
import sys

from balances import Balances
from confluent_kafka import Consumer

TOPIC = os.environ.get("TOPIC", "walletsvc.events")
SETTINGS = {
    "bootstrap.servers": os.environ.get("KAFKA", "127.0.0.1:9092"),
    "group.id": "balances",
    "auto.offset.reset": "earliest",  # a new group starts with the first event
    "enable.auto.commit": False,  # commit an offset only after its event was applied
    "session.timeout.ms": 10_000,  # after it, another instance gets the partitions of a dead one
}

balances = Balances()


def consume(consumer: Consumer) -> None:
    message = consumer.poll(1)
    if message is None:
        return
    if error := message.error():
        print(f"Kafka error: {error}", flush=True)
        return
    balances.apply(json.loads(message.value() or b""))
    consumer.commit(message=message)  # an uncommitted event is delivered again


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    consumer = Consumer(SETTINGS)
    consumer.subscribe([TOPIC])
    try:
        while True:
            consume(consumer)
    finally:
        consumer.close()  # the other instances get its partitions at once

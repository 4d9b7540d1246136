"""Reads events from Kafka: KAFKA=127.0.0.1:9092 python examples/kafka.py

Any number of these, with one database, share the partitions; all events of a wallet are in one of them.
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
    "auto.offset.reset": "earliest",  # who is new begins at the beginning
    "enable.auto.commit": False,  # we say when an event has been applied, not a clock
    "session.timeout.ms": 10_000,  # so long do the partitions of one that has died wait for another
}

balances = Balances()


def consume(consumer: Consumer) -> None:
    message = consumer.poll(1)
    if message is None:
        return
    if error := message.error():
        print(f"Kafka says: {error}", flush=True)
        return
    balances.apply(json.loads(message.value() or b""))
    consumer.commit(message=message)  # only now: what is not committed comes again


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    consumer = Consumer(SETTINGS)
    consumer.subscribe([TOPIC])
    try:
        while True:
            consume(consumer)
    finally:
        consumer.close()  # the others take over at once

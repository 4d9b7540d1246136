"""Reads events from RabbitMQ: AMQP_URL=amqp://guest:guest@127.0.0.1/ python examples/rabbitmq.py

The queue is durable and keeps what comes while this program is away, from its first start on.
"""

import json
import os
import time
from typing import Any

import pika
from balances import Balances
from pika.exceptions import AMQPError

EXCHANGE = "walletsvc.events"
QUEUE = "balances"
URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")

balances = Balances()


def on_message(channel: Any, delivery: Any, properties: Any, body: bytes) -> None:
    balances.apply(json.loads(body))
    channel.basic_ack(delivery.delivery_tag)  # only now: what is not acknowledged comes again


def consume() -> None:
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        # Of several programs one reads, and another takes over: at once they would mix up a wallet's events.
        channel.queue_declare(QUEUE, durable=True, arguments={"x-single-active-consumer": True})
        channel.queue_bind(QUEUE, EXCHANGE, "wallet.balance.*")  # the type of an event is its routing key
        channel.basic_qos(prefetch_count=100)
        channel.basic_consume(QUEUE, on_message)
        channel.start_consuming()


if __name__ == "__main__":
    while True:
        try:
            consume()
        except (AMQPError, OSError) as error:  # it is away, cannot be found, or has ended the channel
            print(f"RabbitMQ says: {error!r}", flush=True)
        time.sleep(1)

"""Read events from RabbitMQ: AMQP_URL=amqp://guest:guest@127.0.0.1/ python examples/rabbitmq.py

The first start creates a durable queue, which keeps the events that arrive while this program is stopped.
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
    channel.basic_ack(delivery.delivery_tag)  # an unacknowledged event is delivered again


def consume() -> None:
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        # Only one of several instances reads: two at once would change the order of a wallet's events.
        channel.queue_declare(QUEUE, durable=True, arguments={"x-single-active-consumer": True})
        channel.queue_bind(QUEUE, EXCHANGE, "wallet.balance.*")  # the type of an event is its routing key
        channel.basic_qos(prefetch_count=100)
        channel.basic_consume(QUEUE, on_message)
        channel.start_consuming()


if __name__ == "__main__":
    while True:
        try:
            consume()
        except (AMQPError, OSError) as error:  # unreachable, unknown host, or closed channel
            print(f"RabbitMQ error: {error!r}", flush=True)
        time.sleep(1)

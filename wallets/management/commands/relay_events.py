"""manage.py relay_events: deliver events to the subscribers."""

import signal
from typing import Any

from django.core.management.base import CommandParser
from django.db import DEFAULT_DB_ALIAS, connection

from wallets import database_retry
from wallets.events import delivery_state
from wallets.events.destinations import destination_for, sign_up_broker
from wallets.events.relay import Relay
from wallets.management.arguments import Command as Base


class Command(Base):
    help = (
        "Deliver events to webhooks and the broker, until a signal. Any number of these processes may run"
        " at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--status", action="store_true", help="print the delivery state of each subscriber and end"
        )

    def handle(self, **options: Any) -> None:
        try:
            if options["status"]:
                self.stdout.write(status(database_retry.retry_until_deadline(delivery_state.standings)))
            else:
                database_retry.retry_until_deadline(sign_up_broker)
                relay = Relay(destination_for)
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, lambda *_: relay.stop())
                relay.run()
        finally:
            database_retry.reconnect(DEFAULT_DB_ALIAS)
            connection.close_pool()  # type: ignore[attr-defined]  # else Python 3.13 ends 20 s later


def status(states: list[delivery_state.DeliveryState]) -> str:
    if not states:
        return "no subscriber exists"
    return "\n".join(
        f"{state.name}: {'' if state.is_enabled else 'disabled, '}{describe(state)}" for state in states
    )


def describe(state: delivery_state.DeliveryState) -> str:
    return f"lag {state.lag:.1f} s, {state.parked} parked wallets, {state.dead} dead letters"

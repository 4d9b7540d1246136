"""manage.py relay_events: tell the subscribers what happens."""

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
    help = "Tell webhooks and the broker what happens, until a signal. Any number of these may run at once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--status", action="store_true", help="show how subscribers fare, and do nothing")

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


def status(standings: list[delivery_state.DeliveryState]) -> str:
    if not standings:
        return "no subscriber exists"
    return "\n".join(
        f"{each.name}: {'' if each.is_enabled else 'disabled, '}{in_words(each)}" for each in standings
    )


def in_words(standing: delivery_state.DeliveryState) -> str:
    return f"{standing.lag:.1f} s behind, {standing.parked} wallets wait, {standing.dead} are dead letters"

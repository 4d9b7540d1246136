"""What the database says of the inbox, the ledger's last check and the relays, asked when Prometheus asks.

A few looks into indexes. While the database is away they are left out, and the rest of the metrics is there.
"""

import logging
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, Final

from django import db
from django.db import DEFAULT_DB_ALIAS, connection, transaction
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from wallets.database_retry import disconnected_when_slow
from wallets.events.delivery_state import DeliveryState, standings

logger = logging.getLogger(__name__)

STATEMENT_TIMEOUT_MS: Final = 1000  # milliseconds for a statement
MAX_COUNTED_ENTRIES: Final = 100_000  # entries of the inbox that are counted

_INBOX: Final = """
    SELECT
        (SELECT count(*) FROM (SELECT FROM inbox WHERE set_aside_at IS NULL LIMIT %(most)s) AS counted),
        extract(epoch FROM clock_timestamp() - (
            SELECT created_at FROM inbox WHERE set_aside_at IS NULL ORDER BY position LIMIT 1
        )),
        (SELECT count(*) FROM (SELECT FROM inbox WHERE set_aside_at IS NOT NULL LIMIT %(most)s) AS counted),
        (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM inbox_failures)
"""
_CHECK: Final = """
    SELECT extract(epoch FROM ended_at), wallets, differences FROM ledger_check ORDER BY id DESC LIMIT 1
"""
_SUBSCRIBER_METRICS: Final[tuple[tuple[str, str, Callable[[DeliveryState], float]], ...]] = (
    ("lag_seconds", "How long ago what is to be delivered next was committed", attrgetter("lag")),
    ("parked", "Wallets with an event that waits for another attempt", attrgetter("parked")),
    ("dead_letters", "Events that were given up", attrgetter("dead")),
    ("disabled", "1 where nothing is delivered", lambda standing: not standing.is_enabled),
)


class DatabaseCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        is_up = False
        found: list[Metric] = []
        try:
            with (
                disconnected_when_slow(DEFAULT_DB_ALIAS),
                transaction.atomic(),
                connection.cursor() as cursor,
            ):
                cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
                is_up = True
                for look in (_inbox, _last_check, _relays):
                    found += look(cursor)
        except db.Error as error:
            logger.warning("the metrics lack what the database knows: %s", error)
        yield _gauge("walletsvc_database_up", "1 where the database answers", is_up)
        yield from found


def _inbox(cursor: Any) -> Iterator[Metric]:
    cursor.execute(_INBOX, {"most": MAX_COUNTED_ENTRIES})
    entries, age, set_aside, failures = cursor.fetchone()
    yield _gauge(
        "walletsvc_inbox_entries", f"Pending operations in the inbox, at most {MAX_COUNTED_ENTRIES}", entries
    )
    yield _gauge("walletsvc_inbox_age_seconds", "How long the one that came first has been there", age or 0)
    yield _gauge(
        "walletsvc_inbox_set_aside",
        f"Inbox entries set aside for an operator, at most {MAX_COUNTED_ENTRIES}",
        set_aside,
    )
    yield CounterMetricFamily(
        "walletsvc_inbox_failures", "Attempts to carry out an entry of the inbox that failed", value=failures
    )


def _last_check(cursor: Any) -> Iterator[Metric]:
    cursor.execute(_CHECK)
    ended, wallets, differences = cursor.fetchone() or (0, 0, 0)
    name = "walletsvc_ledger_check"
    yield _gauge(
        f"{name}_ended_timestamp_seconds", "When the whole ledger was last verified; 0: never", ended
    )
    yield _gauge(f"{name}_wallets", "How many wallets were verified then", wallets)
    yield _gauge(f"{name}_differences", "How many differences were found then", differences)


def _relays(_cursor: Any) -> Iterator[Metric]:
    """How each subscriber of the events fares."""
    found = standings()
    for name, text, value in _SUBSCRIBER_METRICS:
        family = GaugeMetricFamily(f"walletsvc_relay_{name}", text, labels=["subscriber"])
        for standing in found:
            family.add_metric([standing.name], value(standing))
        yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))

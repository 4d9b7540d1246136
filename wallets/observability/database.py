"""Collect metrics of the inbox, the last ledger check and the relays from the database, at each scrape.

The queries are a few index lookups. While the database is unavailable, only these metrics are missing.
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

STATEMENT_TIMEOUT_MS: Final = 1000
MAX_COUNTED_ENTRIES: Final = 100_000  # of the inbox; limits the cost of a scrape

_INBOX: Final = """
    SELECT
        (SELECT count(*) FROM (SELECT FROM inbox WHERE set_aside_at IS NULL LIMIT %(limit)s) AS counted),
        extract(epoch FROM clock_timestamp() - (
            SELECT created_at FROM inbox WHERE set_aside_at IS NULL ORDER BY position LIMIT 1
        )),
        (SELECT count(*) FROM (SELECT FROM inbox WHERE set_aside_at IS NOT NULL LIMIT %(limit)s) AS counted),
        (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM inbox_failures)
"""
_CHECK: Final = """
    SELECT extract(epoch FROM ended_at), wallets, differences FROM ledger_check ORDER BY id DESC LIMIT 1
"""
_SUBSCRIBER_METRICS: Final[tuple[tuple[str, str, Callable[[DeliveryState], float]], ...]] = (
    (
        "lag_seconds",
        "Seconds since the commit of the next entry to deliver; 0 if there is none",
        attrgetter("lag"),
    ),
    ("parked", "Wallets with an event that waits for a retry", attrgetter("parked")),
    ("dead_letters", "Events that were given up (dead letters)", attrgetter("dead")),
    ("disabled", "1 if the subscriber is disabled", lambda state: not state.is_enabled),
)


class DatabaseCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        is_up = False
        metrics: list[Metric] = []
        try:
            with (
                disconnected_when_slow(DEFAULT_DB_ALIAS),
                transaction.atomic(),
                connection.cursor() as cursor,
            ):
                cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
                is_up = True
                for collect in (_inbox, _last_check, _relays):
                    metrics += collect(cursor)
        except db.Error as error:
            logger.warning("metrics from the database are incomplete: %s", error)
        yield _gauge("walletsvc_database_up", "1 if the database answers", is_up)
        yield from metrics


def _inbox(cursor: Any) -> Iterator[Metric]:
    cursor.execute(_INBOX, {"limit": MAX_COUNTED_ENTRIES})
    entries, age, set_aside, failures = cursor.fetchone()
    yield _gauge(
        "walletsvc_inbox_entries", f"Pending operations in the inbox, at most {MAX_COUNTED_ENTRIES}", entries
    )
    yield _gauge("walletsvc_inbox_age_seconds", "Age of the oldest pending entry of the inbox", age or 0)
    yield _gauge(
        "walletsvc_inbox_set_aside",
        f"Inbox entries set aside for an operator, at most {MAX_COUNTED_ENTRIES}",
        set_aside,
    )
    yield CounterMetricFamily(
        "walletsvc_inbox_failures", "Failed attempts to carry out an entry of the inbox", value=failures
    )


def _last_check(cursor: Any) -> Iterator[Metric]:
    cursor.execute(_CHECK)
    ended, wallets, differences = cursor.fetchone() or (0, 0, 0)
    name = "walletsvc_ledger_check"
    yield _gauge(
        f"{name}_ended_timestamp_seconds",
        "Time of the last verification of the whole ledger; 0: never",
        ended,
    )
    yield _gauge(f"{name}_wallets", "Wallets verified in the last verification", wallets)
    yield _gauge(f"{name}_differences", "Differences found in the last verification", differences)


def _relays(_cursor: Any) -> Iterator[Metric]:
    """Collect lag and failures of each subscriber."""
    states = standings()
    for name, text, value in _SUBSCRIBER_METRICS:
        family = GaugeMetricFamily(f"walletsvc_relay_{name}", text, labels=["subscriber"])
        for state in states:
            family.add_metric([state.name], value(state))
        yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))

"""Metrics of requests, operations and batches; database.py has the metrics that are read from the database.

The workers count in files of a shared folder, which gunicorn's master creates (the multiprocess mode of
prometheus_client). The worker that gets a scrape adds up all files. When a worker dies, its replacement
continues with the same files, so counts are not lost. Each label has few values: a route, not a path or id.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.http import HttpRequest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.registry import Collector

from wallets.observability.request_context import UNREADABLE, found_for, template_of

logger = logging.getLogger(__name__)

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
WORKER_NUMBER_VARIABLE: Final = "WALLETSVC_PLACE"  # set by walletsvc/gunicorn.py; names the worker's files
if FOLDER_VARIABLE in os.environ:
    # By default process ids name the files: those of dead workers would accumulate and slow down each scrape.
    values.ValueClass = values.MultiProcessValue(lambda place=os.environ[WORKER_NUMBER_VARIABLE]: place)  # type: ignore[no-untyped-call]
REGISTRY: Final = CollectorRegistry()
GAUGE_UPDATE_SECONDS: Final = 1.0  # between two updates of the gauges: queues, pool
RESPONSE_BUCKETS_SECONDS: Final = (
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
BATCH_BUCKETS_SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    10,
)

REQUESTS: Final = Counter(
    "walletsvc_http_requests", "Responses, by route", ["route", "method", "status"], registry=REGISTRY
)
SECONDS: Final = Histogram(
    "walletsvc_http_request_seconds",
    "Time until the response is ready",
    ["route", "method"],
    buckets=RESPONSE_BUCKETS_SECONDS,
    registry=REGISTRY,
)
OPERATIONS: Final = Counter(
    "walletsvc_operations",
    "Results of the committers: COMPLETED, PENDING, REJECTED, REFUSED (not recorded), REPLAYED."
    " The later result of a PENDING one is not counted",
    ["type", "outcome", "reason"],
    registry=REGISTRY,
)
BATCH_SIZE: Final = Histogram(
    "walletsvc_batch_size",
    "Items in a batch",
    ["queue"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    registry=REGISTRY,
)
BATCH_WAIT: Final = Histogram(
    "walletsvc_batch_wait_seconds",
    "Wait of the first item of a batch",
    ["queue"],
    buckets=BATCH_BUCKETS_SECONDS,
    registry=REGISTRY,
)
BATCH_SECONDS: Final = Histogram(
    "walletsvc_batch_seconds",
    "Time of a batch; for the committer, a transaction with its commit",
    ["queue"],
    buckets=BATCH_BUCKETS_SECONDS,
    registry=REGISTRY,
)
QUEUE: Final = Gauge(
    "walletsvc_queue_length",
    "Waiting items, in the worker with the longest queue",
    ["queue"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
QUEUE_LIMIT: Final = Gauge(
    "walletsvc_queue_limit",
    "Maximum number of waiting items in a worker",
    ["queue"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
WORKERS: Final = Gauge(
    "walletsvc_workers", "Running worker processes", multiprocess_mode="livesum", registry=REGISTRY
)
POOL: Final = Gauge(
    "walletsvc_pool_connections",
    "Connections in the pools: in use, or idle",
    ["state"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
POOL_LIMIT: Final = Gauge(
    "walletsvc_pool_limit",
    "Maximum number of connections in the pools",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
POOL_WAITING: Final = Gauge(
    "walletsvc_pool_waiting",
    "Requests that wait for a pool connection",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)

# --- Requests ---------------------------------------------------------------------------------------
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER_METHOD: Final = "other"


@cache
def _counters(found: str, method: str, status: int) -> tuple[Counter, Histogram]:
    route = template_of(found)
    return REQUESTS.labels(route, method, status), SECONDS.labels(route, method)


def count_request(request: HttpRequest, status: int, seconds: float) -> None:
    """Count by route, as clients could create any number of label values with paths."""
    method = request.method if request.method in METHODS else OTHER_METHOD
    requests, times = _counters(found_for(request), method, status)
    requests.inc()
    times.observe(seconds)


def count_unreadable(status: int) -> None:
    REQUESTS.labels(UNREADABLE, OTHER_METHOD, status).inc()


# --- Operations -------------------------------------------------------------------------------------
Kind = tuple[str, str, str]  # type, outcome, and the reason of a refusal


def count_operations(kinds: Mapping[Kind, int]) -> None:
    for kind, number in kinds.items():
        OPERATIONS.labels(*kind).inc(number)


# --- Queues and batches -----------------------------------------------------------------------------
class Batches:
    """Counts the batches of one queue. With METRICS off it does nothing."""

    def __init__(self, queue: str, length: Callable[[], int], limit: int) -> None:
        if settings.METRICS:
            self._size = BATCH_SIZE.labels(queue)
            self._wait = BATCH_WAIT.labels(queue)
            self._seconds = BATCH_SECONDS.labels(queue)
            _queues[queue] = length
            QUEUE_LIMIT.labels(queue).set(limit)

    def count(self, size: int, waited: float | None, seconds: float) -> None:
        if settings.METRICS:
            self._size.observe(size)
            self._seconds.observe(seconds)
            if waited is not None:
                self._wait.observe(waited)


_queues: Final[dict[str, Callable[[], int]]] = {}


# --- Gauges -----------------------------------------------------------------------------------------
def watch() -> None:
    """Start a thread that updates this worker's gauges, for scrapes that other workers answer."""
    threading.Thread(target=_update_gauges_forever, name="metrics", daemon=True).start()


def _update_gauges_forever() -> None:
    while True:
        try_to_update_gauges()
        time.sleep(GAUGE_UPDATE_SECONDS)


def try_to_update_gauges() -> None:
    """Update the gauges; log a failure, which must not end the thread."""
    try:
        update_gauges()
    except Exception:
        logger.exception("could not update the metrics")


def update_gauges() -> None:
    """Set the gauges of this worker."""
    WORKERS.set(1)
    for queue, length in _queues.items():
        QUEUE.labels(queue).set(length())
    pool = connections[DEFAULT_DB_ALIAS].pool  # type: ignore[attr-defined]
    now = pool.get_stats()
    POOL.labels("used").set(now["pool_size"] - now["pool_available"])
    POOL.labels("idle").set(now["pool_available"])
    POOL_LIMIT.set(now["pool_max"])
    POOL_WAITING.set(now["requests_waiting"])


# --- Scrapes ----------------------------------------------------------------------------------------
def collector() -> Collector:
    """Return the collector of all workers, or of this process if it is not a worker."""
    update_gauges()
    if FOLDER_VARIABLE not in os.environ:
        return REGISTRY
    from prometheus_client.multiprocess import MultiProcessCollector

    return MultiProcessCollector(None)  # type: ignore[no-untyped-call]

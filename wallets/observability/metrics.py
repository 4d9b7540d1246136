"""What Prometheus is told of the requests, the operations and the batches; database.py has what is stored.

The workers count in files that they share (prometheus_client's multiprocess mode; gunicorn's master makes the
folder): whichever of them is asked adds up, and what a worker has counted stays when it dies: the next in its
place goes on with its files. Each label has few values: a route, never a path, and no id.
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

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
PLACE: Final = "WALLETSVC_PLACE"  # which of the files there are this worker's: walletsvc/gunicorn.py
if FOLDER in os.environ:
    # Named by process ids, as is usual, the files of each worker that has died would be read for ever.
    values.ValueClass = values.MultiProcessValue(lambda place=os.environ[PLACE]: place)  # type: ignore[no-untyped-call]
OURS: Final = CollectorRegistry()
CACHE_SECONDS: Final = 1.0  # seconds until the files say what has happened, and what stands: queues, the pool
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
)  # seconds of an answer
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
)  # of what shares a call

REQUESTS: Final = Counter(
    "walletsvc_http_requests", "Answers, by route", ["route", "method", "status"], registry=OURS
)
SECONDS: Final = Histogram(
    "walletsvc_http_request_seconds",
    "Time until an answer is made",
    ["route", "method"],
    buckets=RESPONSE_BUCKETS_SECONDS,
    registry=OURS,
)
OPERATIONS: Final = Counter(
    "walletsvc_operations",
    "What the committers answered: COMPLETED, PENDING, REJECTED, REFUSED (leaves no trace), REPLAYED."
    " What becomes of PENDING is not counted",
    ["type", "outcome", "reason"],
    registry=OURS,
)
BATCH_SIZE: Final = Histogram(
    "walletsvc_batch_size",
    "Items that shared a call",
    ["queue"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    registry=OURS,
)
BATCH_WAIT: Final = Histogram(
    "walletsvc_batch_wait_seconds",
    "How long the first item of a call had waited for it",
    ["queue"],
    buckets=BATCH_BUCKETS_SECONDS,
    registry=OURS,
)
BATCH_SECONDS: Final = Histogram(
    "walletsvc_batch_seconds",
    "Time of a call: of the committer, a transaction with its commit",
    ["queue"],
    buckets=BATCH_BUCKETS_SECONDS,
    registry=OURS,
)
QUEUE: Final = Gauge(
    "walletsvc_queue_length",
    "Items that wait in the worker where most do",
    ["queue"],
    multiprocess_mode="livemax",
    registry=OURS,
)
QUEUE_LIMIT: Final = Gauge(
    "walletsvc_queue_limit",
    "Items that may wait in a worker",
    ["queue"],
    multiprocess_mode="livemax",
    registry=OURS,
)
WORKERS: Final = Gauge("walletsvc_workers", "Processes at work", multiprocess_mode="livesum", registry=OURS)
POOL: Final = Gauge(
    "walletsvc_pool_connections",
    "Connections of the pools: in use, or idle",
    ["state"],
    multiprocess_mode="livesum",
    registry=OURS,
)
POOL_LIMIT: Final = Gauge(
    "walletsvc_pool_limit", "Connections that the pools may have", multiprocess_mode="livesum", registry=OURS
)
POOL_WAITING: Final = Gauge(
    "walletsvc_pool_waiting",
    "Requests that wait for a connection of a pool",
    multiprocess_mode="livesum",
    registry=OURS,
)

# --- Requests ---------------------------------------------------------------------------------------
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER: Final = "other"


@cache
def _counters(found: str, method: str, status: int) -> tuple[Counter, Histogram]:
    route = template_of(found)
    return REQUESTS.labels(route, method, status), SECONDS.labels(route, method)


def count_request(request: HttpRequest, status: int, seconds: float) -> None:
    """Count by the route, so that a client cannot make up label values."""
    method = request.method if request.method in METHODS else OTHER
    requests, times = _counters(found_for(request), method, status)
    requests.inc()
    times.observe(seconds)


def count_unreadable(status: int) -> None:
    REQUESTS.labels(UNREADABLE, OTHER, status).inc()


# --- Operations -------------------------------------------------------------------------------------
Kind = tuple[str, str, str]  # type, outcome, and the reason of a refusal


def count_operations(kinds: Mapping[Kind, int]) -> None:
    for kind, number in kinds.items():
        OPERATIONS.labels(*kind).inc(number)


# --- Queues and batches -----------------------------------------------------------------------------
class Batches:
    """Counts the calls that one queue makes. With METRICS off it does nothing."""

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


# --- Kept up to date --------------------------------------------------------------------------------
def watch() -> None:
    """Keep up to date what this worker says, whether it is asked or not."""
    threading.Thread(target=_write_down_again_and_again, name="metrics", daemon=True).start()


def _write_down_again_and_again() -> None:
    while True:
        try_to_write_down()
        time.sleep(CACHE_SECONDS)


def try_to_write_down() -> None:
    """What fails once may do the next time; without the thread nobody would hear of this worker again."""
    try:
        write_down()
    except Exception:
        logger.exception("the metrics could not be written down")


def write_down() -> None:
    """Write the gauges of this worker."""
    WORKERS.set(1)
    for queue, length in _queues.items():
        QUEUE.labels(queue).set(length())
    pool = connections[DEFAULT_DB_ALIAS].pool  # type: ignore[attr-defined]
    now = pool.get_stats()
    POOL.labels("used").set(now["pool_size"] - now["pool_available"])
    POOL.labels("idle").set(now["pool_available"])
    POOL_LIMIT.set(now["pool_max"])
    POOL_WAITING.set(now["requests_waiting"])


# --- Told -------------------------------------------------------------------------------------------
def counted() -> Collector:
    """What all workers have counted; what this process has, where it is no worker."""
    write_down()
    if FOLDER not in os.environ:
        return OURS
    from prometheus_client.multiprocess import MultiProcessCollector

    return MultiProcessCollector(None)  # type: ignore[no-untyped-call]

"""Gunicorn's settings: `gunicorn -c walletsvc/gunicorn.py walletsvc.wsgi`."""

import gc
import os
import shutil
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from wallets.observability import traces
from walletsvc.server import balancing

try:
    from walletsvc import settings
except ImproperlyConfigured as error:  # gunicorn prints a traceback unless the process exits
    sys.exit(f"walletsvc is not configured: {error}")

bind = settings.BIND
workers = settings.WORKERS
worker_class = "walletsvc.server.worker.Worker"
worker_connections = settings.WORKER_CONNECTIONS
backlog = 2048
timeout = settings.WORKER_TIMEOUT
graceful_timeout = settings.GRACEFUL_TIMEOUT
keepalive = settings.KEEPALIVE
# Django trusts a proxy if TRUST_PROXY is on. By default gunicorn trusts every local client, and lets it set a
# prefix of all URLs, which Django keeps.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
logger_class = "walletsvc.logger.Logger"
loglevel = settings.LOG_LEVEL.lower()


def on_starting(_master: Any) -> None:
    """Create the folder of the workers' counter files: one for each master, because an upgrade runs two."""
    if settings.METRICS:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="walletsvc-metrics-")


def on_exit(_master: Any) -> None:
    if settings.METRICS:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def pre_fork(master: Any, worker: Any) -> None:
    """Give the worker the lowest number of a counter file that no live worker has."""
    taken = {other.place for other in master.WORKERS.values()}
    worker.place = next(place for place in count() if place not in taken)


def post_fork(_master: Any, worker: Any) -> None:
    os.environ["WALLETSVC_PLACE"] = str(worker.place)
    # Imports create many objects and almost no garbage: collections would take a quarter of their CPU time.
    gc.disable()


def post_worker_init(_worker: Any) -> None:
    """Build the OpenAPI document, and exclude all objects that exist by now from garbage collection."""
    from wallets.api.document import documents

    documents()
    if settings.METRICS:
        from wallets.observability import metrics

        metrics.watch()
    gc.collect()
    gc.freeze()
    gc.enable()
    # Measured: a threshold of 10,000 objects would make a bulk 8 % faster, and cost 80 MB.


def pre_request(_worker: Any, _request: Any) -> None:
    """Replace gunicorn's hook, which would log the path at DEBUG."""


def worker_exit(_master: Any, _worker: Any) -> None:
    traces.stop()
    if settings.METRICS:
        from wallets.observability import metrics

        metrics.update_gauges()


def child_exit(_master: Any, worker: Any) -> None:
    """Remove the gauges of an ended worker. The next worker with its number continues its counters."""
    balancing.leave(worker.age)
    if settings.METRICS:
        # As mark_process_dead of prometheus_client, which must not be imported before gevent has patched.
        for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"gauge_live*_{worker.place}.db"):
            file.unlink()


# By default gunicorn writes a socket into the home directory, which a container may not do.
control_socket_disable = True

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
except ImproperlyConfigured as error:  # gunicorn would print the traceback of anything but an exit
    sys.exit(f"walletsvc is not configured: {error}")

bind = settings.BIND
workers = settings.WORKERS
worker_class = "walletsvc.server.worker.Worker"
worker_connections = settings.WORKER_CONNECTIONS
backlog = 2048
timeout = settings.WORKER_TIMEOUT
graceful_timeout = settings.GRACEFUL_TIMEOUT
keepalive = settings.KEEPALIVE
# TRUST_PROXY says whether a proxy is believed. gunicorn would believe whoever is on this machine, and let
# them choose a prefix for all addresses, which Django keeps.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
logger_class = "walletsvc.logger.Logger"
loglevel = settings.LOG_LEVEL.lower()


def on_starting(_master: Any) -> None:
    """The workers count in files of one folder. A new one for each master: two take turns in an upgrade."""
    if settings.METRICS:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="walletsvc-metrics-")


def on_exit(_master: Any) -> None:
    if settings.METRICS:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def pre_fork(master: Any, worker: Any) -> None:
    """Its place among the files of the counts: one that nobody has who is not known to be dead."""
    taken = {other.place for other in master.WORKERS.values()}
    worker.place = next(place for place in count() if place not in taken)


def post_fork(_master: Any, worker: Any) -> None:
    os.environ["WALLETSVC_PLACE"] = str(worker.place)


def post_worker_init(_worker: Any) -> None:
    """What was loaded stays: it is not looked through for garbage again. So does the OpenAPI document."""
    from wallets.api.document import documents

    documents()
    if settings.METRICS:
        from wallets.observability import metrics

        metrics.watch()
    gc.collect()
    gc.freeze()
    # Collections as seldom as every 10,000 objects would save a bulk 8 % of its time, and cost 80 MB.


def pre_request(_worker: Any, _request: Any) -> None:
    """gunicorn's own would write the path, at DEBUG."""


def worker_exit(_master: Any, _worker: Any) -> None:
    traces.stop()
    if settings.METRICS:
        from wallets.observability import metrics

        metrics.update_gauges()


def child_exit(_master: Any, worker: Any) -> None:
    """A worker that was killed cannot say that it has gone. With its counts the next one goes on."""
    balancing.leave(worker.age)
    if settings.METRICS:
        # As prometheus_client's mark_process_dead; to import it here would be before gevent has patched.
        for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"gauge_live*_{worker.place}.db"):
            file.unlink()


# It would be one file in the home directory for all services of a user; a container may have none to write.
control_socket_disable = True

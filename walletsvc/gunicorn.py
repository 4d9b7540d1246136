"""Gunicorn's settings: `gunicorn -c walletsvc/gunicorn.py walletsvc.wsgi`."""

import gc
import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from walletsvc import census

try:
    from walletsvc import settings
except ImproperlyConfigured as error:  # gunicorn would print the traceback of anything but an exit
    sys.exit(f"walletsvc is not configured: {error}")

bind = settings.BIND
workers = settings.WORKERS
worker_class = "walletsvc.worker.Worker"
worker_connections = settings.WORKER_CONNECTIONS
backlog = 2048
timeout = settings.WORKER_TIMEOUT
graceful_timeout = settings.GRACEFUL_TIMEOUT
keepalive = settings.KEEPALIVE
accesslog = "-" if settings.ACCESS_LOG else None
loglevel = settings.LOG_LEVEL.lower()


def post_worker_init(_worker: Any) -> None:
    """What was loaded stays: it is not looked through for garbage again."""
    gc.collect()
    gc.freeze()
    # Collections as seldom as every 10,000 objects would save a bulk 8 % of its time, and cost 80 MB.


def child_exit(_master: Any, worker: Any) -> None:
    """A worker that was killed cannot say that it has gone."""
    census.leave(worker.age)


# It would be one file in the home directory for all services of a user; a container may have none to write.
control_socket_disable = True

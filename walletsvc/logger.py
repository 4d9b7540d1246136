"""Sends gunicorn's log, and a line for each request, to the service's logging.

This module must not import Django or psycopg: the master process loads it before gevent has patched anything.
"""

import logging.config
import sys
from datetime import timedelta
from typing import Any

from gunicorn import glogging

from wallets.observability.logs import log_request
from walletsvc import settings


class Logger(glogging.Logger):  # type: ignore[misc]
    """Logs with settings.LOGGING, without the parts of requests that gunicorn quotes: they may be secret."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS[cfg.loglevel]
        self.error_log.propagate = True
        logging.config.dictConfig(settings.LOGGING)

    def access(self, resp: Any, req: Any, _environ: Any, request_time: timedelta) -> None:
        if settings.ACCESS_LOG:
            status = int(str(resp.status).split(" ", 1)[0])
            log_request(str(req.method), status, request_time.total_seconds())

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        # gunicorn's errors quote the malformed part of a request.
        shown = [type(arg).__name__ if isinstance(arg, Exception) else arg for arg in args]
        super().debug(msg, *shown, **kwargs)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if msg.startswith("Invalid request from "):  # the message goes on with the malformed line
            error = sys.exc_info()[1]
            msg, args = f"{msg.partition(': ')[0]}: %s", (type(error).__name__,)
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if msg.startswith("Error handling request "):  # the message goes on with the URL
            msg, args = "Error handling request", ()
        super().exception(msg, *args, **kwargs)

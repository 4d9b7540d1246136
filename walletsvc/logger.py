"""gunicorn's log as part of ours, and the line of each request.

Nothing here may import Django or psycopg: the master process loads this before gevent has patched anything.
"""

import logging.config
import sys
from datetime import timedelta
from typing import Any

from gunicorn import glogging

from wallets.observability.logs import log_request
from walletsvc import settings


class Logger(glogging.Logger):  # type: ignore[misc]
    """Writes as settings.LOGGING says. What gunicorn quotes of a request stays out: it may be a secret."""

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
        # What a client broke off is quoted by the error that tells of it.
        told = [type(arg).__name__ if isinstance(arg, Exception) else arg for arg in args]
        super().debug(msg, *told, **kwargs)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if msg.startswith("Invalid request from "):  # …: and the line that could not be read
            error = sys.exc_info()[1]
            msg, args = f"{msg.partition(': ')[0]}: %s", (type(error).__name__,)
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if msg.startswith("Error handling request "):  # … and its address
            msg, args = "Error handling request", ()
        super().exception(msg, *args, **kwargs)

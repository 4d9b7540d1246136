"""Gunicorn's settings: `gunicorn -c walletsvc/gunicorn.py walletsvc.wsgi`."""

from walletsvc import settings

bind = settings.BIND
workers = settings.WORKERS
threads = settings.THREADS
worker_class = "gthread"
timeout = settings.WORKER_TIMEOUT
graceful_timeout = settings.GRACEFUL_TIMEOUT
keepalive = settings.KEEPALIVE
accesslog = "-" if settings.ACCESS_LOG else None
loglevel = settings.LOG_LEVEL.lower()

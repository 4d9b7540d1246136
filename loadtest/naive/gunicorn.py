"""Gunicorn's settings for the naive service."""

from walletsvc import settings

bind = settings.BIND
worker_class = "gthread"
# Measured: 2 workers of 8, 16 and 32 threads and 4 of 8 differ less than two runs of the same.
workers = 2
threads = 16
keepalive = settings.KEEPALIVE
loglevel = settings.LOG_LEVEL.lower()
control_socket_disable = True

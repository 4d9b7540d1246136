"""Gunicorn's settings for the baseline."""

from walletsvc import settings

bind = settings.BIND
worker_class = "gthread"
# 2 workers of 8, 16 and 32 threads and 4 of 8 were measured: equal, within what varies between runs.
workers = 2
threads = 16
keepalive = settings.KEEPALIVE
loglevel = settings.LOG_LEVEL.lower()
control_socket_disable = True

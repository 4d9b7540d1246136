"""Gunicorn's settings for the baseline."""

from walletsvc import settings

bind = settings.BIND
worker_class = "gthread"
workers = 2
threads = 32
keepalive = settings.KEEPALIVE
loglevel = settings.LOG_LEVEL.lower()
control_socket_disable = True

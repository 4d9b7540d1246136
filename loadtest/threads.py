"""Gunicorn's settings for the service on threads instead of greenlets (docs/decisions/gevent.md)."""

from loadtest.naive.gunicorn import bind, control_socket_disable, keepalive, loglevel, worker_class, workers

__all__ = ["bind", "control_socket_disable", "keepalive", "loglevel", "worker_class", "workers"]

threads = 32

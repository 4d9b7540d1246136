from typing import Any

from django.apps import AppConfig
from django.core.cache import close_caches
from django.core.signals import request_finished, request_started
from django.db import DEFAULT_DB_ALIAS, close_old_connections, connections, reset_queries


class WalletsConfig(AppConfig):
    name = "wallets"

    def ready(self) -> None:
        # What Django does at both ends of every request for all connections and caches that there could be
        # took a sixth of a request's time. A request can have one connection, and gives it back at its end.
        request_started.disconnect(close_old_connections)
        request_started.disconnect(reset_queries)
        request_finished.disconnect(close_old_connections)
        request_finished.disconnect(close_caches)
        request_finished.connect(give_back_connection)


def give_back_connection(**_: Any) -> None:
    """To the pool. The connections of committer and reader are no request's."""
    if hasattr(connections._connections, DEFAULT_DB_ALIAS):  # type: ignore[attr-defined]
        connections[DEFAULT_DB_ALIAS].close_if_unusable_or_obsolete()

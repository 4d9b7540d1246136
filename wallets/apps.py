from typing import Any

import unfold.apps
from django.apps import AppConfig, apps
from django.conf import settings
from django.core.cache import close_caches
from django.core.signals import request_finished, request_started
from django.db import DEFAULT_DB_ALIAS, close_old_connections, connections, reset_queries


class Unfold(unfold.apps.BasicAppConfig):  # type: ignore[misc]
    """The theme of the admin. The admin site is our own, so unfold must not replace Django's."""

    default = False  # the app of this package is the next one

    def ready(self) -> None:
        apps.get_app_config("admin").default_site = "wallets.admin.site.operators_site"  # type: ignore[attr-defined]


class WalletsConfig(AppConfig):
    name = "wallets"

    def ready(self) -> None:
        # Django closes all possible connections and caches at the start and the end of each request, which
        # took a sixth of a request's time. A request can have one connection, and gives it back at its end.
        request_started.disconnect(close_old_connections)
        request_started.disconnect(reset_queries)
        request_finished.disconnect(close_old_connections)
        request_finished.disconnect(close_caches)
        request_finished.connect(give_back_connection)
        if settings.SENTRY_DSN:
            from wallets.observability import error_reporting

            error_reporting.start()


def give_back_connection(**_: Any) -> None:
    """Return the request's connection to the pool, unless it is in a transaction."""
    if not hasattr(connections._connections, DEFAULT_DB_ALIAS):  # type: ignore[attr-defined]
        return
    if not connections[DEFAULT_DB_ALIAS].in_atomic_block:
        connections[DEFAULT_DB_ALIAS].close_if_unusable_or_obsolete()

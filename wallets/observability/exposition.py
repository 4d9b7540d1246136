"""GET /metrics: the metrics in the text format of Prometheus.

It is served at the service's own address: no deployment has to publish or protect a second port. It has its
own token: an API key with all scopes could also move money, and no key can be checked while the database is
unavailable.
"""

import hmac
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from wallets.access import keys
from wallets.access.rights import ADMIN, missing_scope
from wallets.observability.database import DatabaseCollector
from wallets.observability.metrics import collector
from wallets.problems import MethodNotAllowed, NotFound, Unauthorized

BEARER: Final = "Bearer "


def metrics(request: HttpRequest) -> HttpResponse:
    """Render the metrics of all workers and of the database."""
    if not settings.METRICS:
        raise NotFound
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed
    require_reader(request.META.get("HTTP_AUTHORIZATION", ""))
    registry = CollectorRegistry()
    registry.register(collector())
    registry.register(DatabaseCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def require_reader(authorization: str) -> None:
    """Accept METRICS_TOKEN, or an API key with the scope admin; without a token, an open API needs neither.

    Raises Unauthorized or Forbidden otherwise.
    """
    token = settings.METRICS_TOKEN
    if token and hmac.compare_digest(authorization.encode(), f"{BEARER}{token}".encode()):
        return
    if not token and not authorization and settings.API_ACCESS == "open":
        return
    principal = keys.principal_of(authorization.removeprefix(BEARER))
    if principal is None:
        raise Unauthorized
    if ADMIN not in principal.scopes or principal.owner_restriction is not None:
        raise missing_scope(ADMIN)

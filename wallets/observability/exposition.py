"""GET /metrics: what Prometheus reads, for those who may.

At the service's own address, so that it is wherever the service is (compose, Kubernetes, `make run`) and no
further port has to be kept from others. With a token of its own: a key for everything could move money, and
while the database is away no key is known.
"""

import hmac
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from wallets.access import keys
from wallets.access.rights import ADMIN, lacks
from wallets.observability.database import DatabaseCollector
from wallets.observability.metrics import counted
from wallets.problems import MethodNotAllowed, NotFound, Unauthorized

BEARER: Final = "Bearer "


def metrics(request: HttpRequest) -> HttpResponse:
    """What all workers have counted, and what the database says."""
    if not settings.METRICS:
        raise NotFound
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed
    require_reader(request.META.get("HTTP_AUTHORIZATION", ""))
    registry = CollectorRegistry()
    registry.register(counted())
    registry.register(DatabaseCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def require_reader(authorization: str) -> None:
    """Who has METRICS_TOKEN, or a key with the scope admin. Without a token, an open API is open here too.

    Raises Unauthorized or Forbidden for everybody else.
    """
    token = settings.METRICS_TOKEN
    if token and hmac.compare_digest(authorization.encode(), f"{BEARER}{token}".encode()):
        return
    if not token and not authorization and settings.API_ACCESS == "open":
        return
    known = keys.principal_of(authorization.removeprefix(BEARER))
    if known is None:
        raise Unauthorized
    if ADMIN not in known.scopes or known.owner_restriction is not None:
        raise lacks(ADMIN)

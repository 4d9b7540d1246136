"""Rate limits as throttles of REST framework. They raise TooManyRequests, which has the headers."""

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from wallets.access import limits
from wallets.access.authentication import principal


class CallerThrottle(BaseThrottle):
    """Counts the request for its API key, user or address."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        view.headers.update(limits.require_of(principal(request), request._request))
        return True


class AttemptThrottle(BaseThrottle):
    """Counts the request for its network, against the limit that the view names."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        view.headers.update(limits.require(view.limit, limits.network_of(request._request)))  # type: ignore[attr-defined]
        return True

"""Rate limits as throttles of REST framework. They raise TooManyRequests, whose headers have the limit."""

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from wallets.access import limits
from wallets.access.authentication import principal


class CallerThrottle(BaseThrottle):
    """Counts a request for its API key, user or client address."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        view.headers.update(limits.require_for_caller(principal(request), request._request))
        return True


class AttemptThrottle(BaseThrottle):
    """Counts a request for its network, against the limit `view.limit`."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        view.headers.update(limits.require(view.limit, limits.network_of(request._request)))  # type: ignore[attr-defined]
        return True

"""The current request, for logs, traces and error reports.

Each greenlet or thread has its own. This module must not import Django: gunicorn's master uses it.
"""

import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from django.http import HttpRequest

request: Final[ContextVar["HttpRequest | None"]] = ContextVar("request", default=None)

PROBE_PATHS: Final = ("/livez", "/readyz", "/metrics")
HOME: Final = "/"
STATIC: Final = "/static/"
UNKNOWN: Final = "unknown"  # no route has this path
REFUSED: Final = "refused"  # before the path was resolved
UNREADABLE: Final = "unreadable"  # not valid HTTP

_PARAMETER: Final = re.compile(r"(?<!\?P)<(?:\w+:)?(\w+)>")


def route_of(request: "HttpRequest") -> str:
    """Return the route as a template, never the path: a path may be secret, long or forged."""
    return template_of(found_for(request))


def found_for(request: "HttpRequest") -> str:
    """Return the route in Django's notation, without the cost of the conversion."""
    match = request.resolver_match
    if match is None:
        return STATIC if request.path_info.startswith(STATIC) else REFUSED
    return match.route or (HOME if match.url_name else UNKNOWN)


def template_of(found: str) -> str:
    if found in (HOME, STATIC, UNKNOWN, REFUSED):
        return found
    return "/" + _PARAMETER.sub(r"{\1}", found)


def wallet_of(request: "HttpRequest") -> str | None:
    """Return the id of the wallet in the path."""
    match = request.resolver_match
    return str(match.kwargs["wallet_id"]) if match and "wallet_id" in match.kwargs else None


def sender_of(request: Any) -> str | None:
    """Identify the caller, without a query: an API key by its prefix, a user or operator by id."""
    actor = getattr(getattr(request, "auth", None), "actor", "")
    if actor.startswith("key:"):
        return str(actor)
    user = getattr(request, "_cached_user", None)  # set by Django once a view has read request.user
    number = getattr(user, "pk", None)
    return f"user:{number}" if number else None

"""The request that is being served here, for what is told about it: logs, traces, error reports.

Each greenlet or thread has its own. Nothing here may import Django: gunicorn's master has it for its logs.
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
UNKNOWN: Final = "unknown"  # there is nothing at the address
REFUSED: Final = "refused"  # before anybody looked for the address
UNREADABLE: Final = "unreadable"  # not even HTTP

_PARAMETER: Final = re.compile(r"(?<!\?P)<(?:\w+:)?(\w+)>")


def route_of(request: "HttpRequest") -> str:
    """What was found at the address, as a template: the path itself may be a secret, long or forged."""
    return template_of(found_for(request))


def found_for(request: "HttpRequest") -> str:
    """The same as Django writes it, which costs nothing."""
    match = request.resolver_match
    if match is None:
        return STATIC if request.path_info.startswith(STATIC) else REFUSED
    return match.route or (HOME if match.url_name else UNKNOWN)


def template_of(found: str) -> str:
    if found in (HOME, STATIC, UNKNOWN, REFUSED):
        return found
    return "/" + _PARAMETER.sub(r"{\1}", found)


def wallet_of(request: "HttpRequest") -> str | None:
    """The wallet that the address names."""
    match = request.resolver_match
    return str(match.kwargs["wallet_id"]) if match and "wallet_id" in match.kwargs else None


def sender_of(request: Any) -> str | None:
    """Who asks: a key by its prefix, a person or operator by their number. Asks no database."""
    actor = getattr(getattr(request, "auth", None), "actor", "")
    if actor.startswith("key:"):
        return str(actor)
    user = getattr(request, "_cached_user", None)  # what Django has found, where a view has asked
    number = getattr(user, "pk", None)
    return f"user:{number}" if number else None

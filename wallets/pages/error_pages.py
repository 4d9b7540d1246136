"""Error pages."""

from typing import Any, Final

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import Resolver404, resolve
from django.views.decorators.csrf import csrf_exempt

from wallets.access.attempts import with_problem_status
from wallets.error_mapping import problem_response
from wallets.pages.labels import problem_text
from wallets.problems import Forbidden, NotFound, Problem

NO_SLASH: Final = "Leave out the slash at the end."


def problem_page(request: HttpRequest, problem: Problem) -> HttpResponse:
    if problem.status >= 500:  # noqa: PLR2004
        request.user = AnonymousUser()  # loading the user would need the database, which may have failed
    context = {"status": problem.status, "message": problem_text(problem)}
    return with_problem_status(render(request, "pages/problem.html", context), problem)


@csrf_exempt  # nothing to protect; without a token, a program must get this problem too
def page_not_found(request: HttpRequest) -> HttpResponse:
    """Respond with a page to a browser, and with a problem to a program; below /api always with a problem.

    This is a route, not handler404: if DEBUG is on, Django does not use handler404.
    """
    is_html = not request.path_info.startswith("/api") and "text/html" in request.headers.get("Accept", "")
    return (problem_page if is_html else problem_response)(request, _not_found(request.path_info))


def _not_found(path: str) -> NotFound:
    """Return the problem; name the slash at the end if that is what is wrong."""
    shorter = path.rstrip("/")
    try:
        is_slash_wrong = shorter != path and resolve(shorter).func is not page_not_found
    except Resolver404:
        is_slash_wrong = False
    return NotFound(f"No resource has this URL. {NO_SLASH}" if is_slash_wrong else "")


def csrf_failure(request: HttpRequest, **_: Any) -> HttpResponse:
    """Refuse a form of another site, or of a session that has ended (CSRF_FAILURE_VIEW)."""
    return problem_page(request, Forbidden())

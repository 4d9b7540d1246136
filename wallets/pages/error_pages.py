"""What went wrong, as a page."""

from typing import Any, Final

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import Resolver404, resolve
from django.views.decorators.csrf import csrf_exempt

from wallets.access.attempts import as_told
from wallets.error_mapping import problem_response
from wallets.pages.labels import told
from wallets.problems import Forbidden, NotFound, Problem

NO_SLASH: Final = "Leave out the slash at the end."


def problem_page(request: HttpRequest, problem: Problem) -> HttpResponse:
    if problem.status >= 500:  # noqa: PLR2004
        request.user = AnonymousUser()  # who they are is in the database, which may be what has failed
    context = {"status": problem.status, "message": told(problem)}
    return as_told(render(request, "pages/problem.html", context), problem)


@csrf_exempt  # there is nothing to protect, and a program is to be told that
def nothing_here(request: HttpRequest) -> HttpResponse:
    """Respond with a page to a browser, and with a problem to a program; below /api always with a problem.

    A route, not handler404: Django answers that with a page of its own while DEBUG is on.
    """
    is_for_people = not request.path_info.startswith("/api") and "text/html" in request.headers.get(
        "Accept", ""
    )
    return (problem_page if is_for_people else problem_response)(request, _not_found(request.path_info))


def _not_found(path: str) -> NotFound:
    """Return the problem; name the slash at the end if that is what is wrong."""
    shorter = path.rstrip("/")
    try:
        is_slash_wrong = shorter != path and resolve(shorter).func is not nothing_here
    except Resolver404:
        is_slash_wrong = False
    return NotFound(f"No resource has this URL. {NO_SLASH}" if is_slash_wrong else "")


def csrf_failure(request: HttpRequest, **_: Any) -> HttpResponse:
    """CSRF_FAILURE_VIEW: the form is another site's, or of a session that has ended."""
    return problem_page(request, Forbidden())

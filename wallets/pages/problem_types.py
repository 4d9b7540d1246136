"""The page of each problem code: `type` of a problem is its URL (RFC 9457, 3.1.1). It needs no session."""

from functools import cache
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from wallets.pages.error_pages import page_not_found
from wallets.problems import MethodNotAllowed, Problem

CACHE_CONTROL: Final = "public, max-age=3600"  # seconds
METHODS: Final = ("GET", "HEAD")


def problem_type(request: HttpRequest, code: str) -> HttpResponse:
    if request.method not in METHODS:
        refused = MethodNotAllowed()
        refused.headers = {"Allow": ", ".join(METHODS)}
        raise refused
    page = _pages().get(code)
    if page is None:
        return page_not_found(request)
    return HttpResponse(page, headers={"Cache-Control": CACHE_CONTROL})


@cache
def _pages() -> dict[str, str]:
    """Return the pages by code."""
    return {kind.code: _page(kind) for kind in Problem.__subclasses__()}


def _page(kind: type[Problem]) -> str:
    context = {"problem": kind, "cause": _sentence(kind.cause), "action": _sentence(kind.action)}
    return render_to_string("pages/problem_type.html", context)


def _sentence(text: str) -> SafeString:
    """Return the text as a sentence in HTML, with what is in backticks as code."""
    parts = f"{text[:1].upper()}{text[1:]}.".split("`")
    marked = (format_html("<code>{}</code>", part) if at % 2 else part for at, part in enumerate(parts))
    return format_html_join("", "{}", ((part,) for part in marked))

"""The confirmation page that is shown before an action."""

from collections.abc import Sequence

from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin

from wallets.admin.lists import change_url


def confirmation_page(
    model_admin: ModelAdmin, request: HttpRequest, row: Model, title: str, lines: Sequence[str]
) -> HttpResponse:
    """Return a page that describes the action on `row`. Its button sends a POST to the current URL."""
    context = {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "lines": lines,
        "opts": model_admin.opts,
        "original": row,
        "back": change_url(row),
    }
    return TemplateResponse(request, "admin/wallets/confirm.html", context)

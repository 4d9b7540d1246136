"""The page between a button and what cannot be taken back."""

from collections.abc import Sequence

from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin

from wallets.admin.lists import address


def ask(page: ModelAdmin, request: HttpRequest, row: Model, title: str, lines: Sequence[str]) -> HttpResponse:
    """Asks whether to do it to the row; the answer is a POST to where the operator is."""
    context = {
        **page.admin_site.each_context(request),
        "title": title,
        "lines": lines,
        "opts": page.opts,
        "original": row,
        "back": address(row),
    }
    return TemplateResponse(request, "admin/wallets/confirm.html", context)

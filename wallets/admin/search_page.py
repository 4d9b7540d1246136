"""Search in the whole admin: one term, and all kinds of rows that the operator may view."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.db import DataError, OperationalError
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.text import Truncator

from wallets.admin import search
from wallets.admin.lists import (
    SearchedAdmin,
    Section,
    bounded_queries,
    change_url,
    error_message,
    link,
    show_amount,
    show_time,
)
from wallets.admin.wallet_rows import amount_with_currency, wallet_link
from wallets.models import Hold, InboxEntry, Operation, Transfer, Wallet
from wallets.operation_types import TRANSFERS

MAX_ROWS: Final = 20  # of each kind
# A transfer and a hold come before their operations: their pages link to all of them.
KINDS: Final[Sequence[type[Model]]] = (Wallet, Transfer, Hold, InboxEntry, Operation)
HEADERS: Final = ("id", "created (UTC)", "type", "amount", "status", "wallet", "reference")
WALLET_HEADERS: Final = ("id", "created (UTC)", "owner", "balance", "status", "label", "external id")


@dataclass(frozen=True, slots=True)
class Group:
    """The found rows of one kind, newest first."""

    kind: SearchedAdmin
    rows: Sequence[Any]
    is_cut: bool


def respond(request: HttpRequest, site: admin.AdminSite) -> HttpResponse:
    """Redirect to the page of the only match, or show the matches of each kind."""
    term = request.GET.get("q", "").strip()
    groups: list[Group] = []
    try:
        with bounded_queries():
            groups = _groups(request, site, term) if term else []
    except (OperationalError, DataError) as error:
        messages.error(request, error_message(error))
    if (row := only_match(groups)) is not None:
        return redirect(change_url(row))
    context = {
        **site.each_context(request),
        "title": "Search",
        "term": term,
        "help_text": search.TERMS_HELP,
        "max_rows": MAX_ROWS,
        "groups": [_section(group, term) for group in groups],
    }
    return TemplateResponse(request, "admin/search.html", context)


def only_match(groups: Sequence[Group]) -> Any:
    """Return the row whose page shows all matches; None if there are several, or none."""
    rows = [row for group in groups for row in group.rows]
    subjects = {_subject(row) for row in rows}
    return next((row for row in rows if {row.pk} == subjects), None)


def _subject(row: Any) -> UUID:
    """Return the id of the transfer or hold that the operation belongs to, or of the row itself."""
    id: UUID = row.pk
    if isinstance(row, Operation):
        return (row.transfer_id if row.type in TRANSFERS else row.hold_id) or id
    return id


def _groups(request: HttpRequest, site: admin.AdminSite, term: str) -> list[Group]:
    kinds = [site.get_model_admin(model) for model in KINDS]
    groups = [_find(request, kind, term) for kind in kinds if kind.has_view_permission(request)]
    return [group for group in groups if group.rows]


def _find(request: HttpRequest, kind: Any, term: str) -> Group:
    found = kind.find(term)
    rows = kind.get_queryset(request).filter(id__in=found.ids).order_by("-created_at", "-id")
    shown = list(rows[: MAX_ROWS + 1])
    return Group(kind, shown[:MAX_ROWS], is_cut=found.is_cut or len(shown) > MAX_ROWS)


# --- Table ------------------------------------------------------------------------------------------
def _section(group: Group, term: str) -> Section:
    opts = group.kind.opts
    rows = [_wallet_cells(row) if isinstance(row, Wallet) else _cells(row) for row in group.rows]
    url = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    return Section(
        str(opts.verbose_name_plural).capitalize(),
        WALLET_HEADERS if opts.model is Wallet else HEADERS,
        rows,
        f"More {opts.verbose_name_plural}" if group.is_cut else "",
        f"{url}?{urlencode({'q': term})}",
    )


def _wallet_cells(wallet: Wallet) -> list[Any]:
    return [
        link(wallet, str(wallet.id)),
        show_time(wallet.created_at),
        wallet.owner or "-",
        f"{show_amount(wallet.balance, wallet.currency)} {wallet.currency}",
        wallet.status,
        Truncator(wallet.label).chars(40) or "-",
        wallet.external_id or "-",
    ]


def _cells(row: Any) -> list[Any]:
    return [
        link(row, str(row.pk)),
        show_time(row.created_at),
        "Hold" if isinstance(row, Hold) else row.get_type_display(),
        amount_with_currency(row),
        _status(row),
        wallet_link(row.wallet),
        row.reference or "-",
    ]


def _status(row: Any) -> str:
    if isinstance(row, InboxEntry):
        return "set aside" if row.set_aside_at else "waiting"
    return str(getattr(row, "status_now", None) or row.reason or row.status)

"""Export of a list as CSV: the rows that its filters and its search show, newest first."""

import codecs
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, SEARCH_VAR
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import DataError, OperationalError, connection
from django.db.models import Q, QuerySet
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    StreamingHttpResponse,
)
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils import timezone

from wallets.admin.lists import TOO_MANY_MATCHES, SearchedAdmin, bounded_queries, error_message
from wallets.contract.paging import before
from wallets.contract.statements import csv_lines, without_formulas

MAX_ROWS: Final = 100_000
PAGE_ROWS: Final = 1_000  # read by one query
SEPARATOR: Final = ","
CUT_AT_MAX_ROWS: Final = f"Cut after {MAX_ROWS:,} rows. Filter by time to export older rows."
CUT_BY_DATABASE: Final = "Cut: the database did not read the next rows in time. Choose a shorter period."
# Texts that a client or a user chose. Amounts may start with a minus sign, so they are not among them.
TEXT_COLUMNS: Final = frozenset(
    ("actor", "description", "externalId", "idempotencyKey", "label", "metadata", "owner", "reference")
)
# Otherwise PostgreSQL may read and sort all rows of a large wallet for each page.
_IN_ORDER_OF_INDEX: Final = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off"


class ExportedAdmin(SearchedAdmin):
    """Base of lists with a button that exports them."""

    export_columns: Sequence[str] = ()

    def export_row(self, row: Any) -> dict[str, Any]:
        """Return the values of the columns."""
        raise NotImplementedError

    def has_export_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("wallets.export_wallet")

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_export"
        urls: list[URLPattern] = super().get_urls()
        return [path("export/", self.admin_site.admin_view(self.export), name=name), *urls]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"can_export": self.has_export_permission(request), **(extra_context or {})}
        return super().changelist_view(request, context)

    def export(self, request: HttpRequest) -> HttpResponseBase:
        """Send the filtered list as CSV, and record who exported which rows before the first one is sent."""
        if not self.has_export_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            with bounded_queries():
                rows = self.get_changelist_instance(request).queryset
                is_cut = self._is_search_cut(request)
                self._record(request)
        except (OperationalError, DataError) as error:
            messages.error(request, error_message(error))
            return redirect(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        except IncorrectLookupParameters:
            return redirect(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        name = str(self.opts.verbose_name_plural).replace(" ", "-")
        return StreamingHttpResponse(
            self._csv(rows, TOO_MANY_MATCHES if is_cut else ""),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}-{timezone.now():%Y-%m-%d}.csv"'},
        )

    def _is_search_cut(self, request: HttpRequest) -> bool:
        term = request.GET.get(SEARCH_VAR, "").strip()
        return bool(term) and self.matching(request, self.get_queryset(request), term)[1]

    def _record(self, request: HttpRequest) -> None:
        filters = [f"{name}={value}" for name, value in request.GET.items() if name != PAGE_VAR and value]
        LogEntry.objects.create(
            user_id=request.user.pk,  # type: ignore[misc]  # an operator has an id
            content_type=ContentType.objects.get_for_model(self.model, for_concrete_model=False),
            object_repr=f"list of {self.opts.verbose_name_plural}",
            action_flag=CHANGE,
            change_message=f"Exported as CSV: {', '.join(filters) or 'all'}",
        )

    def _csv(self, rows: QuerySet[Any], remark: str) -> Iterator[bytes]:
        """Yield the columns' names, the rows page by page, and a last line if rows are missing.

        `remark` is the last line of a list that has all rows of its search, but not all that match.
        """
        yield codecs.BOM_UTF8 + csv_lines(SEPARATOR, tuple(self.export_columns))
        following = Q()
        try:
            for _ in range(MAX_ROWS // PAGE_ROWS):
                page = _read(rows.filter(following), PAGE_ROWS)
                yield csv_lines(SEPARATOR, *map(self._cells, page))
                if len(page) < PAGE_ROWS:
                    break
                following = before(page[-1].created_at, page[-1].id)
            else:
                if _read(rows.filter(following), 1):
                    yield csv_lines(SEPARATOR, (CUT_AT_MAX_ROWS,))
            if remark:
                yield csv_lines(SEPARATOR, (remark,))
        except OperationalError:
            # The status has been sent: only this line tells the operator.
            yield csv_lines(SEPARATOR, (CUT_BY_DATABASE,))

    def _cells(self, row: Any) -> tuple[object, ...]:
        values = self.export_row(row)
        if "metadata" in values:
            values["metadata"] = orjson.dumps(values["metadata"]).decode() if values["metadata"] else ""
        return tuple(
            without_formulas(values[name] or "") if name in TEXT_COLUMNS else values[name]
            for name in self.export_columns
        )


def _read(rows: QuerySet[Any], count: int) -> list[Any]:
    with bounded_queries(), connection.cursor() as cursor:
        cursor.execute(_IN_ORDER_OF_INDEX)
        return list(rows[:count])

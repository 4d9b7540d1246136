"""Read-only list pages that stay fast with ten million rows.

A list counts no rows, uses the order of one index, has at most MAX_PAGES pages, and each of its queries ends
after QUERY_TIMEOUT_SECONDS.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.paginator import Page, Paginator
from django.db import DataError, OperationalError, connection, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from psycopg.errors import QueryCanceled
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import DropdownFilter, RangeDateFilter
from unfold.views import ChangeList
from unfold.widgets import INPUT_CLASSES

from wallets import money
from wallets.admin.search import Matches
from wallets.contract.search import MAX_MATCHES

QUERY_TIMEOUT_SECONDS: Final = 5  # a longer query would take the database's time from the API
MAX_PAGES: Final = 100  # PostgreSQL reads the rows that OFFSET skips; the time filter finds older rows

TOO_MANY_MATCHES: Final = (
    f"More than {MAX_MATCHES} rows match, and some of them are not in this list. Search for something rarer."
)


class UncountedPaginator(Paginator):  # type: ignore[type-arg]
    """Paginate without COUNT(*): read one extra row to learn whether there is a next page."""

    template_name = "admin/uncounted_pages.html"
    max_pages = MAX_PAGES
    has_next = False

    @cached_property
    def count(self) -> int:
        """Return the largest number of rows that can be paged through.

        Django only compares this number with the size of a page.
        """
        return self.max_pages * self.per_page

    def page(self, number: int | str) -> Page:  # type: ignore[type-arg]
        number = self.validate_number(number)
        start = (number - 1) * self.per_page
        rows = list(self.object_list[start : start + self.per_page + 1])
        self.has_next = len(rows) > self.per_page
        return Page(rows[: self.per_page], number, self)


class IndexOrderedChangeList(ChangeList):  # type: ignore[misc]
    """Sort in the order of an index and ignore the parameter `o`."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str]:
        return list(self.model_admin.ordering)

    def get_ordering_field_columns(self) -> dict[int, str]:
        return {}

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count  # otherwise unfold's header shows the number of rows


@dataclass(frozen=True, slots=True)
class Section:
    """A table below a row's fields, with an optional link to the full list."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    link_text: str = ""
    link_url: str = ""


class ReadOnlyAdmin(ModelAdmin):  # type: ignore[misc]
    """Base of pages on which no operator can add, edit or delete rows, not even a superuser."""

    actions = None
    change_form_template = "admin/wallets/read_only.html"
    has_history = False  # operators have no actions on most models
    list_filter_submit = True
    list_per_page = 50
    ordering: Sequence[str] = ("-created_at", "-id")
    show_facets = admin.ShowFacets.NEVER  # facets count rows
    show_full_result_count = False
    sortable_by = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def sections(self, request: HttpRequest, row: Any) -> list[Section]:
        """Return the tables below the fields of a row's page."""
        return []

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context |= {"sections": self.sections(request, kwargs["obj"]), "show_history": self.has_history}
        response: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return response

    def get_paginator(self, request: HttpRequest, rows: QuerySet[Any], *args: Any, **options: Any) -> Any:
        """Return an uncounted paginator for the list. The few rows of a history page are counted."""
        pages = UncountedPaginator if rows.model is self.model else Paginator
        return pages(rows, *args, **options)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return IndexOrderedChangeList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            with bounded_queries():
                response: HttpResponse = super().changelist_view(request, extra_context)
                return response
        except (OperationalError, DataError) as error:
            if not request.GET:
                raise  # the list without filters: the operator cannot narrow it
            messages.error(request, error_message(error))
        return redirect(request.path)


class SearchedAdmin(ReadOnlyAdmin):
    """Base of lists whose search looks terms up in indexes."""

    change_list_template = "admin/wallets/searched_list.html"
    search_fields = ("id",)  # shows the search box; get_search_results does the search

    def find(self, term: str) -> Matches:
        """Return the rows that match the term."""
        raise NotImplementedError

    def matching(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> tuple[QuerySet[Any], bool]:
        """Filter for the rows of a search. Also return whether some are missing, because too many match."""
        found = self.find(term)
        return rows.filter(id__in=found.ids), found.is_cut

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not (term := search_term.strip()):
            return queryset, False
        rows, is_cut = self.matching(request, queryset, term)
        if is_cut:
            messages.warning(request, TOO_MANY_MATCHES)
        return rows, False


@contextmanager
def bounded_queries() -> Iterator[None]:
    """Open a transaction whose queries end after QUERY_TIMEOUT_SECONDS."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = '{QUERY_TIMEOUT_SECONDS}s'")
        yield


def error_message(error: OperationalError | DataError) -> str:
    """Tell the operator why the search failed. Raises the error if the search is not its cause."""
    if isinstance(error, DataError):
        return "The search contains characters that are not supported."
    if isinstance(error.__cause__, QueryCanceled):
        return (
            f"The search took more than {QUERY_TIMEOUT_SECONDS} seconds."
            " Narrow the search or choose a shorter period."
        )
    raise error


class CurrencyFilter(DropdownFilter):  # type: ignore[misc]
    """Offer all known currencies: to find those in use, PostgreSQL would read the whole table."""

    title = "currency"
    parameter_name = "currency"
    column = "currency"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return [(code, code) for code in sorted(money.FRACTION_DIGITS)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.column: self.value()}) if self.value() else queryset


class TimeRangeForm(forms.Form):
    """A period with two optional ends, in UTC, entered with the browser's own picker."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for end, label in (("from", "From (UTC)"), ("to", "Before (UTC)")):
            attributes = {"type": "datetime-local", "step": "1", "class": " ".join(INPUT_CLASSES)}
            picker = forms.DateTimeInput(attributes)
            self.fields[f"{name}_{end}"] = forms.DateTimeField(label=label, required=False, widget=picker)


class TimeFilter(RangeDateFilter):  # type: ignore[misc]
    form_class = TimeRangeForm
    template = "unfold/filters/filters_field.html"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        form = TimeRangeForm(self.field_path, data=self.used_parameters)
        if not form.is_valid():
            messages.error(request, "This is not a valid time. Use the format 2026-10-30T12:00.")
            return queryset.none()
        start, end = form.cleaned_data.values()
        if start:
            queryset = queryset.filter(**{f"{self.field_path}__gte": start})
        if end:
            queryset = queryset.filter(**{f"{self.field_path}__lt": end})
        return queryset


# --- Formatting -------------------------------------------------------------------------------------
COLOURS: Final = {
    "ACTIVE": "success",
    "FROZEN": "info",
    "COMPLETED": "success",
    "REJECTED": "danger",
    "CAPTURED": "info",
    "EXPIRED": "warning",
    "REVOKED": "danger",
}
# With dir="auto" a text that a client chose cannot reverse the text around the link.
LINK: Final = '<a href="{}" dir="auto" class="text-primary-600 dark:text-primary-400">{}</a>'


def show_amount(amount: Decimal | None, currency: str) -> str | None:
    return None if amount is None else money.format_amount(amount, currency)


def show_time(time: datetime) -> SafeString:
    return no_wrap(f"{time:%Y-%m-%d %H:%M:%S}")


def no_wrap(text: str) -> SafeString:
    return format_html('<span class="whitespace-nowrap">{}</span>', text)


def change_url(row: Model) -> str:
    return _change_url(type(row), row.pk)


def link(row: Model, text: str) -> SafeString:
    return link_by_id(type(row), row.pk, text)


def link_by_id(model: type[Model], id: UUID, text: str) -> SafeString:
    """Link to a row without reading it. `text` is escaped: clients choose labels."""
    return format_html(LINK, _change_url(model, id), text)


def _change_url(model: type[Model], id: UUID) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[id])

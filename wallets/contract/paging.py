"""Cursor paging: newest first, no count, stable while rows are added.

A cursor contains its list and its filters. It is validated, not signed: it permits nothing that the request
without it would not, and a change of a key does not invalidate it.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Final, Generic, Self, TypeVar
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Func, IntegerField, Model, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast
from django.http import QueryDict
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic import ValidationError as PydanticError
from rest_framework.response import Response

from wallets.contract.fields import Id, TimeInBody, format_time
from wallets.contract.parsing import check
from wallets.contract.request_schemas import PageQuery
from wallets.database_retry import retry_until_deadline
from wallets.problems import FieldError, ValidationError

LONG_TEXTS: Final = frozenset(("metadata", "description", "reference"))  # 4,096 bytes; 500, 255 characters
MAX_PAGE_TEXT_BYTES: Final = 262_144  # of LONG_TEXTS in a page
UNMEASURED_ROWS: Final = 50  # a page of so many rows is not measured
MAX_SCANNED_ROWS: Final = 3000  # of an index, for a page whose filters the index does not serve
# PostgreSQL estimates as many rows for the largest wallet as for the average one, and would sort them all.
IN_ORDER_OF_INDEX: Final = (
    "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
)
METADATA: Final = "metadata."  # the start of parameters such as metadata.order=7
QueryT = TypeVar("QueryT", bound=PageQuery)
ModelT = TypeVar("ModelT", bound=Model)


def before(created_at: datetime, id: UUID) -> Q:
    """Return the filter for the rows after this one in a list that is newest first."""
    # In this form the index on created_at limits the scan.
    return Q(created_at__lte=created_at) & (Q(created_at__lt=created_at) | Q(id__lt=id))


class Cursor(BaseModel):
    """The last row of the previous page, the list, and its filters as the client wrote them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ORDER: ClassVar[tuple[str, ...]] = ()  # the fields that order the list

    list_name: str
    filters: dict[str, str]

    def encode(self) -> str:
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Parse a cursor. Raises ValidationError for a text that encode() did not make."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            return cls.model_validate_json(base64.b64decode(padded, b"-_", validate=True))
        except (UnicodeEncodeError, binascii.Error, PydanticError):
            raise _not_of_this_list() from None

    def after(self) -> Q:
        """Return the filter for the rows after the cursor, newest first."""
        raise NotImplementedError

    @staticmethod
    def up_to(last: Any) -> Q:
        """Return the filter for the row `last` and the rows before it, newest first."""
        raise NotImplementedError


class TimeCursor(Cursor):
    """A cursor of a list in the order of time."""

    ORDER = ("created_at", "id")

    created_at: Annotated[TimeInBody, PlainSerializer(format_time)]
    id: Id

    def after(self) -> Q:
        return before(self.created_at, self.id)

    @staticmethod
    def up_to(last: Any) -> Q:
        return Q(created_at__gte=last.created_at) & (Q(created_at__gt=last.created_at) | Q(id__gte=last.id))


class NumberCursor(Cursor):
    """A cursor of a list in the order of numeric ids."""

    ORDER = ("id",)

    id: Annotated[int, Field(strict=True, ge=1, lt=2**63)]

    def after(self) -> Q:
        return Q(id__lt=self.id)


class Page(Generic[QueryT]):
    """One page of a list: the request and the response.

    `list_name` identifies the list among all lists, including those of other wallets and webhooks.
    """

    def __init__(
        self,
        parameters: QueryDict,
        schema: type[QueryT],
        list_name: str,
        cursor_class: type[Cursor] = TimeCursor,
    ) -> None:
        self._cursor_class = cursor_class
        given = single(parameters)
        self._list_name = list_name
        self._filters = {name: value for name, value in given.items() if name not in ("limit", "cursor")}
        self._cursor = cursor_class.decode(given["cursor"]) if given.get("cursor") else None
        if self._cursor:
            if self._cursor.list_name != list_name:
                raise _not_of_this_list()
            if self._filters and self._filters != self._cursor.filters:
                raise _invalid("cursor", "belongs to other filters")
            self._filters = self._cursor.filters
        self.query = check(schema, _nested(self._filters | given))

    def of(
        self,
        rows: QuerySet[ModelT],
        scanned: QuerySet[ModelT] | None = None,
        has_few_rows: bool = False,
    ) -> tuple[list[ModelT], str | None]:
        """Return the rows of this page, newest first, and the cursor of the next page.

        `scanned` contains the rows and further ones. At most MAX_SCANNED_ROWS of it are read: a page that
        ends there may be shorter than the limit, or empty, and has a cursor. With `has_few_rows` the rows are
        sorted; otherwise they are read in the order of an index.
        """
        if has_few_rows:
            return self._read(rows, scanned)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(IN_ORDER_OF_INDEX)
            return self._read(rows, scanned)

    def _read(
        self, rows: QuerySet[ModelT], scanned: QuerySet[ModelT] | None
    ) -> tuple[list[ModelT], str | None]:
        last = None if scanned is None else self._following(scanned)[MAX_SCANNED_ROWS - 1 :].first()
        wanted = self._following(rows if last is None else rows.filter(self._cursor_class.up_to(last)))
        size = self._page_size(wanted)
        page = list(wanted[: size + 1])
        if len(page) > size:
            page.pop()
            return page, self._cursor_after(page[-1])
        return page, None if last is None else self._cursor_after(last)

    def _following(self, rows: QuerySet[ModelT]) -> QuerySet[ModelT]:
        """Return the rows after the cursor, newest first."""
        after = self._cursor.after() if self._cursor else Q()
        return rows.filter(after).order_by(*(f"-{name}" for name in self._cursor_class.ORDER))

    def respond(
        self,
        rows: QuerySet[ModelT],
        render: Callable[[list[ModelT]], Iterable[Any]],
        scanned: QuerySet[ModelT] | None = None,
        has_few_rows: bool = False,
    ) -> Response:
        """Respond with this page of the rows; `scanned` and `has_few_rows` as in `of`."""
        found, next_cursor = retry_until_deadline(lambda: self.of(rows, scanned, has_few_rows))
        return Response({"items": list(render(found)), "nextCursor": next_cursor})

    def _page_size(self, rows: QuerySet[ModelT]) -> int:
        """Return the maximum number of rows: fewer than the limit if their texts are long.

        The database measures the texts, because reading the metadata of 500 rows would take too long.
        """
        names = {field.name for field in rows.model._meta.get_fields()} & LONG_TEXTS
        if self.query.limit <= UNMEASURED_ROWS or not names:
            return self.query.limit
        length = sum((_octets(name) for name in sorted(names)), start=Value(0))
        lengths = rows.annotate(text_length=length).values_list("text_length", flat=True)
        fitting: int = sum(total <= MAX_PAGE_TEXT_BYTES for total in accumulate(lengths[: self.query.limit]))
        return max(1, fitting)

    def _cursor_after(self, row: ModelT) -> str:
        position = {name: getattr(row, name) for name in self._cursor_class.ORDER}
        return self._cursor_class.model_construct(
            list_name=self._list_name, filters=self._filters, **position
        ).encode()


def _octets(name: str) -> Func:
    return Func(Cast(name, TextField()), function="octet_length", output_field=IntegerField())


def single(parameters: QueryDict) -> dict[str, str]:
    """Return the parameters. Raises ValidationError for a repeated one."""
    for name, values in parameters.lists():
        if len(values) > 1:
            raise _invalid(name, "is given twice")
    return parameters.dict()  # type: ignore[return-value]


def _nested(parameters: dict[str, str]) -> dict[str, Any]:
    """Return the parameters, with those that name a key of the metadata in one dictionary."""
    of_metadata = {
        name.removeprefix(METADATA): text for name, text in parameters.items() if name.startswith(METADATA)
    }
    others = {name: text for name, text in parameters.items() if not name.startswith(METADATA)}
    return {"metadata": of_metadata, **others} if of_metadata else others


def _not_of_this_list() -> ValidationError:
    return _invalid("cursor", "is not a cursor of this list")


def _invalid(field: str, detail: str) -> ValidationError:
    return ValidationError(errors=[FieldError(field, "invalid", detail)])

"""Cursor paging: newest first, no count, stable while rows are added.

A cursor carries its list and its filters. It is checked, not signed: it grants nothing that the request
without it would not, and no change of a key invalidates it.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Final, Generic, Self, TypeVar

from django.db.models import Func, IntegerField, Model, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast
from django.http import QueryDict
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic import ValidationError as PydanticError
from rest_framework.response import Response

from wallets.contract.fields import Id, TimeParameter, format_time
from wallets.contract.parsing import check
from wallets.contract.request_schemas import PageQuery
from wallets.database_retry import retry_until_deadline
from wallets.problems import FieldError, ValidationError

LONG_TEXTS: Final = frozenset(("metadata", "description"))  # 4,096 bytes, and 500 characters
MAX_PAGE_TEXT_BYTES: Final = 262_144  # of them, in a page
UNMEASURED_ROWS: Final = 50  # are not measured
QueryT = TypeVar("QueryT", bound=PageQuery)
ModelT = TypeVar("ModelT", bound=Model)


class Cursor(BaseModel):
    """The last row of the page before, the list that it is of, and its filters as they were written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ORDER: ClassVar[tuple[str, ...]] = ()  # the fields that order the list

    list_name: str
    filters: dict[str, str]

    def encode(self) -> str:
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Raises ValidationError for what encode() did not make."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            return cls.model_validate_json(base64.b64decode(padded, b"-_", validate=True))
        except (UnicodeEncodeError, binascii.Error, PydanticError):
            raise _not_of_this_list() from None

    def after(self) -> Q:
        """The rows after the cursor, newest first."""
        raise NotImplementedError


class TimeCursor(Cursor):
    """A cursor of a list that is ordered by time."""

    ORDER = ("created_at", "id")

    created_at: Annotated[TimeParameter, PlainSerializer(format_time)]
    id: Id

    def after(self) -> Q:
        # Written so that the index on created_at bounds the scan.
        bound = Q(created_at__lte=self.created_at)
        return bound & (Q(created_at__lt=self.created_at) | Q(id__lt=self.id))


class Number(Cursor):
    """A cursor of a list that is ordered by ids that are numbers."""

    ORDER = ("id",)

    id: Annotated[int, Field(strict=True, ge=1, lt=2**63)]

    def after(self) -> Q:
        return Q(id__lt=self.id)


class Page(Generic[QueryT]):
    """One page of a list: what was asked for, and the answer to it.

    `list_name` tells the list from all others, those of other wallets and webhooks included.
    """

    def __init__(
        self, parameters: QueryDict, shape: type[QueryT], list_name: str, kind: type[Cursor] = TimeCursor
    ) -> None:
        self._kind = kind
        given = single(parameters)
        self._list_name = list_name
        self._filters = {name: value for name, value in given.items() if name not in ("limit", "cursor")}
        self._cursor = kind.decode(given["cursor"]) if given.get("cursor") else None
        if self._cursor:
            if self._cursor.list_name != list_name:
                raise _not_of_this_list()
            if self._filters and self._filters != self._cursor.filters:
                raise _invalid("cursor", "was made with other filters")
            self._filters = self._cursor.filters
        self.query = check(shape, self._filters | given)

    def of(self, rows: QuerySet[ModelT]) -> tuple[list[ModelT], str | None]:
        """The rows of this page, newest first, and the cursor of the next one."""
        after = self._cursor.after() if self._cursor else Q()
        wanted = rows.filter(after).order_by(*(f"-{name}" for name in self._kind.ORDER))
        most = self._fitting(wanted)
        page = list(wanted[: most + 1])
        if len(page) <= most:
            return page, None
        page.pop()
        return page, self._cursor_after(page[-1])

    def answer(self, rows: QuerySet[ModelT], render: Callable[[list[ModelT]], Iterable[Any]]) -> Response:
        """This page of the rows as a response."""
        found, next_cursor = retry_until_deadline(lambda: self.of(rows))
        return Response({"items": list(render(found)), "nextCursor": next_cursor})

    def _fitting(self, rows: QuerySet[ModelT]) -> int:
        """How many rows the page has at most: fewer than asked for if their texts are long.

        The database measures them: to read the metadata of 500 rows takes longer than a page may.
        """
        names = {field.name for field in rows.model._meta.get_fields()} & LONG_TEXTS
        if self.query.limit <= UNMEASURED_ROWS or not names:
            return self.query.limit
        length = sum((_octets(name) for name in sorted(names)), start=Value(0))
        lengths = rows.annotate(text_length=length).values_list("text_length", flat=True)
        fitting: int = sum(total <= MAX_PAGE_TEXT_BYTES for total in accumulate(lengths[: self.query.limit]))
        return max(1, fitting)

    def _cursor_after(self, row: ModelT) -> str:
        position = {name: getattr(row, name) for name in self._kind.ORDER}
        return self._kind.model_construct(
            list_name=self._list_name, filters=self._filters, **position
        ).encode()


def _octets(name: str) -> Func:
    return Func(Cast(name, TextField()), function="octet_length", output_field=IntegerField())


def single(parameters: QueryDict) -> dict[str, str]:
    """Raises ValidationError for a parameter that stands twice."""
    for name, values in parameters.lists():
        if len(values) > 1:
            raise _invalid(name, "stands twice")
    return parameters.dict()  # type: ignore[return-value]


def _not_of_this_list() -> ValidationError:
    return _invalid("cursor", "is not a cursor of this list")


def _invalid(field: str, detail: str) -> ValidationError:
    return ValidationError(errors=[FieldError(field, "invalid", detail)])

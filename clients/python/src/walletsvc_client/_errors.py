"""The exceptions. Each problem code has a subclass, which `make clients` generates from the service."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from ._generated.models import FieldProblem


class WalletsvcError(Exception):
    """The service refused a request, or its outcome is unknown. Decide by the class or by `code`.

    `code`, `title`, `detail`, `status`, `request_id`, `errors` and `operation_id` are those of the problem;
    `remaining` and `available` are the amounts that a limit permitted when it refused the request.
    """

    code: str = ""
    title: str = ""
    detail: str = ""
    status: int | None = None  # None if there was no response
    request_id: str | None = None
    errors: Sequence["FieldProblem"] = ()
    operation_id: UUID | None = None
    remaining: Decimal | None = None
    available: Decimal | None = None
    idempotency_key: str | None = None  # of the request; send it again if the outcome is unknown
    outcome_is_unknown: bool = False  # whether the service may have carried out the request

    def __str__(self) -> str:
        text = f"{self.code}: {self.detail}"
        return f"{text} (request {self.request_id})" if self.request_id else text


class NoResponse(WalletsvcError):
    """The connection failed, or the response did not arrive in time."""

    code = "no_response"


class UnexpectedResponse(WalletsvcError):
    """The response is not one of walletsvc: a proxy sent it, or the base URL is wrong."""

    code = "unexpected_response"

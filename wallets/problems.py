"""Every refusal a client can get: one class each. `code` is the contract, `detail` is for people.

Sources: RFC 9457 for the form, api.md for the codes. Pure Python, so that the rules can name them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from uuid import UUID

CONTENT_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with the shape of a request."""

    field: str
    code: str
    detail: str


class Problem(Exception):
    """Base of all. Raised, it becomes one problem+json answer; in the ledger it is also a result."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    default_detail: ClassVar[str] = ""
    headers: Mapping[str, str] = {}

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        operation_id: UUID | None = None,
        replayed: bool = False,
    ) -> None:
        super().__init__(detail or self.default_detail or self.title)
        self.detail = detail or self.default_detail or self.title
        self.errors = errors
        self.operation_id = operation_id  # the recorded rejection, where there is one
        self.replayed = replayed

    def as_json(self, request_id: str) -> dict[str, Any]:
        """RFC 9457, with our code, requestId, and errors or operationId where there are any."""
        content: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "requestId": request_id,
        }
        if self.errors:
            content["errors"] = [
                {"field": error.field, "code": error.code, "detail": error.detail} for error in self.errors
            ]
        if self.operation_id:
            content["operationId"] = str(self.operation_id)
        return content


# --- 400: the request cannot be read ----------------------------------------------------------------
class BadRequest(Problem):
    code, status, title = "bad_request", 400, "The request is not valid HTTP for this service"


class MalformedJson(Problem):
    code, status, title = "malformed_json", 400, "The body is not one JSON object in UTF-8"


class ValidationError(Problem):
    code, status, title = "validation_error", 400, "The request does not have the right shape"
    default_detail = "See errors for what is wrong with which field."


# --- 401, 403: who asks, and may they ---------------------------------------------------------------
class Unauthorized(Problem):
    code, status, title = "unauthorized", 401, "Who asks is not known"
    default_detail = "This API takes no request without valid credentials."
    headers = {"WWW-Authenticate": "Bearer"}


class InvalidCredentials(Problem):
    code, status, title = "invalid_credentials", 401, "The login or the password is wrong"
    headers = {"WWW-Authenticate": "Bearer"}


class Forbidden(Problem):
    code, status, title = "forbidden", 403, "This is not allowed"


# --- 404, 405, 406: there is no such thing ----------------------------------------------------------
class NotFound(Problem):
    code, status, title = "not_found", 404, "There is nothing at this address"


class WalletNotFound(Problem):
    code, status, title = "wallet_not_found", 404, "There is no such wallet"


class OperationNotFound(Problem):
    code, status, title = "operation_not_found", 404, "There is no such operation"


class TransferNotFound(Problem):
    code, status, title = "transfer_not_found", 404, "There is no such transfer"


class HoldNotFound(Problem):
    code, status, title = "hold_not_found", 404, "There is no such hold"


class WebhookNotFound(Problem):
    code, status, title = "webhook_not_found", 404, "There is no such webhook"


class MethodNotAllowed(Problem):
    code, status, title = "method_not_allowed", 405, "The address does not take this method"


class NotAcceptable(Problem):
    code, status, title = "not_acceptable", 406, "The answer can only be given as application/json"


# --- 409: a rule refused ----------------------------------------------------------------------------
class EmailTaken(Problem):
    code, status, title = "email_taken", 409, "Somebody has signed up with this e-mail address"


class WalletClosed(Problem):
    code, status, title = "wallet_closed", 409, "The wallet is closed"


class WalletFrozen(Problem):
    code, status, title = "wallet_frozen", 409, "The wallet is frozen and moves no money"


class CurrencyMismatch(Problem):
    code, status, title = "currency_mismatch", 409, "The wallets have different currencies"


class HoldNotActive(Problem):
    code, status, title = "hold_not_active", 409, "The hold has ended"


class HoldAmountExceeded(Problem):
    code, status, title = "hold_amount_exceeded", 409, "The hold has set less aside than the amount"


class OperationNotReversible(Problem):
    code, status, title = "operation_not_reversible", 409, "The operation cannot be reversed"
    default_detail = "What was rejected, moved no money or is a reversal itself cannot be reversed."


class ReversalExceedsOriginal(Problem):
    code, status, title = "reversal_exceeds_original", 409, "Less than the amount is left to reverse"


class WalletNotEmpty(Problem):
    code, status, title = "wallet_not_empty", 409, "Only an empty wallet can be closed"


class BalanceLimitExceeded(Problem):
    code, status, title = "balance_limit_exceeded", 409, "The balance would pass the wallet's limit"


class TargetCannotReceive(Problem):
    code, status, title = "target_cannot_receive", 409, "The other wallet cannot receive the amount"


class InsufficientFunds(Problem):
    code, status, title = "insufficient_funds", 409, "The wallet has less available than the amount"


class RejectedByOperator(Problem):
    """A decision, not an answer: the operation was accepted asynchronously, and could not be carried out."""

    code, status, title = "rejected_by_operator", 409, "An operator rejected the operation"


class TooManyWebhooks(Problem):
    code, status, title = "too_many_webhooks", 409, "There are as many webhooks as there may be"


class WebhookNameTaken(Problem):
    code, status, title = "webhook_name_taken", 409, "Another webhook has this name"


# --- 412 to 429 -------------------------------------------------------------------------------------
class PreconditionFailed(Problem):
    code, status, title = "precondition_failed", 412, "The wallet is no longer as If-Match says"


class PayloadTooLarge(Problem):
    code, status, title = "payload_too_large", 413, "The body is too large"


class UnsupportedMediaType(Problem):
    code, status, title = "unsupported_media_type", 415, "The body must be application/json in UTF-8"


class IdempotencyKeyReused(Problem):
    code, status, title = "idempotency_key_reused", 422, "The key belongs to a different request"


class TooManyRequests(Problem):
    code, status, title = "too_many_requests", 429, "Too much at once; nothing was applied"
    headers = {"Retry-After": "1"}


# --- 5xx: it is us ----------------------------------------------------------------------------------
class InternalError(Problem):
    code, status, title = "internal_error", 500, "A fault in the service; it has been logged"


class Unavailable(Problem):
    code, status, title = "unavailable", 503, "The database could not be reached in time"
    default_detail = "With an idempotency key the request is safe to repeat."
    headers = {"Retry-After": "1"}


class QueryTimeout(Problem):
    code, status, title = "query_timeout", 503, "The database took too long for this request"
    default_detail = "Ask for less, or later. With an idempotency key the request is safe to repeat."
    headers = {"Retry-After": "10"}


# The rules' own refusals by code: a recorded rejection is answered again from its row.
REJECTIONS: dict[str, type[Problem]] = {
    problem.code: problem
    for problem in (
        CurrencyMismatch,
        WalletClosed,
        WalletFrozen,
        HoldNotActive,
        HoldAmountExceeded,
        OperationNotReversible,
        ReversalExceedsOriginal,
        InsufficientFunds,
        BalanceLimitExceeded,
        TargetCannotReceive,
        RejectedByOperator,
    )
}

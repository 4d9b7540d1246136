"""Every problem that the API returns, one class each. Clients rely on `code`; `detail` is for people.

Sources: RFC 9457 for the format, the API reference for the codes. No imports, so that the rules can use them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from uuid import UUID

CONTENT_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field of a request."""

    field: str
    code: str
    detail: str


class Problem(Exception):
    """The base class. A raised problem becomes a problem+json response; the ledger also returns problems."""

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
        limits: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or self.default_detail or self.title)
        self.detail = detail or self.default_detail or self.title
        self.errors = errors
        self.operation_id = operation_id  # of the recorded rejection, if there is one
        self.replayed = replayed
        self.limits = limits or {}  # what was left when the request was refused; not recorded

    def as_json(self, request_id: str) -> dict[str, Any]:
        """Return the members of RFC 9457, code and requestId; if present, errors, operationId and limits."""
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
        return {**content, **self.limits}


# --- 400: malformed requests ----------------------------------------------------------------
class BadRequest(Problem):
    code, status, title = "bad_request", 400, "Bad request"
    default_detail = "The request is not valid HTTP for this service."


class MalformedJson(Problem):
    code, status, title = "malformed_json", 400, "Malformed JSON"
    default_detail = "Send one JSON object in UTF-8."


class ValidationError(Problem):
    code, status, title = "validation_error", 400, "Validation error"
    default_detail = "See errors for the fields that are wrong."


# --- 401, 403: authentication and permission ---------------------------------------------------------------
class Unauthorized(Problem):
    code, status, title = "unauthorized", 401, "Authentication required"
    default_detail = "Send `Authorization: Bearer <api key>`, or log in."
    headers = {"WWW-Authenticate": "Bearer"}


class InvalidCredentials(Problem):
    code, status, title = "invalid_credentials", 401, "Wrong e-mail address or password"
    default_detail = "Check the e-mail address and the password."
    headers = {"WWW-Authenticate": "Bearer"}


class Forbidden(Problem):
    code, status, title = "forbidden", 403, "Forbidden"
    default_detail = "The credentials do not permit this request."


# --- 404, 405, 406: nothing to respond with ----------------------------------------------------------
class NotFound(Problem):
    code, status, title = "not_found", 404, "Not found"
    default_detail = "No resource has this URL. Check the path."


class WalletNotFound(Problem):
    code, status, title = "wallet_not_found", 404, "Wallet not found"
    default_detail = "No wallet with this id exists, or the credentials do not permit access to it."


class OperationNotFound(Problem):
    code, status, title = "operation_not_found", 404, "Operation not found"
    default_detail = "No operation with this id exists, or the credentials do not permit access to it."


class TransferNotFound(Problem):
    code, status, title = "transfer_not_found", 404, "Transfer not found"
    default_detail = "No transfer with this id exists, or the credentials do not permit access to it."


class HoldNotFound(Problem):
    code, status, title = "hold_not_found", 404, "Hold not found"
    default_detail = "No hold with this id exists, or the credentials do not permit access to it."


class WebhookNotFound(Problem):
    code, status, title = "webhook_not_found", 404, "Webhook not found"
    default_detail = "No webhook with this id exists, or the credentials do not permit access to it."


class MethodNotAllowed(Problem):
    code, status, title = "method_not_allowed", 405, "Method not allowed"
    default_detail = "The Allow header lists the methods of this URL."


class NotAcceptable(Problem):
    code, status, title = "not_acceptable", 406, "Not acceptable"
    default_detail = "Send `Accept: application/json`, or no Accept header."


# --- 409: refused by a rule ----------------------------------------------------------------------------
class EmailTaken(Problem):
    code, status, title = "email_taken", 409, "E-mail address taken"
    default_detail = "An account with this e-mail address exists. Log in, or sign up with another one."


class ExternalIdTaken(Problem):
    code, status, title = "external_id_taken", 409, "External id taken"
    default_detail = "Another wallet has this externalId. Find it with GET /wallets?externalId=."


class WalletClosed(Problem):
    code, status, title = "wallet_closed", 409, "Wallet closed"
    default_detail = "A closed wallet moves no money. Use another wallet."


class WalletFrozen(Problem):
    code, status, title = "wallet_frozen", 409, "Wallet frozen"
    default_detail = "A frozen wallet moves no money until it is ACTIVE again."


class CurrencyMismatch(Problem):
    code, status, title = "currency_mismatch", 409, "Currency mismatch"
    default_detail = "Both wallets of a transfer must have the same currency."


class HoldNotActive(Problem):
    code, status, title = "hold_not_active", 409, "Hold not active"
    default_detail = "The hold is captured, voided or expired."


class HoldAmountExceeded(Problem):
    code, status, title = "hold_amount_exceeded", 409, "Hold amount exceeded"
    default_detail = "Capture at most the amount of the hold."


class OperationNotReversible(Problem):
    code, status, title = "operation_not_reversible", 409, "Operation not reversible"
    default_detail = "A rejected operation, one that moved no money, and a reversal cannot be reversed."


class ReversalExceedsOriginal(Problem):
    code, status, title = "reversal_exceeds_original", 409, "Reversal exceeds original"
    default_detail = "Reverse at most the remaining amount of the original operation."


class WalletNotEmpty(Problem):
    code, status, title = "wallet_not_empty", 409, "Wallet not empty"
    default_detail = "Only a wallet with no balance and no held amount can be closed."


class BalanceLimitExceeded(Problem):
    code, status, title = "balance_limit_exceeded", 409, "Balance limit exceeded"
    default_detail = "The balance would exceed the maximum balance of the wallet."


class TargetCannotReceive(Problem):
    code, status, title = "target_cannot_receive", 409, "Target cannot receive"
    default_detail = "The other wallet cannot receive this amount."


class InsufficientFunds(Problem):
    code, status, title = "insufficient_funds", 409, "Insufficient funds"
    default_detail = "The amount exceeds the available balance of the wallet."


class RejectedByOperator(Problem):
    """An operator's decision on an operation that was accepted asynchronously and could not be executed."""

    code, status, title = "rejected_by_operator", 409, "Rejected by operator"
    default_detail = "The operation could not be executed, and an operator rejected it."


class TooManyWebhooks(Problem):
    code, status, title = "too_many_webhooks", 409, "Too many webhooks"
    default_detail = "Delete a webhook before you register another one."


class WebhookNameTaken(Problem):
    code, status, title = "webhook_name_taken", 409, "Webhook name taken"
    default_detail = "Another webhook has this name. Choose a different one."


# --- 412 to 429 -------------------------------------------------------------------------------------
class PreconditionFailed(Problem):
    code, status, title = "precondition_failed", 412, "Precondition failed"
    default_detail = "The wallet has changed since the ETag in If-Match. Read it again."


class PayloadTooLarge(Problem):
    code, status, title = "payload_too_large", 413, "Payload too large"
    default_detail = "The body is too large. Send a smaller one."


class UnsupportedMediaType(Problem):
    code, status, title = "unsupported_media_type", 415, "Unsupported media type"
    default_detail = "Send `Content-Type: application/json`, in UTF-8."


class IdempotencyKeyReused(Problem):
    code, status, title = "idempotency_key_reused", 422, "Idempotency key reused"
    default_detail = "The idempotency key or id belongs to a different request. Use a new one."


class TooManyRequests(Problem):
    code, status, title = "too_many_requests", 429, "Too many requests"
    default_detail = "Nothing was applied. Retry after the time in Retry-After."
    headers = {"Retry-After": "1"}


# --- 5xx: failures of the service
# ----------------------------------------------------------------------------------
class InternalError(Problem):
    code, status, title = "internal_error", 500, "Internal error"
    default_detail = "The service failed and logged the error. Report the requestId to the operator."


class Unavailable(Problem):
    code, status, title = "unavailable", 503, "Service unavailable"
    default_detail = (
        "The database is unavailable; the outcome is unknown. Retry with the same idempotency key."
    )
    headers = {"Retry-After": "1"}


class QueryTimeout(Problem):
    code, status, title = "query_timeout", 503, "Query timeout"
    default_detail = "The request took too long in the database. Request less data, or retry later."
    headers = {"Retry-After": "10"}


# The refusals by a rule, by code: a replay of a recorded rejection is built from its row.
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

"""Every problem that the API returns, one class each. Clients rely on `code`; `detail` is for people.

Sources: RFC 9457 for the format, the API reference for the codes. No imports, so that the rules can use them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from uuid import UUID

CONTENT_TYPE: Final = "application/problem+json"
PAGES_PATH: Final = "/errors/"  # of the pages that wallets/pages/problem_types.py serves, one for each code


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
    cause: ClassVar[str]  # for the page of the code, and docs/errors.md
    action: ClassVar[str]  # of the client or its user
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

    def as_json(self, request_id: str, public_url: str = "") -> dict[str, Any]:
        """Return the members of RFC 9457, code and requestId; if present, errors, operationId and limits.

        `type` is the URL of the page of the code; without a public URL it is relative to that of the request.
        """
        content: dict[str, Any] = {
            "type": f"{public_url}{PAGES_PATH}{self.code}",
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
    cause = "the request is not valid HTTP for this service"
    action = "correct the client"
    default_detail = "The request is not valid HTTP for this service."


class MalformedJson(Problem):
    code, status, title = "malformed_json", 400, "Malformed JSON"
    cause = "the body is not one JSON object in UTF-8, repeats a name, or is too large in structure"
    action = "correct the client"
    default_detail = "Send one JSON object in UTF-8."


class ValidationError(Problem):
    code, status, title = "validation_error", 400, "Validation error"
    cause = "a field, parameter or header is missing, unknown or invalid"
    action = "read `errors`; the key stays free"
    default_detail = "See errors for the fields that are wrong."


# --- 401, 403: authentication and permission ---------------------------------------------------------------
class Unauthorized(Problem):
    code, status, title = "unauthorized", 401, "Authentication required"
    cause = "the credentials are missing, unknown, revoked or expired"
    action = "send a valid API key or session"
    default_detail = "Send `Authorization: Bearer <api key>`, or log in."
    headers = {"WWW-Authenticate": "Bearer"}


class InvalidCredentials(Problem):
    code, status, title = "invalid_credentials", 401, "Wrong e-mail address or password"
    cause = "the login or the password is wrong"
    action = "ask the user again"
    default_detail = "Check the e-mail address and the password."
    headers = {"WWW-Authenticate": "Bearer"}


class Forbidden(Problem):
    code, status, title = "forbidden", 403, "Forbidden"
    cause = "the key or session lacks the scope, or the CSRF token is missing"
    action = "use a key with the scope"
    default_detail = "The credentials do not permit this request."


# --- 404, 405, 406: nothing to respond with ----------------------------------------------------------
class NotFound(Problem):
    code, status, title = "not_found", 404, "Not found"
    cause = "no endpoint has this address"
    action = "correct the address"
    default_detail = "No resource has this URL. Check the path."


class WalletNotFound(Problem):
    code, status, title = "wallet_not_found", 404, "Wallet not found"
    cause = "the wallet does not exist, or the caller may not see it; 409 within an atomic bulk"
    action = "check the id; the key stays free"
    default_detail = "No wallet with this id exists, or the credentials do not permit access to it."


class AccountNotFound(Problem):
    code, status, title = "account_not_found", 404, "Account not found"
    cause = "no active account has verified the e-mail address"
    action = "check the address, or ask its owner to verify it"
    default_detail = "No active account has verified this e-mail address."


class OperationNotFound(Problem):
    code, status, title = "operation_not_found", 404, "Operation not found"
    cause = "the operation does not exist, or the caller may not see it"
    action = "check the id; the key stays free"
    default_detail = "No operation with this id exists, or the credentials do not permit access to it."


class TransferNotFound(Problem):
    code, status, title = "transfer_not_found", 404, "Transfer not found"
    cause = "the transfer does not exist, or the caller may not see it"
    action = "check the id"
    default_detail = "No transfer with this id exists, or the credentials do not permit access to it."


class HoldNotFound(Problem):
    code, status, title = "hold_not_found", 404, "Hold not found"
    cause = "the hold does not exist, or the caller may not see it"
    action = "check the id; the key stays free"
    default_detail = "No hold with this id exists, or the credentials do not permit access to it."


class WebhookNotFound(Problem):
    code, status, title = "webhook_not_found", 404, "Webhook not found"
    cause = "the webhook does not exist"
    action = "check the id"
    default_detail = "No webhook with this id exists, or the credentials do not permit access to it."


class MethodNotAllowed(Problem):
    code, status, title = "method_not_allowed", 405, "Method not allowed"
    cause = "the endpoint does not support the method"
    action = "use a method from `Allow`"
    default_detail = "The Allow header lists the methods of this URL."


class NotAcceptable(Problem):
    code, status, title = "not_acceptable", 406, "Not acceptable"
    cause = "`Accept` excludes every media type of the endpoint, which the `detail` names"
    action = "correct the header"
    default_detail = "Send `Accept: application/json`, or no Accept header."


# --- 409: refused by a rule ----------------------------------------------------------------------------
class EmailTaken(Problem):
    code, status, title = "email_taken", 409, "E-mail address taken"
    cause = "an account with this e-mail address exists"
    action = "log in, or use another address"
    default_detail = "An account with this e-mail address exists. Log in, or sign up with another one."


class ExternalIdTaken(Problem):
    code, status, title = "external_id_taken", 409, "External id taken"
    cause = "another wallet of the owner has this `externalId`"
    action = "find it with `GET /wallets?externalId=`, or choose another"
    default_detail = "Another wallet has this externalId. Find it with GET /wallets?externalId=."


class WalletClosed(Problem):
    code, status, title = "wallet_closed", 409, "Wallet closed"
    cause = "the wallet is closed"
    action = "use another wallet"
    default_detail = "A closed wallet moves no money. Use another wallet."


class WalletFrozen(Problem):
    code, status, title = "wallet_frozen", 409, "Wallet frozen"
    cause = "the wallet is frozen"
    action = "ask an operator"
    default_detail = "A frozen wallet moves no money until it is ACTIVE again."


class CurrencyMismatch(Problem):
    code, status, title = "currency_mismatch", 409, "Currency mismatch"
    cause = "the wallets of the transfer have different currencies"
    action = "use wallets of one currency"
    default_detail = "Both wallets of a transfer must have the same currency."


class HoldNotActive(Problem):
    code, status, title = "hold_not_active", 409, "Hold not active"
    cause = "the hold was captured or voided, or has expired"
    action = "place a new hold"
    default_detail = "The hold is captured, voided or expired."


class HoldAmountExceeded(Problem):
    code, status, title = "hold_amount_exceeded", 409, "Hold amount exceeded"
    cause = "the capture is larger than the hold"
    action = "capture at most the held amount"
    default_detail = "Capture at most the amount of the hold."


class OperationNotReversible(Problem):
    code, status, title = "operation_not_reversible", 409, "Operation not reversible"
    cause = "the operation was refused, moved no money, or is a reversal"
    action = "none"
    default_detail = "A rejected operation, one that moved no money, and a reversal cannot be reversed."


class ReversalExceedsOriginal(Problem):
    code, status, title = "reversal_exceeds_original", 409, "Reversal exceeds original"
    cause = "the amount is larger than the remaining amount of the operation"
    action = "reverse at most the remaining amount"
    default_detail = "Reverse at most the remaining amount of the original operation."


class WalletNotEmpty(Problem):
    code, status, title = "wallet_not_empty", 409, "Wallet not empty"
    cause = "a wallet with a balance or an active hold cannot be closed"
    action = "empty the wallet first"
    default_detail = "Only a wallet with no balance and no held amount can be closed."


class BalanceLimitExceeded(Problem):
    code, status, title = "balance_limit_exceeded", 409, "Balance limit exceeded"
    cause = "the balance would pass the wallet's `maxBalance`"
    action = "send less"
    default_detail = "The balance would exceed the maximum balance of the wallet."


class OverdraftLimitExceeded(Problem):
    code, status, title = "overdraft_limit_exceeded", 409, "Overdraft limit exceeded"
    cause = "the wallet is overdrawn by more than the new overdraft limit"
    action = "choose a higher limit, or deposit first"
    default_detail = "The available balance of the wallet is below the new overdraft limit."


class TargetCannotReceive(Problem):
    code, status, title = "target_cannot_receive", 409, "Target cannot receive"
    cause = "the other wallet is closed, frozen or full, and the caller may not read it"
    action = "ask the receiver"
    default_detail = "The other wallet cannot receive this amount."


class InsufficientFunds(Problem):
    code, status, title = "insufficient_funds", 409, "Insufficient funds"
    cause = "the amount is larger than the available balance"
    action = "send less, or deposit first"
    default_detail = "The amount exceeds the available balance of the wallet."


class RejectedByOperator(Problem):
    """An operator's decision on an operation that was accepted asynchronously and could not be executed."""

    code, status, title = "rejected_by_operator", 409, "Rejected by operator"
    cause = (
        "only as the `reason` of an operation: an operator rejected an accepted operation that could not be "
        "carried out"
    )
    action = "ask the operator"
    default_detail = "The operation could not be executed, and an operator rejected it."


class TooManyWebhooks(Problem):
    code, status, title = "too_many_webhooks", 409, "Too many webhooks"
    cause = "100 webhooks exist"
    action = "remove one"
    default_detail = "Delete a webhook before you register another one."


class WebhookNameTaken(Problem):
    code, status, title = "webhook_name_taken", 409, "Webhook name taken"
    cause = "another webhook or a broker has the name"
    action = "choose another name"
    default_detail = "Another webhook has this name. Choose a different one."


# --- 412 to 429 -------------------------------------------------------------------------------------
class PreconditionFailed(Problem):
    code, status, title = "precondition_failed", 412, "Precondition failed"
    cause = "the wallet has changed since the `ETag` in `If-Match`"
    action = "read the wallet again"
    default_detail = "The wallet has changed since the ETag in If-Match. Read it again."


class PayloadTooLarge(Problem):
    code, status, title = "payload_too_large", 413, "Payload too large"
    cause = "the body exceeds the limit of the endpoint"
    action = "send a smaller body"
    default_detail = "The body is too large. Send a smaller one."


class UnsupportedMediaType(Problem):
    code, status, title = "unsupported_media_type", 415, "Unsupported media type"
    cause = "`Content-Type` is not `application/json` in UTF-8, or the body has a `Content-Encoding`"
    action = "correct the header"
    default_detail = "Send `Content-Type: application/json`, in UTF-8."


class IdempotencyKeyReused(Problem):
    code, status, title = "idempotency_key_reused", 422, "Idempotency key reused"
    cause = "the key or `id` belongs to another request; 409 within an atomic bulk"
    action = "use a new key"
    default_detail = "The idempotency key or id belongs to a different request. Use a new one."


class TooManyRequests(Problem):
    code, status, title = "too_many_requests", 429, "Too many requests"
    cause = "a rate limit, a full queue, or a wallet that was locked for too long"
    action = "retry after `Retry-After` seconds; the key stays free"
    default_detail = "Nothing was applied. Retry after the time in Retry-After."
    headers = {"Retry-After": "1"}


# --- 5xx: failures of the service -------------------------------------------------------------------
class InternalError(Problem):
    code, status, title = "internal_error", 500, "Internal error"
    cause = "a fault of the service, which has been logged"
    action = "retry with the same key; report the `requestId`"
    default_detail = "The service failed and logged the error. Report the requestId to the operator."


class Unavailable(Problem):
    code, status, title = "unavailable", 503, "Service unavailable"
    cause = "the database was not reached in time; the outcome is unknown"
    action = "retry with the same key after `Retry-After` seconds"
    default_detail = (
        "The database is unavailable; the outcome is unknown. Retry with the same idempotency key."
    )
    headers = {"Retry-After": "1"}


class QueryTimeout(Problem):
    code, status, title = "query_timeout", 503, "Query timeout"
    cause = "the database ended a query after `STATEMENT_TIMEOUT_SECONDS`"
    action = "ask for less; repeat a payment with the same key"
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

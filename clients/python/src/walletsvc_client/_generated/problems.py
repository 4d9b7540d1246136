"""The problems of the API, one exception each."""

from .._errors import WalletsvcError


class AccountNotFound(WalletsvcError):
    """No active account has verified the e-mail address.

    What to do: check the address, or ask its owner to verify it.
    """

    code = "account_not_found"


class BadRequest(WalletsvcError):
    """The request is not valid HTTP for this service.

    What to do: correct the client.
    """

    code = "bad_request"


class BalanceLimitExceeded(WalletsvcError):
    """The balance would pass the wallet's `maxBalance`.

    What to do: send less.
    """

    code = "balance_limit_exceeded"


class CurrencyMismatch(WalletsvcError):
    """The wallets of the transfer have different currencies.

    What to do: use wallets of one currency.
    """

    code = "currency_mismatch"


class EmailTaken(WalletsvcError):
    """An account with this e-mail address exists.

    What to do: log in, or use another address.
    """

    code = "email_taken"


class ExternalIdTaken(WalletsvcError):
    """Another wallet of the owner has this `externalId`.

    What to do: find it with `GET /wallets?externalId=`, or choose another.
    """

    code = "external_id_taken"


class Forbidden(WalletsvcError):
    """The key or session lacks the scope, or the CSRF token is missing.

    What to do: use a key with the scope.
    """

    code = "forbidden"


class HoldAmountExceeded(WalletsvcError):
    """The capture is larger than the hold.

    What to do: capture at most the held amount.
    """

    code = "hold_amount_exceeded"


class HoldNotActive(WalletsvcError):
    """The hold was captured or voided, or has expired.

    What to do: place a new hold.
    """

    code = "hold_not_active"


class HoldNotFound(WalletsvcError):
    """The hold does not exist, or the caller may not see it.

    What to do: check the id; the key stays free.
    """

    code = "hold_not_found"


class IdempotencyKeyReused(WalletsvcError):
    """The key or `id` belongs to another request; 409 within an atomic bulk.

    What to do: use a new key.
    """

    code = "idempotency_key_reused"


class InsufficientFunds(WalletsvcError):
    """The amount is larger than the available balance.

    What to do: send less, or deposit first.
    """

    code = "insufficient_funds"


class InternalError(WalletsvcError):
    """A fault of the service, which has been logged.

    What to do: retry with the same key; report the `requestId`.
    """

    code = "internal_error"


class InvalidCredentials(WalletsvcError):
    """The login or the password is wrong.

    What to do: ask the user again.
    """

    code = "invalid_credentials"


class MalformedJson(WalletsvcError):
    """The body is not one JSON object in UTF-8, repeats a name, or is too large in structure.

    What to do: correct the client.
    """

    code = "malformed_json"


class MethodNotAllowed(WalletsvcError):
    """The endpoint does not support the method.

    What to do: use a method from `Allow`.
    """

    code = "method_not_allowed"


class NotAcceptable(WalletsvcError):
    """`Accept` excludes every media type of the endpoint, which the `detail` names.

    What to do: correct the header.
    """

    code = "not_acceptable"


class NotFound(WalletsvcError):
    """No endpoint has this address.

    What to do: correct the address.
    """

    code = "not_found"


class OperationNotFound(WalletsvcError):
    """The operation does not exist, or the caller may not see it.

    What to do: check the id; the key stays free.
    """

    code = "operation_not_found"


class OperationNotReversible(WalletsvcError):
    """The operation was refused, moved no money, or is a reversal.

    What to do: none.
    """

    code = "operation_not_reversible"


class OverdraftLimitExceeded(WalletsvcError):
    """The wallet is overdrawn by more than the new overdraft limit.

    What to do: choose a higher limit, or deposit first.
    """

    code = "overdraft_limit_exceeded"


class PayloadTooLarge(WalletsvcError):
    """The body exceeds the limit of the endpoint.

    What to do: send a smaller body.
    """

    code = "payload_too_large"


class PreconditionFailed(WalletsvcError):
    """The wallet has changed since the `ETag` in `If-Match`.

    What to do: read the wallet again.
    """

    code = "precondition_failed"


class QueryTimeout(WalletsvcError):
    """The database ended a query after `STATEMENT_TIMEOUT_SECONDS`.

    What to do: ask for less; repeat a payment with the same key.
    """

    code = "query_timeout"


class RejectedByOperator(WalletsvcError):
    """Only as the `reason` of an operation: an operator rejected an accepted operation that could not be carried out.

    What to do: ask the operator.
    """

    code = "rejected_by_operator"


class ReversalExceedsOriginal(WalletsvcError):
    """The amount is larger than the remaining amount of the operation.

    What to do: reverse at most the remaining amount.
    """

    code = "reversal_exceeds_original"


class TargetCannotReceive(WalletsvcError):
    """The other wallet is closed, frozen or full, and the caller may not read it.

    What to do: ask the receiver.
    """

    code = "target_cannot_receive"


class TooManyRequests(WalletsvcError):
    """A rate limit, a full queue, or a wallet that was locked for too long.

    What to do: retry after `Retry-After` seconds; the key stays free.
    """

    code = "too_many_requests"


class TooManyWebhooks(WalletsvcError):
    """100 webhooks exist.

    What to do: remove one.
    """

    code = "too_many_webhooks"


class TransferNotFound(WalletsvcError):
    """The transfer does not exist, or the caller may not see it.

    What to do: check the id.
    """

    code = "transfer_not_found"


class Unauthorized(WalletsvcError):
    """The credentials are missing, unknown, revoked or expired.

    What to do: send a valid API key or session.
    """

    code = "unauthorized"


class Unavailable(WalletsvcError):
    """The database was not reached in time; the outcome is unknown.

    What to do: retry with the same key after `Retry-After` seconds.
    """

    code = "unavailable"


class UnsupportedMediaType(WalletsvcError):
    """`Content-Type` is not `application/json` in UTF-8, or the body has a `Content-Encoding`.

    What to do: correct the header.
    """

    code = "unsupported_media_type"


class ValidationError(WalletsvcError):
    """A field, parameter or header is missing, unknown or invalid.

    What to do: read `errors`; the key stays free.
    """

    code = "validation_error"


class WalletClosed(WalletsvcError):
    """The wallet is closed.

    What to do: use another wallet.
    """

    code = "wallet_closed"


class WalletFrozen(WalletsvcError):
    """The wallet is frozen.

    What to do: ask an operator.
    """

    code = "wallet_frozen"


class WalletNotEmpty(WalletsvcError):
    """A wallet with a balance or an active hold cannot be closed.

    What to do: empty the wallet first.
    """

    code = "wallet_not_empty"


class WalletNotFound(WalletsvcError):
    """The wallet does not exist, or the caller may not see it; 409 within an atomic bulk.

    What to do: check the id; the key stays free.
    """

    code = "wallet_not_found"


class WebhookNameTaken(WalletsvcError):
    """Another webhook or a broker has the name.

    What to do: choose another name.
    """

    code = "webhook_name_taken"


class WebhookNotFound(WalletsvcError):
    """The webhook does not exist.

    What to do: check the id.
    """

    code = "webhook_not_found"


__all__ = [
    "AccountNotFound",
    "BadRequest",
    "BalanceLimitExceeded",
    "CurrencyMismatch",
    "EmailTaken",
    "ExternalIdTaken",
    "Forbidden",
    "HoldAmountExceeded",
    "HoldNotActive",
    "HoldNotFound",
    "IdempotencyKeyReused",
    "InsufficientFunds",
    "InternalError",
    "InvalidCredentials",
    "MalformedJson",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "OperationNotFound",
    "OperationNotReversible",
    "OverdraftLimitExceeded",
    "PayloadTooLarge",
    "PreconditionFailed",
    "QueryTimeout",
    "RejectedByOperator",
    "ReversalExceedsOriginal",
    "TargetCannotReceive",
    "TooManyRequests",
    "TooManyWebhooks",
    "TransferNotFound",
    "Unauthorized",
    "Unavailable",
    "UnsupportedMediaType",
    "ValidationError",
    "WalletClosed",
    "WalletFrozen",
    "WalletNotEmpty",
    "WalletNotFound",
    "WebhookNameTaken",
    "WebhookNotFound",
]

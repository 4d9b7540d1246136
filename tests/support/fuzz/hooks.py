"""Schemathesis hooks: rules of the service that its OpenAPI document cannot express."""

import json
import re
from typing import Any, Final

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext
from schemathesis.openapi.checks import RejectedPositiveData

UNUSED_URL: Final = "http://127.0.0.1:9/"  # a port without a server

# Refusals, by error code, that no JSON Schema can express: rules over several fields, and rules that depend
# on the clock, on settings, on the currency of a wallet or on Unicode.
NOT_IN_SCHEMA: Final = {
    "conflict": "an id together with an Idempotency-Key, or a repeated type",
    "same_wallet": "source and target of a transfer are different",
    "invalid_email": "not every address that the format allows is accepted",
    "invalid_url": "not every URL may be called",
    "invalid_text": "not every character is allowed",
    "too_long": "metadata is measured in bytes of JSON",
    "inexact_number": "numbers of metadata that a double would change",
    "out_of_range": "a time that must be over or must not; MAX_AMOUNT; the numbers of metadata",
    "too_many_digits": "how many the currency has",
    "weak_password": "what is too common, or too much like the name",
}
TARGETS: Final = {"targetWalletId", "targetEmail"}
_EXPONENT: Final = re.compile(r"[0-9]e[-+]?[0-9]", re.IGNORECASE)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    if case.path.endswith("/events") and re.fullmatch(r"[0-9]+", str(case.query.get("seconds", 300))):
        case.query["seconds"] = "0"  # without it, the request waits for events
    if isinstance(case.body, dict) and str(case.body.get("url", "")).startswith("http"):
        case.body["url"] = UNUSED_URL  # a generated URL may belong to a real host


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    return not (isinstance(failure, RejectedPositiveData) and is_refused_beyond_schema(case, response))


def is_refused_beyond_schema(case: Case[Any], response: Response) -> bool:
    errors = json.loads(response.content).get("errors", [])
    named = [error for error in errors if error["code"] != "more"]  # "more" counts the further errors
    return bool(named) and all(
        _is_refused_beyond_schema(case, error["field"], error["code"]) for error in named
    )


def _is_refused_beyond_schema(case: Case[Any], field: str, code: str) -> bool:
    if field == "cursor":
        return True  # only values that the service has generated are valid
    if code == "invalid_amount":
        return bool(_EXPONENT.search(str(case.body)))  # a schema cannot see the notation of a number
    if code == "required" and isinstance(case.body, dict) and case.body.keys() >= TARGETS:
        return True  # the dictionary of wallets has replaced the null beside a targetEmail
    if code == "required" and field == "walletId":
        return True  # only a caller with an owner restriction must name it
    return code in NOT_IN_SCHEMA

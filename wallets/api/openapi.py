"""Builds the OpenAPI document from the declaration beside each view, and from what all endpoints share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from inspect import cleandoc
from typing import Any, Final, TypeVar

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from pydantic import BaseModel

from wallets import problems
from wallets.access.rights import NEEDED, PERSON
from wallets.api.examples import example_of, pending
from wallets.contract.fields import MAX_KEY_LENGTH
from wallets.contract.responses import ProblemBody
from wallets.problems import FieldError, Problem

Method = TypeVar("Method", bound=Callable[..., Any])
Refusals = Sequence[type[Problem]]
# The schemas to which the parameters of queries refer, by name.
query_components: Final[dict[str, Any]] = {}
Responses = Mapping[Any, OpenApiResponse]

# Every endpoint can refuse with these, in the order of the checks; one with a body also with ANY_BODY.
ANY_REQUEST: Final = (
    problems.NotAcceptable,
    problems.Unauthorized,
    problems.Forbidden,
    problems.TooManyRequests,
    problems.Unavailable,
    problems.QueryTimeout,
)
ANY_BODY: Final = (
    problems.UnsupportedMediaType,
    problems.PayloadTooLarge,
    problems.MalformedJson,
    problems.ValidationError,
)
NEW_COMMAND: Final = (problems.WalletNotFound, problems.IdempotencyKeyReused)
MOVABLE: Final = (problems.WalletClosed, problems.WalletFrozen)
LIMITS: Final = (problems.InsufficientFunds, problems.BalanceLimitExceeded)
TRANSFER_RULES: Final = (problems.CurrencyMismatch, *MOVABLE, *LIMITS, problems.TargetCannotReceive)


def header(
    name: str, schema: Any = str, description: str = "", *, response: bool = False
) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.HEADER, description=description, response=response)


def key(max_length: int) -> OpenApiParameter:
    """Return the header Idempotency-Key, with a key of up to `max_length` characters."""
    pattern = rf'^("[\x21\x23-\x7e]{{1,{max_length}}}"|[\x21\x23-\x2b\x2d-\x7e]{{1,{max_length}}})$'
    return header(
        "Idempotency-Key",
        {"type": "string", "pattern": pattern},
        "A retry with the same key gets the first response. Alternatively, send an `id` in the body."
        " Put a key that contains a comma in double quotes.",
    )


PREFER: Final = header(
    "Prefer",
    {"type": "string", "examples": ["respond-async"]},
    "respond-async: respond 202 when the operation is stored durably, and execute it later.",
)
METADATA_PARAMETER: Final = OpenApiParameter(
    "metadata.key",
    str,
    description="The value of a top-level key of the metadata: replace `key`, as in `metadata.order=7`. It"
    " matches the string and the number. Several such parameters must all match.",
)
RESPONSE_HEADERS: Final = (
    header("X-Request-ID", str, "The id of the request, in every response.", response=True),
    header(
        "RateLimit",
        {"type": "string", "examples": ['"user";r=298;t=41']},
        "The remaining requests of the rate limit, and the seconds until it resets, if one is set.",
        response=True,
    ),
    header(
        "RateLimit-Policy",
        {"type": "string", "examples": ['"user";q=300;w=60']},
        "The requests of the rate limit, and its window in seconds.",
        response=True,
    ),
)


@dataclass(frozen=True)
class Declaration:
    """Describes an endpoint in the OpenAPI document; decorates the method of its view.

    The method's docstring is the summary and the description.
    """

    operation_id: str  # a verb and a noun: generated clients name their methods after it
    _: KW_ONLY
    tag: str = ""  # the name of the view's module, if it is not given
    is_public: bool = False
    query: type[BaseModel] | None = None
    parameters: Sequence[OpenApiParameter] = ()  # besides those of the query and of every request
    request: type[BaseModel] | None = None
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of the request, by name
    status: int = 200
    response: type[BaseModel] | None = None
    example: Mapping[str, Any] = field(default_factory=dict)  # the members that differ from examples.py
    no_content: str = ""  # describes the response 204
    further_responses: Responses = field(default_factory=dict)
    can_be_async: bool = False
    # In the order of their checks, without those that every request, body or query can meet.
    refusals: Refusals = ()

    def __call__(self, method: Method) -> Method:
        summary, _, description = cleandoc(method.__doc__ or "").partition("\n\n")
        return extend_schema(
            self.operation_id,
            self._parameters(),
            self.request,
            {**self._responses(), **_refusals(self._all_refusals()), **self.further_responses},
            auth=[] if self.is_public else None,
            summary=summary.removesuffix("."),
            description=" ".join(description.splitlines()),
            tags=[self.tag or method.__module__.rpartition(".")[2]],
            examples=[OpenApiExample(name, sent, request_only=True) for name, sent in self.examples.items()],
        )(method)

    def _parameters(self) -> list[OpenApiParameter]:
        found = [*self.parameters, *RESPONSE_HEADERS]
        if self.query:
            found += _parameters_of(self.query)
        if self.request and "id" in self.request.model_fields:
            found.append(key(MAX_KEY_LENGTH))
        if self.can_be_async:
            found.append(PREFER)
        return found

    def _responses(self) -> dict[Any, OpenApiResponse]:
        if not self.response:
            return {204: OpenApiResponse(description=self.no_content)} if self.no_content else {}
        example = {**example_of(self.response), **self.example}
        answer = {(self.status, "application/json"): _response(self.response, "answer", example)}
        if not self.can_be_async:
            return answer
        description = "Accepted, as the request prefers. Location is the URL of the pending operation."
        accepted = _response(self.response, "accepted", pending(example), description)
        return {(202, "application/json"): accepted} | answer

    def _all_refusals(self) -> Refusals:
        met: list[type[Problem]] = [
            kind for kind in ANY_REQUEST if not self.is_public or kind.status not in (401, 403)
        ]
        if self.request:
            met += ANY_BODY
        elif self.query:
            met.append(problems.ValidationError)
        return [*met, *self.refusals]


def _parameters_of(query: type[BaseModel]) -> list[OpenApiParameter]:
    schema = query.model_json_schema(ref_template="#/components/schemas/{model}")
    query_components.update(schema.get("$defs", {}))
    fields = schema["properties"]
    of_metadata = [METADATA_PARAMETER] if fields.pop("metadata", None) else []
    return [_parameter(name, field) for name, field in fields.items()] + of_metadata


def _parameter(name: str, field: dict[str, Any]) -> OpenApiParameter:
    schema = _parameter_schema(field)
    # A list is one parameter with commas.
    explode = False if schema.get("type") == "array" else None
    return OpenApiParameter(name, schema, description=field.get("description", ""), explode=explode)


def _parameter_schema(field: dict[str, Any]) -> dict[str, Any]:
    """Remove null from the schema: a query parameter is present or absent."""
    options = [option for option in field.get("anyOf", [field]) if option != {"type": "null"}]
    default = {"default": field["default"]} if field.get("default") is not None else {}
    return {
        name: value for name, value in options[0].items() if name not in ("title", "description")
    } | default


def _response(body: Any, name: str, example: Any, description: str = "") -> OpenApiResponse:
    return OpenApiResponse(body, description, [OpenApiExample(name, example, response_only=True)])


def media(status: int, media_type: str, body: Any, name: str, example: str) -> Responses:
    """Describe a response of another media type than JSON."""
    return {(status, media_type): _response(body, name, example)}


def _refusals(refusals: Refusals) -> dict[Any, OpenApiResponse]:
    by_status: dict[int, dict[type[Problem], OpenApiExample]] = {}
    for kind in dict.fromkeys(refusals):
        errors = [FieldError("amount", "out_of_range", "more than zero")]
        problem = kind(errors=errors if kind is problems.ValidationError else ())
        by_status.setdefault(kind.status, {})[kind] = _problem_example(kind.code, problem)
    return {
        (status, problems.CONTENT_TYPE): _problem_response(examples)
        for status, examples in sorted(by_status.items())
    }


def first_refusal(refusals: Refusals) -> Responses:
    """Describe the response to an atomic bulk with a refused item."""
    examples = {}
    for kind in refusals:
        problem = kind(errors=[FieldError("operations.3", kind.code, kind.title)])
        problem.status = 409  # type: ignore[misc]  # the status of the bulk, whatever the item alone would get
        examples[kind] = _problem_example(f"{kind.code} of one", problem)
    return {(409, problems.CONTENT_TYPE): _problem_response(examples)}


def _problem_response(examples: Mapping[type[Problem], OpenApiExample]) -> OpenApiResponse:
    return OpenApiResponse(ProblemBody, "; ".join(kind.code for kind in examples), list(examples.values()))


def _problem_example(name: str, problem: Problem) -> OpenApiExample:
    content = problem.as_json("01930a5d-c0de-7000-8000-000000000000")
    return OpenApiExample(name, content, media_type=problems.CONTENT_TYPE, response_only=True)


class ApiAccessScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "wallets.access.authentication.ApiAccess"
    name = ["bearer", "session", "csrf"]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        """Return the security requirements, any one of which suffices; {} means none."""
        needed = NEEDED[type(auto_schema.view).__name__][auto_schema.method]
        session: dict[str, list[Any]] = {"session": []}
        if auto_schema.method != "GET":
            session["csrf"] = []
        if needed == (PERSON,):
            return [session]
        nothing: list[dict[str, list[Any]]] = [{}] if settings.API_ACCESS == "open" else []
        return [{"bearer": []}, session, *nothing]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        bearer = {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, wk_…, with the scope that the request needs. Not needed if"
            " API_ACCESS=open.",
        }
        session = {
            "type": "apiKey",
            "in": "cookie",
            "name": settings.SESSION_COOKIE_NAME,
            "description": "The session of a user, which sign-up and login start.",
        }
        csrf = {
            "type": "apiKey",
            "in": "header",
            "name": "X-CSRFToken",
            "description": "The value of the cookie csrftoken, with each request of a session that changes"
            " something.",
        }
        return [bearer, session, csrf]

"""The two clients: they send the requests of `_calls`, and differ only in how they wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import httpx

from . import _calls
from ._calls import Call, Page
from ._errors import NoResponse, UnexpectedResponse, WalletsvcError
from ._generated import problems
from ._generated.models import Problem
from ._generated.types import Unset
from ._retries import LOST, Attempts, Outcome, Retries

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", httpx.Client, httpx.AsyncClient)
DEFAULT_TIMEOUT_SECONDS = 30.0
# What the parsers of JSON, models and amounts raise.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
MAX_SHOWN_CHARACTERS = 200  # of a response that is not the service's
BY_CODE: dict[str, type[WalletsvcError]] = {
    problem.code: problem for problem in (getattr(problems, name) for name in problems.__all__)
}


def _version() -> str:
    try:
        return version("walletsvc-client")
    except PackageNotFoundError:  # the source is used without an installation
        return "0"


class _Base(Generic[H]):
    """What both clients have: settings, and how requests and responses are handled."""

    _new_http: Callable[[], H]

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retries: Retries | None = None,
        http: H | None = None,
    ) -> None:
        """Make a client.

        `base_url` is the address of the service, without `/api/v1`. In each attempt `timeout_seconds` limits
        the wait for the connection, and each wait for a part of the response. `http` is an httpx client with
        settings of your own, such as a proxy or a certificate; close() closes it too.
        """
        self._http: H = http or self._new_http()
        self._base_url = base_url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._retries = retries or Retries()
        self._headers = {"Accept": "application/json", "User-Agent": f"walletsvc-client/{_version()}"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def _arguments(self, call: Call[Any]) -> dict[str, Any]:
        """Return the arguments of httpx, equal for each attempt."""
        key = {} if call.idempotency_key is None else {"Idempotency-Key": _quoted(call.idempotency_key)}
        return {
            "method": call.method,
            "url": self._base_url + call.url,
            "json": call.body,
            "headers": {**self._headers, **call.headers, **key},
            "timeout": self._timeout_seconds,
        }


def _quoted(key: str) -> str:
    """Return the value of the header: a comma would separate two keys."""
    return f'"{key}"' if "," in key else key


def _result(call: Call[T], attempts: Attempts, outcome: Outcome) -> T:
    """Return the parsed response. Raises: WalletsvcError."""
    if isinstance(outcome, httpx.Response) and outcome.is_success:
        try:
            return call.parse(outcome.json() if outcome.content else {})
        except MALFORMED as cause:
            error: WalletsvcError = _unexpected(outcome)
            error.outcome_is_unknown = True
            raise _completed(error, call) from cause
    if isinstance(outcome, httpx.Response):
        error, reason = _error_of(outcome), None
    else:
        error, reason = NoResponse(), outcome
        error.detail = f"{type(outcome).__name__}: {outcome}"
    error.outcome_is_unknown = attempts.outcome_is_unknown
    raise _completed(error, call) from reason


def _completed(error: WalletsvcError, call: Call[Any]) -> WalletsvcError:
    error.idempotency_key = call.idempotency_key
    return error


def _error_of(response: httpx.Response) -> WalletsvcError:
    try:
        problem = Problem.from_dict(response.json())
    except MALFORMED:
        return _unexpected(response)
    error = error_of(problem)
    error.status = response.status_code
    return error


def error_of(problem: Problem) -> WalletsvcError:
    """Return the exception of a problem, such as that of an item of a bulk."""
    error = BY_CODE.get(problem.code, WalletsvcError)()
    error.code = problem.code
    error.title, error.detail, error.status = problem.title, problem.detail, problem.status
    error.request_id = problem.request_id
    error.errors = tuple(problem.errors or ())
    error.operation_id = _given(problem.operation_id)
    error.remaining, error.available = _given(problem.remaining), _given(problem.available)
    return error


def _given(value: T | Unset | None) -> T | None:
    return None if isinstance(value, Unset) else value


def _unexpected(response: httpx.Response) -> UnexpectedResponse:
    error = UnexpectedResponse()
    error.title, error.status = response.reason_phrase, response.status_code
    error.detail = f"{response.status_code} {response.text[:MAX_SHOWN_CHARACTERS]}"
    error.request_id = response.headers.get("x-request-id")
    return error


# --- Sync ----------------------------------------------------------------------------------------------
def _sending(build: Callable[P, Call[T]]) -> Callable[Concatenate["Client", P], T]:
    @wraps(build)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(build(*args, **kwargs))

    return method


def _listing(build: Callable[P, Call[Page[T]]]) -> Callable[Concatenate["Client", P], Iterator[T]]:
    @wraps(build)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._items(build(*args, **kwargs))

    return method


class Client(_Base[httpx.Client]):
    """A client of walletsvc. Several threads can use one; close it, or use it in a with statement.

    Every method raises WalletsvcError.
    """

    _new_http = httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, call: Call[T]) -> T:
        attempts = Attempts(self._retries, call.is_repeatable)
        while True:
            outcome: Outcome
            try:
                outcome = self._http.request(**self._arguments(call))
            except LOST as error:
                outcome = error
            if (pause := attempts.pause_after(outcome)) is None:
                return _result(call, attempts, outcome)
            time.sleep(pause)

    def _items(self, call: Call[Page[T]]) -> Iterator[T]:
        while True:
            page = self._send(call)
            yield from page.items
            if page.next_cursor is None:
                return
            call = call.at(page.next_cursor)

    create_wallet = _sending(_calls.create_wallet)
    get_wallet = _sending(_calls.get_wallet)
    find_wallets = _listing(_calls.find_wallets)
    update_wallet = _sending(_calls.update_wallet)

    deposit = _sending(_calls.deposit)
    withdraw = _sending(_calls.withdraw)
    transfer = _sending(_calls.transfer)
    get_transfer = _sending(_calls.get_transfer)
    reverse = _sending(_calls.reverse)
    bulk = _sending(_calls.bulk)

    hold = _sending(_calls.hold)
    get_hold = _sending(_calls.get_hold)
    list_holds = _listing(_calls.list_holds)
    capture = _sending(_calls.capture)
    void = _sending(_calls.void)

    get_operation = _sending(_calls.get_operation)
    list_operations = _listing(_calls.list_operations)
    find_operations = _listing(_calls.find_operations)
    get_balance = _sending(_calls.get_balance)
    get_statement = _sending(_calls.get_statement)

    request = _sending(_calls.request)


# --- Async ---------------------------------------------------------------------------------------------
def _awaiting(build: Callable[P, Call[T]]) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    @wraps(build)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(build(*args, **kwargs))

    return method


def _listing_async(
    build: Callable[P, Call[Page[T]]],
) -> Callable[Concatenate["AsyncClient", P], AsyncIterator[T]]:
    @wraps(build)
    def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._items(build(*args, **kwargs))

    return method


class AsyncClient(_Base[httpx.AsyncClient]):
    """The client for asyncio: its methods are coroutines, and its lists asynchronous iterators."""

    _new_http = httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(self, call: Call[T]) -> T:
        attempts = Attempts(self._retries, call.is_repeatable)
        while True:
            outcome: Outcome
            try:
                outcome = await self._http.request(**self._arguments(call))
            except LOST as error:
                outcome = error
            if (pause := attempts.pause_after(outcome)) is None:
                return _result(call, attempts, outcome)
            await asyncio.sleep(pause)

    async def _items(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        while True:
            page = await self._send(call)
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            call = call.at(page.next_cursor)

    create_wallet = _awaiting(_calls.create_wallet)
    get_wallet = _awaiting(_calls.get_wallet)
    find_wallets = _listing_async(_calls.find_wallets)
    update_wallet = _awaiting(_calls.update_wallet)

    deposit = _awaiting(_calls.deposit)
    withdraw = _awaiting(_calls.withdraw)
    transfer = _awaiting(_calls.transfer)
    get_transfer = _awaiting(_calls.get_transfer)
    reverse = _awaiting(_calls.reverse)
    bulk = _awaiting(_calls.bulk)

    hold = _awaiting(_calls.hold)
    get_hold = _awaiting(_calls.get_hold)
    list_holds = _listing_async(_calls.list_holds)
    capture = _awaiting(_calls.capture)
    void = _awaiting(_calls.void)

    get_operation = _awaiting(_calls.get_operation)
    list_operations = _listing_async(_calls.list_operations)
    find_operations = _listing_async(_calls.find_operations)
    get_balance = _awaiting(_calls.get_balance)
    get_statement = _awaiting(_calls.get_statement)

    request = _awaiting(_calls.request)

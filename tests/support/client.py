"""Clients of the API: one inside this process, one over HTTP. Both return an Answer."""

import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from django.test import Client

JSON = "application/json"
UNKNOWN_ID = "01930a5d-0000-7000-8000-000000000000"  # no object has this id


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def code(self) -> str:
        """Return the code of the problem."""
        assert self.headers["content-type"] == "application/problem+json", self.content
        code: str = self.json["code"]
        return code


class Sender(Protocol):
    def send(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer: ...


class InProcess:
    """Django's test client: all middleware, but no server."""

    def __init__(self, **options: Any) -> None:
        self.client = Client(raise_request_exception=False, **options)

    def send(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        given = dict(headers or {})
        kind = given.pop("Content-Type", JSON if content is not None else "")
        response = self.client.generic(method, path, content or b"", headers=given, CONTENT_TYPE=kind)
        lower = {name.lower(): value for name, value in response.headers.items()}
        with closing(response):
            return Answer(response.status_code, lower, b"".join(response))


class OverHttp:
    """An HTTP connection to a running service."""

    def __init__(self, address: str, timeout: float = 60) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=timeout)

    def send(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        given = ({"Content-Type": JSON} if content is not None else {}) | dict(headers or {})
        self.connection.request(method, path, content, given)
        response = self.connection.getresponse()
        lower = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, lower, response.read())


@dataclass
class Api:
    """The requests that many tests send."""

    sender: Sender = field(default_factory=InProcess)
    key: str | None = None  # the API key of every request

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.send("POST", path, body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Answer:
        return self.send("PATCH", path, body, **headers)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send the body as JSON, or no body if it is None."""
        content = None if body is None else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return self.sender.send(method, f"/api/v1{path}", content, given | _named(headers))

    def open(self, deposit: str | None = None, **fields: Any) -> str:
        """Open a wallet and return its id."""
        answer = self.post("/wallets", fields)
        assert answer.status == 201, answer
        wallet_id: str = answer.json["id"]
        if deposit:
            assert self.deposit(wallet_id, deposit).status == 201
        return wallet_id

    def deposit(self, wallet_id: str, amount: Any, key: str | None = None, **fields: Any) -> Answer:
        return self.operate(wallet_id, "DEPOSIT", amount, key, **fields)

    def withdraw(self, wallet_id: str, amount: Any, key: str | None = None, **fields: Any) -> Answer:
        return self.operate(wallet_id, "WITHDRAW", amount, key, **fields)

    def operate(
        self, wallet_id: str, kind: str, amount: Any, key: str | None = None, **fields: Any
    ) -> Answer:
        body = {"operationType": kind, "amount": amount, **fields}
        return self.post(f"/wallets/{wallet_id}/operation", body, **_keyed(key))

    def transfer(
        self, source_id: str, target_id: str, amount: Any, key: str | None = None, **fields: Any
    ) -> Answer:
        body = {"sourceWalletId": source_id, "targetWalletId": target_id, "amount": amount, **fields}
        return self.post("/transfers", body, **_keyed(key))

    def hold(self, wallet_id: str, amount: Any, key: str | None = None, **fields: Any) -> Answer:
        return self.post(f"/wallets/{wallet_id}/holds", {"amount": amount, **fields}, **_keyed(key))

    def capture(self, hold_id: str, amount: Any = None, key: str | None = None, **fields: Any) -> Answer:
        return self.post(f"/holds/{hold_id}/capture", _part(amount) | fields, **_keyed(key))

    def void(self, hold_id: str, key: str | None = None, **fields: Any) -> Answer:
        return self.post(f"/holds/{hold_id}/void", fields, **_keyed(key))

    def reverse(self, operation_id: str, amount: Any = None, key: str | None = None, **fields: Any) -> Answer:
        return self.post(f"/operations/{operation_id}/reversal", _part(amount) | fields, **_keyed(key))

    def bulk(self, *operations: Any, atomic: bool = False, key: str | None = None) -> Answer:
        return self.post("/operations", {"operations": operations, "atomic": atomic}, **_keyed(key))

    def wallet(self, wallet_id: str) -> Any:
        return self.get(f"/wallets/{wallet_id}").json

    def operation(self, operation_id: str) -> Any:
        """Read an operation, without the fields that the response to its command does not have."""
        body = self.get(f"/operations/{operation_id}").json
        return {name: value for name, value in body.items() if name not in ("reversedAmount", "reversalIds")}

    def held(self, hold_id: str) -> Any:
        """Read a hold, without the field that the response to its command does not have."""
        body = self.get(f"/holds/{hold_id}").json
        return {name: value for name, value in body.items() if name != "captures"}

    def balance(self, wallet_id: str) -> str:
        balance: str = self.wallet(wallet_id)["balance"]
        return balance

    def history(self, wallet_id: str, query: str = "limit=500") -> list[Any]:
        items: list[Any] = self.get(f"/wallets/{wallet_id}/operations?{query}").json["items"]
        return items


def _keyed(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency_Key": key}


def _part(amount: Any) -> dict[str, Any]:
    """Return the fields of a partial amount; None means all of the remaining amount."""
    return {} if amount is None else {"amount": amount}


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}

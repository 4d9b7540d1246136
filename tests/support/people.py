"""Create users with wallets, and clients with their sessions."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from django.conf import settings
from uuid_utils.compat import uuid7

from tests.support.client import JSON, Answer, Api, InProcess, OverHttp
from tests.support.keys import PASSWORD, new_key, new_person
from wallets.access.rights import ADMIN
from wallets.models import User, Wallet

FORM = "application/x-www-form-urlencoded"
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


@dataclass(frozen=True)
class Person:
    user: User
    wallet_id: str


def new_address() -> str:
    return f"anna-{uuid4()}@example.com"


def registration(**fields: Any) -> dict[str, Any]:
    """Return the fields of a sign-up."""
    return {"name": "Anna", "email": new_address(), "password": PASSWORD, **fields}


def new_account(deposit: str | None = None, currency: str = "RUB", **fields: Any) -> Person:
    """Create a user with a wallet, which has the deposit if one is given."""
    user = new_person(**fields)
    return Person(user, new_wallet(user, deposit, currency=currency))


def new_wallet(user: User, deposit: str | None = None, **fields: Any) -> str:
    wallet = Wallet.objects.create(id=uuid7(), owner=user, **{"currency": "RUB", **fields})
    if deposit:
        assert bank().deposit(str(wallet.id), deposit).status == 201
    return str(wallet.id)


def bank() -> Api:
    """Return a client with the scope for everything."""
    return Api(key=new_key(ADMIN))


def session_key(user: User) -> str:
    """Return the session cookie of a new session of the user."""
    sender = InProcess()
    sender.client.force_login(user, backend=MODEL_BACKEND)
    return sender.client.cookies[settings.SESSION_COOKIE_NAME].value


def with_session(key: str) -> Api:
    """Return an API client that sends this value as its session cookie."""
    sender = InProcess()
    sender.client.cookies[settings.SESSION_COOKIE_NAME] = key
    return Api(sender)


def without_request_id(answer: Answer) -> Any:
    """Return the parts of a response that two responses to one request share."""
    return answer.status, {name: value for name, value in answer.json.items() if name != "requestId"}


class Browser(OverHttp):
    """Connect to a running service and keep cookies, as a browser does."""

    def __init__(self, address: str, **always: str) -> None:
        super().__init__(address)
        self.always = always  # headers, with _ for -
        self.cookies: SimpleCookie = SimpleCookie()

    def send(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        given = {name.replace("_", "-"): value for name, value in self.always.items()}
        if self.cookies:
            given["Cookie"] = "; ".join(f"{name}={morsel.value}" for name, morsel in self.cookies.items())
        given |= {"Content-Type": JSON} if content is not None else {}
        self.connection.request(method, path, content, given | dict(headers or {}))
        response: http.client.HTTPResponse = self.connection.getresponse()
        for cookie in response.headers.get_all("Set-Cookie", []):
            self.cookies.load(cookie)
        lower = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, lower, response.read())

    def post_form(self, path: str, **fields: str) -> Answer:
        """Post a form of a page that was loaded before, with its CSRF token."""
        token = {"csrfmiddlewaretoken": self.cookies["csrftoken"].value}
        return self.send("POST", path, urlencode(fields | token).encode(), {"Content-Type": FORM})

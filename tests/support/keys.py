"""API keys, people and operators for tests."""

from functools import cache
from typing import Any
from uuid import uuid4

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission

from tests.support.client import Api, InProcess
from wallets.access import keys
from wallets.access.passwords import Hasher
from wallets.models import User


def new_key(*scopes: str, **fields: Any) -> str:
    """Create an API key and return its text."""
    text = keys.new_text()
    keys.make(text, **{"name": "test", "scopes": scopes, **fields})
    return text


def new_owner(**fields: Any) -> User:
    return User.objects.create_user(username=f"owner-{uuid4()}", **fields)


PASSWORD = "correct horse battery staple"


def hashed() -> str:
    """Return the hash of PASSWORD at the current cost; a login would rehash one with another cost."""
    return _hashed(Hasher.iterations)


@cache
def _hashed(iterations: int) -> str:
    return make_password(PASSWORD)


def new_person(**fields: Any) -> User:
    """Create an account with a verified e-mail address and the password PASSWORD."""
    email = f"person-{uuid4()}@example.com"
    given = {"username": email, "email": email, "first_name": "Anna", "password": hashed(), **fields}
    return User.objects.create(**{"verified_email": given["email"], **given})


def new_operator(*permissions: str, **fields: Any) -> User:
    user = new_person(username=f"operator-{uuid4()}", is_staff=True, **fields)
    names = [name.removeprefix("wallets.") for name in permissions]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    return user


def session_of(user: User) -> Api:
    """Return an API client with the browser session of the user."""
    sender = InProcess()
    sender.client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return Api(sender)


def prefix_of(text: str) -> str:
    return text.split("_")[1]

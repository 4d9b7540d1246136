"""Login and sign-up attempts are counted before their body is read."""

import json
import select
from typing import Any

import pytest

from tests.access.test_rate_limits import Limit, limit, new_ip  # noqa: F401 - a fixture
from tests.conftest import running_service
from tests.support.client import JSON, Answer, InProcess
from tests.support.hostile_requests import HOST, SOCKET_TIMEOUT_SECONDS, Talk
from tests.support.keys import PASSWORD
from tests.support.people import FORM, new_account

pytestmark = pytest.mark.usefixtures("quick_hashing")


class Unreadable:
    """A body that fails the test if it is read."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the body was read")

    readline = read


def send_unreadable(address: str, path: str, content_type: str) -> Answer:
    client = InProcess(REMOTE_ADDR=address, enforce_csrf_checks=True).client
    extra: dict[str, Any] = {"wsgi.input": Unreadable(), "CONTENT_LENGTH": "100"}
    response = client.generic("POST", path, b"", content_type, **extra)
    return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content)


@pytest.mark.parametrize(
    ("path", "content_type", "name"),
    [
        ("/api/v1/login", JSON, "login"),
        ("/api/v1/signup", JSON, "signup"),
        ("/login", FORM, "login"),
        ("/signup", FORM, "signup"),
        ("/password", FORM, "login"),
        ("/password/forgotten", FORM, "login"),
        ("/admin/login/", FORM, "login"),
        ("/admin/second-factor/code/", FORM, "login"),
        ("/admin/second-factor/enrol/", FORM, "login"),
    ],
)
def test_attempt_beyond_its_limit_is_refused_unread(
    limit: Limit,  # noqa: F811
    path: str,
    content_type: str,
    name: str,
) -> None:
    limit(**{name: 1})
    address = new_ip()
    first = InProcess(REMOTE_ADDR=address).send("POST", path, b"", {"Content-Type": content_type})
    assert first.status != 429
    refused = send_unreadable(address, path, content_type)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) > 0


def test_attempt_without_its_body_is_counted() -> None:
    """Of two attempts whose bodies do not arrive, one is allowed and waits; the other is refused at once."""
    head = b"POST /api/v1/login HTTP/1.1\r\n%sContent-Type: application/json\r\n" % HOST
    with running_service(WORKERS="1", RATE_LIMIT_LOGIN="1/9999d") as service:
        address = ("127.0.0.1", int(service.rpartition(":")[2]))
        with Talk(address, source="127.0.0.77") as one, Talk(address, source="127.0.0.77") as other:
            for talk in (one, other):
                talk.say(head + b"Content-Length: 100\r\n\r\n")
            (answered,), _, _ = select.select([one.socket, other.socket], [], [], SOCKET_TIMEOUT_SECONDS)
            answer = (one if answered is one.socket else other).hear()
            assert answer is not None
            assert (answer.status, json.loads(answer.body)["code"]) == (429, "too_many_requests")


def test_form_still_needs_its_csrf_token() -> None:
    client = InProcess(enforce_csrf_checks=True).client
    person = new_account().user
    answer = client.post("/login", {"username": person.email, "password": PASSWORD})
    assert answer.status_code == 403
    assert "sessionid" not in client.cookies

"""Hostile requests at the socket, against the service as it really runs."""

import json
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.client import Api
from tests.conftest import Unchanged


@dataclass(frozen=True)
class Raw:
    status: int
    head: bytes
    body: bytes


def exchange(service: str, *parts: bytes) -> Raw:
    """Send the parts as they are; read until the answer is whole or the server hangs up."""
    address = urlsplit(service)
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=20) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break  # it has heard enough and has answered
        received = b""
        while b"\r\n\r\n" not in received or len(received) < _expected(received):
            try:
                chunk = connection.recv(65536)
            except ConnectionResetError:
                break
            if not chunk:
                break
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return Raw(int(head.split(b" ", 2)[1]), head, body)


def _expected(received: bytes) -> int:
    head, _, _ = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return len(head) + 4 + int(length[1]) if length else 1 << 30


def request(path: str, content: bytes, headers: bytes = b"") -> bytes:
    return (
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"%sContent-Length: %d\r\n\r\n%s" % (path.encode(), headers, len(content), content)
    )


GOOD = b'{"operationType": "DEPOSIT", "amount": "1.00"}'


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: nonsense\r\n\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n",
    ],
    ids=lambda garbage: repr(garbage[:50]),
)
def test_what_is_not_http_is_a_problem_too(service: str, garbage: bytes) -> None:
    answer = exchange(service, garbage)
    assert answer.status == 400
    assert b"application/problem+json" in answer.head
    assert json.loads(answer.body)["code"] == "bad_request"


def test_a_body_of_100_megabytes_is_refused_without_being_read(
    service: str, live_api: Api, unchanged: Unchanged
) -> None:
    wallet_id = live_api.open()
    path = f"/api/v1/wallets/{wallet_id}/operation"
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" % path.encode()
    megabyte = b" " * 1_000_000
    with unchanged(wallet_id):
        told = exchange(service, head + b"Content-Length: 100000000\r\n\r\n", megabyte)
        sent = exchange(service, head + b"Content-Length: 100000000\r\n\r\n", *[megabyte] * 100)
        chunked = exchange(
            service, head + b"Transfer-Encoding: chunked\r\n\r\n", *[b"F4240\r\n" + megabyte + b"\r\n"] * 100
        )
        for answer in (told, sent, chunked):
            assert answer.status == 413
            assert json.loads(answer.body)["code"] == "payload_too_large"


@pytest.mark.parametrize(
    "charset", [b"hex", b"rot13", b"idna", b"utf-16", b"unicode_escape", b"undefined", b"x"]
)
def test_texts_are_utf_8_whatever_charset_a_client_names(service: str, live_api: Api, charset: bytes) -> None:
    wallet_id = live_api.open(label="ключ")
    head = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += b"Content-Type: text/plain; charset=%s\r\n\r\n"
    for path, status in (
        (f"/api/v1/wallets/{wallet_id}?x=%41\\ud800", 200),
        ("/api/v1/wallets?limit=%31&limit=\\ud800", 400),
        ("/?x=%FF\\ud800", 200),
        ("/login?next=\\ud800", 200),
        ("/nope?" + "a&" * 1500, 404),
    ):
        assert exchange(service, head % (path.encode(), charset)).status == status
    form = b'--x\r\nContent-Disposition: form-data; name="email"\r\n\r\n\\ud800\r\n--x--\r\n'
    posted = exchange(
        service,
        b"POST /signup HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n" % len(form)
        + b"Content-Type: multipart/form-data; boundary=x; charset=%s\r\n\r\n" % charset,
        form,
    )
    assert posted.status == 403  # without its token


def test_a_body_in_chunks_is_read(service: str, live_api: Api) -> None:
    wallet_id = live_api.open()
    head = f"POST /api/v1/wallets/{wallet_id}/operation HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (10, GOOD[:10], len(GOOD) - 10, GOOD[10:])
    answer = exchange(
        service,
        head.encode() + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
    )
    assert answer.status == 201
    assert live_api.balance(wallet_id) == "1.00"


def test_a_body_shorter_than_it_says_moves_nothing(service: str, live_api: Api, unchanged: Unchanged) -> None:
    wallet_id = live_api.open()
    whole = request(f"/api/v1/wallets/{wallet_id}/operation", GOOD)
    address = urlsplit(service)
    with unchanged(wallet_id):
        with socket.create_connection((str(address.hostname), address.port or 80), timeout=20) as connection:
            connection.sendall(whole[:-5])
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0]


def test_requests_sent_at_once_on_one_connection_are_each_answered(service: str, live_api: Api) -> None:
    wallet_id = live_api.open()
    whole = request(f"/api/v1/wallets/{wallet_id}/operation", GOOD)
    last = request(f"/api/v1/wallets/{wallet_id}/operation", GOOD, b"Connection: close\r\n")
    address = urlsplit(service)
    received = b""
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=20) as connection:
        connection.sendall(whole + whole + last)
        while chunk := connection.recv(65536):
            received += chunk
    assert received.count(b"HTTP/1.1 201") == 3
    assert live_api.balance(wallet_id) == "3.00"

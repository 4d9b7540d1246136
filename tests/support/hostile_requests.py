"""Hostile and malformed requests, as the bytes that a client sends.

Each row has the expected responses and the number of deposits. WALLET is a placeholder for a wallet's id of
the same length, so that a Content-Length stays correct.
"""

import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from enum import Enum, auto
from http.client import parse_headers
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from tests.support.client import UNKNOWN_ID

SOCKET_TIMEOUT_SECONDS = 30  # allows for a busy machine
CANARY = "canary"
WALLET = UNKNOWN_ID.encode()
PATH = b"/api/v1/wallets/%s/operation" % WALLET
GOOD = b'{"operationType": "DEPOSIT", "amount": "1.00"}'
HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST %s HTTP/1.1\r\n%sContent-Type: application/json\r\n" % (PATH, HOST)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GET = b"GET /livez HTTP/1.1\r\n" + HOST


def sized(content: bytes = GOOD) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(content), content)


def chunk(content: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(content), extension, content)


DEPOSIT = POST + sized()
LAST = b"0\r\n\r\n"
IN_CHUNKS = POST + CHUNKED + b"\r\n"
SMUGGLED = DEPOSIT  # inside another request; it must not be read as a request


class End(Enum):
    """The client's action after it has sent all its bytes."""

    WAIT = auto()  # wait for the responses
    STALL = auto()  # send nothing more until the service times out
    HALF_CLOSE = auto()  # close the sending direction and wait
    RESET = auto()  # reset the connection, as a crashed client does
    LEAVE = auto()  # close the connection at once


@dataclass(frozen=True)
class Shape:
    name: str
    sent: bytes
    answers: tuple[int, ...] = (400,)
    deposits: int = 0
    end: End = End.WAIT
    max_packet_bytes: int = 1 << 30

    def parts(self, wallet_id: str) -> Iterator[bytes]:
        sent = self.sent.replace(WALLET, wallet_id.encode())
        for at in range(0, len(sent), self.max_packet_bytes):
            yield sent[at : at + self.max_packet_bytes]


def by_name(*shapes: Shape) -> dict[str, Shape]:
    named = {shape.name: shape for shape in shapes}
    assert len(named) == len(shapes)
    return named


def bad_length(length: bytes) -> bytes:
    return POST + b"Content-Length: %s\r\n\r\n%s" % (length, GOOD)


def coded(*codings: bytes) -> bytes:
    """Build an ambiguous request: read as chunked, it contains a second request, otherwise none."""
    lines = b"".join(b"Transfer-Encoding%s\r\n" % coding for coding in codings)
    body = LAST + SMUGGLED
    return POST + lines + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


# Unusual but valid requests, which are served.
UNUSUAL = by_name(
    Shape("a byte at a time", DEPOSIT, (201,), 1, max_packet_bytes=1),
    Shape("in chunks, a byte at a time", IN_CHUNKS + chunk(GOOD) + LAST, (201,), 1, max_packet_bytes=1),
    Shape("in chunks of a byte", IN_CHUNKS + b"".join(chunk(bytes([b])) for b in GOOD) + LAST, (201,), 1),
    Shape("three at once", DEPOSIT * 3, (201, 201, 201), 3),
    Shape("three at once, split anywhere", DEPOSIT * 3, (201, 201, 201), 3, max_packet_bytes=7),
    Shape("an empty line before", b"\r\n" + DEPOSIT, (201,), 1),
    Shape("chunk extension", IN_CHUNKS + chunk(GOOD, b';a=b;c="d e"') + LAST, (201,), 1),
    Shape("chunk size with zeros before", IN_CHUNKS + b"000000000" + chunk(GOOD) + LAST, (201,), 1),
    Shape("trailer", IN_CHUNKS + chunk(GOOD) + b"0\r\nX-Checksum: 1\r\n\r\n", (201,), 1),
    Shape("length with zeros before", bad_length(b"00%d" % len(GOOD)), (201,), 1),
    Shape("another's full address", DEPOSIT.replace(PATH, b"http://elsewhere.example" + PATH), (201,), 1),
    Shape("expects to be told to go on", POST + b"Expect: 100-continue\r\n" + sized(), (100, 201), 1),
    Shape("asks for HTTP/2", GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
          b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", (200,)),
    Shape("asks for a web socket", GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", (200,)),
    Shape("a request in the body of another", GET + sized(SMUGGLED), (200,)),
    Shape("and in chunks", GET + CHUNKED + b"\r\n" + chunk(SMUGGLED) + LAST, (200,)),
    Shape("invalid chunks that are not read",
          GET + CHUNKED + b"\r\n" + chunk(SMUGGLED) + b"zz\r\n" + SMUGGLED, (200,)),
    Shape("a form in chunks that are wrong", b"POST /login HTTP/1.1\r\n" + HOST + CHUNKED +
          b"Content-Type: application/x-www-form-urlencoded\r\n\r\nzz\r\n" + SMUGGLED, (403,)),
    Shape("nothing more to come", DEPOSIT, (201,), 1, End.HALF_CLOSE),
    Shape("another path in the head", GET + b"SCRIPT_NAME: /livez\r\nPATH_INFO: /metrics\r\n\r\n", (200,)),
    Shape("a path that is none", GET + b"SCRIPT_NAME: /prefix\r\n\r\n", (200,)),
)  # fmt: skip

# Ambiguous and invalid requests, which are refused.
REFUSED = by_name(
    Shape("TLS", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    Shape("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Shape("HTTP/0.9", b"GET /livez\r\n\r\n"),
    Shape("HTTP/9.9", b"GET /livez HTTP/9.9\r\n\r\n"),
    Shape("no target", b"GET\r\n\r\n"),
    Shape("two targets", b"GET /livez /livez HTTP/1.1\r\n" + HOST + b"\r\n"),
    Shape("a tab in the first line", b"GET\t/livez HTTP/1.1\r\n" + HOST + b"\r\n"),
    Shape("CONNECT", b"CONNECT elsewhere.example:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    Shape("OPTIONS *", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"),
    Shape("PROXY", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + GET + b"\r\n"),
    Shape("no colon", GET + b"no colon\r\n\r\n"),
    Shape("a space before the colon", GET + b"Content-Length : 0\r\n\r\n"),
    Shape("a field folded over two lines", GET + b"X: a\r\n b\r\n\r\n"),
    Shape("a folded first line", b"GET /livez HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n"),
    Shape("NUL in a field", GET + b"X: \x00\r\n\r\n"),
    Shape("NUL in a name", GET + b"X\x00: a\r\n\r\n"),
    Shape("NUL in the target", b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n"),
    Shape("bare CR in a field", GET + b"X: a\rb\r\n\r\n"),
    Shape("bare LF between fields", GET + b"X: a\nY: b\r\n\r\n"),
    Shape("bare LF everywhere", (GET + b"\r\n").replace(b"\r\n", b"\n")),
    Shape("no name", GET + b": a\r\n\r\n"),
    Shape("two hosts", GET + HOST + b"\r\n"),
    Shape("a host that is not ours", b"GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n"),
    Shape("a long first line", b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    Shape("an endless first line", b"GET /" + b"a" * 1_000_000),
    Shape("a long field", GET + b"X: " + b"a" * 100_000 + b"\r\n\r\n"),
    Shape("an endless field", GET + b"X: " + b"a" * 2_000_000),
    Shape("many fields", GET + b"X-A: b\r\n" * 1000 + b"\r\n"),
    Shape("endless fields", GET + b"X-A: b\r\n" * 200_000),
    Shape("a long Accept", GET + b"Accept: " + b"a/b," * 2000 + b"\r\n\r\n"),
    Shape("a body of many values", POST + sized(b'{"metadata":{"a":[' + b"1," * 20_000 + b"1]}}")),
    Shape("a body of many names", POST + sized(b"{" + b",".join(b'"%x":0' % n for n in range(5000)) + b"}")),
    Shape("a body that is nested deeply", POST + sized(b'{"a":' * 5000 + b"0" + b"}" * 5000)),
    Shape("a body too long for its endpoint", POST + sized(GOOD + b" " * 65_536), (413,)),
    Shape("length: a sign", bad_length(b"+%d" % len(GOOD))),
    Shape("length: less than none", bad_length(b"-1")),
    Shape("length: hexadecimal", bad_length(b"0x2e")),
    Shape("length: a word", bad_length(b"x")),
    Shape("length: nothing", bad_length(b"")),
    Shape("length: a space in it", bad_length(b"4 6")),
    Shape("length: a digit that is not ASCII", bad_length(b"\xb2")),
    Shape("length: twice in one line", bad_length(b"%d, %d" % (len(GOOD), len(GOOD)))),
    Shape("length: 5,000 digits", bad_length(b"9" * 5000)),
    Shape("length: 20 digits", bad_length(b"9" * 20), (413,), end=End.HALF_CLOSE),
    Shape("two lengths", POST + b"Content-Length: 1\r\n" + sized()),
    Shape("one length twice", POST + b"Content-Length: %d\r\n" % len(GOOD) + sized()),
    Shape("length and chunks", coded(b": chunked")),
    Shape("length and chunks, the other way round",
          POST + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n" + chunk(SMUGGLED) + LAST),
    Shape("coding: unknown", coded(b": xchunked")),
    Shape("coding: a space before the colon", coded(b" : chunked")),
    Shape("coding: a vertical tab", coded(b": \x0bchunked")),
    Shape("coding: quoted", coded(b': "chunked"')),
    Shape("coding: folded", coded(b":\r\n chunked")),
    Shape("coding: NUL", coded(b": chunked\x00")),
    Shape("coding: twice", coded(b": chunked", b": chunked")),
    Shape("coding: and another", coded(b": chunked", b": x")),
    Shape("coding: identity after", coded(b": chunked, identity")),
    Shape("coding: chunked in between", coded(b": chunked, gzip")),
    Shape("coding: identity alone", POST + b"Transfer-Encoding: identity\r\n" + sized()),
    Shape("coding: gzip alone", POST + b"Transfer-Encoding: gzip\r\n\r\n" + GOOD),
    Shape("coding: nothing", POST + b"Transfer-Encoding:\r\n" + sized()),
    Shape("coding: HTTP/1.0", (IN_CHUNKS + chunk(GOOD) + LAST).replace(b"HTTP/1.1", b"HTTP/1.0")),
    Shape("expects something else", POST + b"Expect: 200-ok\r\n" + sized()),
    Shape("chunk size: a word", IN_CHUNKS + b"zz\r\n" + GOOD + b"\r\n" + LAST),
    Shape("chunk size: 0x", IN_CHUNKS + b"0x" + chunk(GOOD) + LAST),
    Shape("chunk size: a sign", IN_CHUNKS + b"+" + chunk(GOOD) + LAST),
    Shape("chunk size: less than none", IN_CHUNKS + b"-1\r\n" + GOOD + b"\r\n" + LAST),
    Shape("chunk size: nothing", IN_CHUNKS + b"\r\n" + GOOD + b"\r\n" + LAST),
    Shape("chunk size: an underscore", IN_CHUNKS + b"2_e\r\n" + GOOD + b"\r\n" + LAST),
    Shape("chunk size: past 64 bits", IN_CHUNKS + b"1" + b"0" * 15 + chunk(GOOD) + LAST,
          end=End.HALF_CLOSE),
    Shape("chunk size: endless", IN_CHUNKS + b"0" * 1_000_000),
    Shape("chunk longer than it says", IN_CHUNKS + b"2\r\n" + GOOD + b"\r\n" + LAST),
    Shape("chunk without its end", IN_CHUNKS + chunk(GOOD)[:-2] + LAST + SMUGGLED),
    Shape("chunk extension: a bare CR", IN_CHUNKS + chunk(GOOD, b";a\rb") + LAST),
    Shape("chunk extension: a bare LF", IN_CHUNKS + chunk(GOOD, b";\n") + LAST + SMUGGLED),
    Shape("chunk extension: NUL", IN_CHUNKS + chunk(GOOD, b";\x00") + LAST),
    Shape("chunk extension: endless", IN_CHUNKS + b"2e;" + b"a" * 1_000_000),
    Shape("trailer: a host", IN_CHUNKS + chunk(GOOD) + b"0\r\nHost: elsewhere.example\r\n\r\n"),
    Shape("trailer: a length", IN_CHUNKS + chunk(GOOD) + b"0\r\nContent-Length: 3\r\n\r\n"),
    Shape("trailer: no colon", IN_CHUNKS + chunk(GOOD) + b"0\r\nno colon\r\n\r\n"),
    Shape("trailer: endless", IN_CHUNKS + chunk(GOOD) + b"0\r\n" + b"X-A: b\r\n" * 200_000),
    Shape("a body that ends early", DEPOSIT[:-5], end=End.HALF_CLOSE),
    Shape("chunks that end early", IN_CHUNKS + chunk(GOOD), end=End.HALF_CLOSE),
    Shape("a chunk that ends early", IN_CHUNKS + chunk(GOOD)[:-9], end=End.HALF_CLOSE),
    Shape("a long body in chunks", IN_CHUNKS + chunk(b" " * 65_536) * 20 + LAST, (413,)),
)  # fmt: skip

# Incomplete requests of clients that close the connection: they get no response.
GONE = by_name(
    Shape("nothing at all", b"", (), end=End.HALF_CLOSE),
    Shape("half a head", GET[:-5], (), end=End.HALF_CLOSE),
    Shape("reset at once", b"", (), end=End.RESET),
    Shape("reset amid the head", GET[:-5], (), end=End.RESET),
    Shape("reset amid the body", DEPOSIT[:-5], (), end=End.RESET),
    Shape("reset amid a chunk", IN_CHUNKS + chunk(GOOD)[:-5], (), end=End.RESET),
    Shape("leaves amid the body", DEPOSIT[:-5], (), end=End.LEAVE),
    Shape("leaves amid the chunks", IN_CHUNKS + chunk(GOOD), (), end=End.LEAVE),
    Shape("leaves before its answers", GET.replace(b"livez", b"api/schema") + b"\r\n", (), end=End.LEAVE),
    Shape("resets before its answers", (GET + b"\r\n") * 100, (), end=End.RESET),
)


# Stalled requests, which the service has to end. It answers a stalled body, but not a stalled head.
def stalled(name: str, sent: bytes, *answers: int) -> Shape:
    return Shape(name, sent, answers, end=End.STALL)


STALLED = by_name(
    stalled("nothing", b""),
    stalled("amid the first line", GET[:9]),
    stalled("amid the head", GET),
    stalled("amid the body", DEPOSIT[:-5], 400),
    stalled("before the body", POST + sized()[: -len(GOOD)], 400),
    stalled(
        "before the body, told to go on", POST + b"Expect: 100-continue\r\n" + sized()[: -len(GOOD)], 100, 400
    ),
    stalled("before the chunks", IN_CHUNKS, 400),
    stalled("amid a chunk", IN_CHUNKS + chunk(GOOD)[:-5], 400),
    stalled("amid a chunk of 2**64 bytes", IN_CHUNKS + b"1" + b"0" * 16 + b"\r\n" + GOOD, 400),
    stalled("before the last chunk", IN_CHUNKS + chunk(GOOD), 400),
    stalled("amid the trailers", IN_CHUNKS + chunk(GOOD) + b"0\r\nX: ", 400),
    stalled("chunks with bare LF", IN_CHUNKS + (chunk(GOOD) + LAST).replace(b"\r\n", b"\n"), 400),
    stalled("amid a body that is not read", GET + sized(SMUGGLED)[:-5], 200),
    stalled("after an answer", GET + b"\r\n", 200),
)


@dataclass(frozen=True)
class Raw:
    status: int
    headers: Message
    body: bytes


class Talk:
    """A connection that sends arbitrary bytes."""

    def __init__(
        self,
        address: tuple[str, int],
        wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain,
        source: str = "127.0.0.1",
    ) -> None:
        self.socket = wrap(socket.create_connection(address, SOCKET_TIMEOUT_SECONDS, (source, 0)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self.socket.close()

    def say(self, *parts: bytes) -> None:
        with suppress(ConnectionError, ssl.SSLError):  # the service may have answered and closed already
            for part in parts:
                self.socket.sendall(part)

    def end(self, how: End) -> None:
        if how is End.HALF_CLOSE:
            with suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_WR)  # below TLS, if the connection has it
        elif how is End.RESET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def has_something(self) -> bool:
        """Return whether a response or the end of the connection has arrived."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def hear_until(self, end: bytes) -> bytes:
        """Return the received bytes up to and including `end`, or up to the end of the connection."""
        received = b""
        while not received.endswith(end) and (byte := self._reader.read(1)):
            received += byte
        return received

    def hear(self) -> Raw | None:
        """Return the next response, or None if the connection has ended."""
        try:
            return _answer(self._reader)
        except (ConnectionError, ssl.SSLError):
            return None


def _answer(reader: BinaryIO) -> Raw | None:
    line = reader.readline()
    if not line:
        return None
    assert line.startswith(b"HTTP/1.1 "), line
    status = int(line.split()[1])
    headers = parse_headers(reader)
    if status < 200:
        return Raw(status, headers, b"")
    if headers.get("Transfer-Encoding") == "chunked":
        return Raw(status, headers, b"".join(_chunks(reader)))
    length = headers.get("Content-Length")
    return Raw(status, headers, reader.read(int(length)) if length else reader.read())


def _chunks(reader: BinaryIO) -> Iterator[bytes]:
    while size := int(reader.readline(), 16):
        yield reader.read(size)
        reader.readline()
    reader.readline()


def converse(talk: Talk, shape: Shape, wallet_id: str) -> list[Raw]:
    """Return all responses. If the connection stays open, check that a further request gets its own."""
    with talk:
        talk.say(*shape.parts(wallet_id))
        talk.end(shape.end)
        if shape.end in (End.RESET, End.LEAVE):
            return []
        received: list[Raw] = []
        while len(received) < max(1, len(shape.answers)) and (answer := talk.hear()):
            received.append(answer)
        if shape.end is not End.STALL:
            talk.say(GET + b"X-Request-ID: %s\r\nConnection: close\r\n\r\n" % CANARY.encode())
        while answer := talk.hear():
            received.append(answer)
    if received and received[-1].headers.get("X-Request-ID") == CANARY:
        assert received.pop().status == 200
    return received


def connections(service: str) -> int:
    """Return the number of client connections that the service still has open."""
    port = urlsplit(service).port
    listening = "0A"
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, state, inode = int(fields[1].rpartition(":")[2], 16), fields[3], int(fields[9])
        count += local == port and state != listening and inode != 0
    return count

"""The event stream of a wallet at the API."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from django import db
from uuid_utils.compat import uuid7

from tests.conftest import running_service
from tests.support.client import Answer, Api, OverHttp
from tests.support.events import horizon, wait_until
from tests.support.keys import new_key, prefix_of
from wallets.access.rights import READ
from wallets.api import events
from wallets.events import cloudevents, live
from wallets.events.cloudevents import Event, events_of
from wallets.events.live import StreamItem, Tail, Watch
from wallets.events.log import LogItem
from walletsvc.server.connection import Connection as Socket


@dataclass
class Stream:
    response: http.client.HTTPResponse
    last_id: str = ""

    def next(self) -> tuple[str, Any]:
        """Return name and data of the next event, skipping the opening of the wallet."""
        name, data = "message", None
        while (line := self.response.readline().decode()) != "\n":
            assert line, "the stream has ended"
            field, _, value = line.rstrip("\n").partition(": ")
            name = value if field == "event" else name
            self.last_id = value if field == "id" else self.last_id
            data = json.loads(value) if field == "data" else data
        # The wallet is new: the tail may still send its opening.
        is_news = name == "gap" or (data and data["type"] != "wallet.opened")
        return (name, data) if is_news else self.next()

    def types(self, number: int) -> list[str]:
        return [self.next()[1]["type"] for _ in range(number)]

    def is_over(self) -> bool:
        return not self.response.read().replace(b":\n\n", b"").strip()


@contextmanager
def following(service: str, wallet: str, query: str = "", **headers: str) -> Iterator[Stream]:
    connection = http.client.HTTPConnection(urlsplit(service).netloc, timeout=60)
    with closing(connection):
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", f"/api/v1/wallets/{wallet}/events{query}", headers=given)
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.readline() == b": hello\n"
        assert response.readline() == b"\n"
        yield Stream(response)


def test_stream_delivers_events_as_they_happen(service: str, live_api: Api) -> None:
    wallet, other = live_api.open(), live_api.open()
    with following(service, wallet) as stream:
        live_api.deposit(other, "1")
        live_api.deposit(wallet, "5")
        name, event = stream.next()
        assert (name, event["type"], event["subject"]) == ("message", "wallet.operation.completed", wallet)
        assert event["data"] == live_api.history(wallet)[0]
        assert stream.next()[1]["data"]["balance"] == "5.00"
        live_api.withdraw(wallet, "6")
        assert stream.types(1) == ["wallet.operation.rejected"]


def test_streams_of_all_processes_get_the_events(service: str, live_api: Api) -> None:
    wallet, key = live_api.open(), f"Bearer {new_key(READ)}"
    with ExitStack() as stack:
        # More than the limit per key in one process: so another process has some of them.
        streams = [
            stack.enter_context(following(service, wallet, Authorization=key))
            for _ in range(live.MAX_STREAMS_PER_CALLER + 1)
        ]
        live_api.deposit(wallet, "5")
        for stream in streams:
            assert stream.types(2) == ["wallet.operation.completed", "wallet.balance.changed"]


def test_stream_delivers_all_events_of_a_bulk(service: str, live_api: Api) -> None:
    wallet = live_api.open()
    each = {"operationType": "DEPOSIT", "walletId": wallet, "amount": "1"}
    with following(service, wallet) as stream:
        assert live_api.bulk(*[each] * 1000).status == 200
        sequences = [stream.next()[1]["data"]["sequence"] for _ in range(2000)]
        assert sequences == [sequence for sequence in range(1, 1001) for _ in range(2)]


def test_resumed_stream_misses_no_event(service: str, live_api: Api) -> None:
    wallet = live_api.open()
    with following(service, wallet) as stream:
        live_api.deposit(wallet, "1")
        stream.types(2)
    live_api.deposit(wallet, "2")
    live_api.withdraw(wallet, "9")
    with following(service, wallet, Last_Event_ID=stream.last_id) as again:
        assert again.types(3) == [
            *("wallet.operation.completed", "wallet.balance.changed", "wallet.operation.rejected")
        ]
    with following(service, wallet, "?seconds=0", Last_Event_ID=again.last_id) as once_more:
        assert once_more.is_over()


def test_resume_after_too_many_transactions_sends_a_gap(
    service: str, live_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet = live_api.open()
    monkeypatch.setattr(live, "MAX_TRANSACTIONS_BEHIND", 0)
    answer = Api().get(f"/wallets/{wallet}/events?seconds=0", **{"Last_Event_ID": "1"})
    assert says_gap(answer)
    in_the_future = live_api.get(f"/wallets/{wallet}/events?seconds=0", **{"Last_Event_ID": "9" * 18})
    assert says_gap(in_the_future)
    monkeypatch.undo()
    again = Api().get(f"/wallets/{wallet}/events?seconds=0", **{"Last_Event_ID": id_in(answer)})
    assert again.content == b": hello\n\n"


def says_gap(answer: Answer) -> bool:
    hello, gap, end = answer.content.split(b"\n\n")
    return (hello, end) == (b": hello", b"") and gap.endswith(b"\nevent: gap\ndata: {}")


def id_in(answer: Answer) -> str:
    (id,) = [line[4:] for line in answer.content.decode().splitlines() if line.startswith("id: ")]
    return id


def test_resume_after_too_many_events_sends_a_gap(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet, since = api.open(), str(horizon())
    for _ in range(3):
        api.deposit(wallet, "1")
    horizon()
    monkeypatch.setattr(live, "MAX_ENTRIES_PER_READ", 2)
    monkeypatch.setattr(live, "MAX_QUEUED_ITEMS", 6)
    everything = api.get(f"/wallets/{wallet}/events?seconds=0", Last_Event_ID=since)
    ids = {
        json.loads(line[6:])["id"] for line in everything.content.splitlines() if line.startswith(b"data: ")
    }
    assert len(ids) == 6  # a repeated event has the same id
    monkeypatch.setattr(live, "MAX_QUEUED_ITEMS", 5)
    assert says_gap(api.get(f"/wallets/{wallet}/events?seconds=0", Last_Event_ID=since))


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("?seconds=301", {}, "seconds"),
        ("?seconds=-1", {}, "seconds"),
        ("?seconds=1e1", {}, "seconds"),
        ("?other=1", {}, "other"),
        ("", {"Last_Event_ID": "x"}, "Last-Event-ID"),
        ("", {"Last_Event_ID": "1" * 19}, "Last-Event-ID"),
        ("", {"Last_Event_ID": "-1"}, "Last-Event-ID"),
    ],
)
def test_malformed_stream_request_is_refused(
    api: Api, query: str, headers: dict[str, str], field: str
) -> None:
    answer = api.get(f"/wallets/{api.open()}/events{query}", **headers)
    assert (answer.status, answer.code) == (400, "validation_error")
    assert [error["field"] for error in answer.json["errors"]] == [field]


def test_stream_requires_read_access_to_the_wallet(api: Api) -> None:
    assert api.get("/wallets/nothing/events?seconds=0").code == "wallet_not_found"
    reader = Api(key=new_key(READ))
    path = f"/wallets/{api.open()}/events?seconds=0"
    assert reader.get(path).status == 200
    assert reader.get(path, Accept="text/event-stream; charset=utf-8").status == 200
    assert api.get(f"/wallets/{api.open()}/events", Accept="application/json").code == "not_acceptable"


def test_head_request_returns_at_once(service: str, live_api: Api) -> None:
    wallet, sender = live_api.open(), OverHttp(service, timeout=20)
    with closing(sender.connection):
        answer = Api(sender).send("HEAD", f"/wallets/{wallet}/events")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert Api(sender).wallet(wallet)["id"] == wallet  # the connection is still usable


def test_stream_limit_counts_only_open_streams(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS", 2)
    wallet = api.open()
    for _ in range(5):  # each stream has ended with its response
        assert api.get(f"/wallets/{wallet}/events?seconds=0").status == 200
    watches = [live.tail().watch(UUID(wallet), None, "") for _ in range(2)]
    assert api.get(f"/wallets/{wallet}/events?seconds=0").code == "too_many_requests"
    watches[0].close()
    watches[0].close()  # closing again changes nothing
    assert api.get(f"/wallets/{wallet}/events?seconds=0").status == 200
    watches[1].close()


def test_stream_limit_per_caller_refuses_only_that_caller(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS_PER_CALLER", 1)
    wallet = api.open()
    key = new_key(READ)
    one, other = Api(key=key), Api(key=new_key(READ))
    with closing(live.tail().watch(UUID(wallet), None, f"key:{prefix_of(key)}")):
        assert one.get(f"/wallets/{wallet}/events?seconds=0").code == "too_many_requests"
        assert other.get(f"/wallets/{wallet}/events?seconds=0").status == 200
    assert one.get(f"/wallets/{wallet}/events?seconds=0").status == 200
    # Anonymous clients of an open API cannot be told apart, so they have no limit of their own.
    with closing(live.tail().watch(UUID(wallet), None, "")):
        assert api.get(f"/wallets/{wallet}/events?seconds=0").status == 200


@pytest.mark.slow
def test_stream_of_a_disconnected_client_is_closed() -> None:
    with running_service(WORKERS="1") as address, closing(OverHttp(address).connection) as connection:
        sender = OverHttp(address)
        sender.connection = connection
        api = Api(sender)
        wallet, reader = api.open(), Api(sender, new_key(READ))
        with ExitStack() as stack:
            for _ in range(live.MAX_STREAMS_PER_CALLER):
                stack.enter_context(following(address, wallet, Authorization=f"Bearer {reader.key}"))
            assert reader.get(f"/wallets/{wallet}/events?seconds=0").code == "too_many_requests"

        def has_room() -> bool:
            api.deposit(wallet, "1")  # the service notices a disconnect when it sends an event
            return reader.get(f"/wallets/{wallet}/events?seconds=0").status == 200

        wait_until(has_room, "the streams of the disconnected client stay open")


@pytest.mark.slow
def test_shutdown_ends_open_streams() -> None:
    with running_service(WORKERS="1") as address:  # asserts that the service ends in time
        sender = OverHttp(address)
        wallet = Api(sender).open()
        sender.connection.close()
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        connection.request("GET", f"/api/v1/wallets/{wallet}/events")
        response = connection.getresponse()
        assert response.readline() == b": hello\n"
    with closing(connection):
        assert response.read().strip() == b""


# --- The tail ---------------------------------------------------------------------------------------
class ManualTail(Tail):
    """A tail without a thread: the test calls `poll`."""

    def _run(self) -> None: ...

    def watch(self, *args: Any) -> Watch:
        horizon()
        return super().watch(*args)

    def poll(self) -> bool:
        horizon()
        return self._read_if_needed()


class TailAdvancingDuringJoin(ManualTail):
    """A tail that reads further while another stream is being opened."""

    def __init__(self, api: Api, wallet: str) -> None:
        super().__init__()
        self._api, self._wallet = api, wallet
        self.connections: list[Any] = []

    def _join(self, *args: Any) -> int:
        self.connections.append(db.connection.connection)
        if self._is_running:
            self._api.deposit(self._wallet, "1")
            horizon()
            self._step()
        return super()._join(*args)


def received(watch: Watch) -> list[tuple[str, int]]:
    """Return types and sequences of the queued events."""
    items: list[StreamItem] = []
    while item := watch.next(0):
        items.append(item)
    return [summary(item.event) for item in items]


def summary(event: Event | None) -> tuple[str, int]:
    if event is None:
        return "gap", 0
    return event.type.removeprefix("wallet."), json.loads(event.content)["data"].get("sequence", 0)


def deposits(*sequences: int) -> list[tuple[str, int]]:
    return [(type, each) for each in sequences for type in ("operation.completed", "balance.changed")]


@contextmanager
def failing_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[list[Exception]]:
    """Let the next rendering of log entries fail."""
    errors = [error]

    def fail(entries: Iterable[LogItem]) -> list[Event]:
        if entries and errors:
            raise errors.pop()
        return events_of(list(entries))

    with monkeypatch.context() as patch:
        patch.setattr(live, "events_of", fail)
        yield errors


def test_stream_opened_within_a_window_misses_no_event(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet, tail = api.open(), ManualTail()
    since = horizon()
    with closing(tail.watch(UUID(wallet), None, "")) as early:
        for _ in range(3):
            api.deposit(wallet, "1")
        with monkeypatch.context() as patch:
            patch.setattr(live, "MAX_ENTRIES_PER_READ", 2)
            tail.poll()
        assert received(early) == deposits(1, 2)
        with (
            closing(tail.watch(UUID(wallet), since, "")) as late,
            closing(tail.watch(UUID(wallet), None, "")) as latest,
        ):
            tail.poll()
            assert received(early) == deposits(3)
            assert received(late) == deposits(1, 2, 3, 3)  # an event that is sent twice has the same id
            assert received(latest) == deposits(3)


def test_stream_opened_while_the_tail_advances_misses_no_event(api: Api) -> None:
    wallet = api.open()
    tail = TailAdvancingDuringJoin(api, wallet)
    with (
        closing(tail.watch(UUID(wallet), None, "")) as first,
        closing(tail.watch(UUID(wallet), None, "")) as second,
    ):
        assert received(first) == received(second) == deposits(1)


def test_missed_events_precede_new_ones(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet, tail, since = api.open(), ManualTail(), horizon()
    api.deposit(wallet, "1")
    missed = live._missed

    def slowly(*args: Any) -> list[StreamItem]:
        """Let the tail advance during the query."""
        api.deposit(wallet, "1")
        tail.poll()
        return missed(*args)

    monkeypatch.setattr(live, "_missed", slowly)
    with closing(tail.watch(UUID(wallet), since, "")) as watch:
        assert received(watch) == deposits(1, 2)


def test_opening_a_stream_holds_no_database_connection(api: Api) -> None:
    wallet = api.open()
    tail = TailAdvancingDuringJoin(api, wallet)
    tail.watch(UUID(wallet), None, "").close()
    assert tail.connections == [None]


def test_database_error_only_delays_events(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet, tail = api.open(), ManualTail()
    with closing(tail.watch(UUID(wallet), None, "")) as watch:
        api.deposit(wallet, "1")
        with (
            failing_once(monkeypatch, db.OperationalError("the database is away")),
            pytest.raises(db.OperationalError),
        ):
            tail.poll()
        assert received(watch) == []
        tail.poll()
        assert received(watch) == deposits(1)


def test_unexpected_exception_does_not_end_the_tail(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "ERROR_PAUSE_SECONDS", 0)
    wallet, tail = api.open(), Tail()
    with (
        closing(tail.watch(UUID(wallet), None, "")) as watch,
        failing_once(monkeypatch, ValueError("an unexpected exception")) as errors,
    ):
        api.deposit(wallet, "1")
        item = watch.next(30)
        assert item
        assert summary(item.event) == ("operation.completed", 1)
        assert not errors
    assert "an unexpected exception" in caplog.text


def test_repeated_streams_share_one_tail_thread(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    class RecordingTail(Tail):
        def _run(self) -> None:
            threads.append(threading.current_thread())
            super()._run()

    monkeypatch.setattr(live, "POLL_SECONDS", 0.02)
    wallet, tail = UUID(api.open()), RecordingTail()
    for _ in range(100):
        tail.watch(wallet, None, "").close()
        time.sleep(0.01)
    with closing(tail.watch(wallet, None, "")):
        wait_until(lambda: sum(thread.is_alive() for thread in threads) == 1, "several threads are running")
    wait_until(lambda: not any(thread.is_alive() for thread in threads), "the thread runs without streams")


def test_full_queue_is_replaced_by_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_QUEUED_ITEMS", 3)
    watch = Watch(uuid7(), "", lambda _: None)
    event = Event("", "", watch.wallet_id, b"")
    for position in range(5):
        watch.put(StreamItem(event, position))
    assert [watch.next(0) for _ in range(3)] == [StreamItem(None, 3), StreamItem(event, 4), None]


def test_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "CLIENT_READ_TIMEOUT_SECONDS", 0.1)
    here, there = socket.socketpair()
    watch = Watch(uuid7(), "", lambda _: None)
    with here, there:
        here.settimeout(30)
        answer = Socket(here)

        def serve(stream: events.Stream) -> None:
            for piece in stream:
                assert here.gettimeout() == events.CLIENT_READ_TIMEOUT_SECONDS
                answer.sendall(piece)
                watch.put(StreamItem(Event("", "", watch.wallet_id, b"x" * 10_000), 1))

        with closing(events.Stream(watch, 300, answer)) as stream, pytest.raises(ConnectionResetError):
            serve(stream)
        assert here.gettimeout() == 30


def test_currency_cache_reset_keeps_earlier_results(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudevents, "MAX_CACHED_CURRENCIES", 0)
    one, other = UUID(api.open(currency="EUR")), UUID(api.open(currency="USD"))
    found = cloudevents._find_currencies({one})
    assert cloudevents._find_currencies({other}) == {other: "USD"}
    assert found == {one: "EUR"}

"""Who follows a wallet hears what happens to it, as it happens."""

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
        """The next event but for the wallet's first: its name, and its data."""
        name, data = "message", None
        while (line := self.response.readline().decode()) != "\n":
            assert line, "the stream is over"
            field, _, value = line.rstrip("\n").partition(": ")
            name = value if field == "event" else name
            self.last_id = value if field == "id" else self.last_id
            data = json.loads(value) if field == "data" else data
        # When the wallet was opened is not long ago: it may be told still.
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


def test_what_happens_arrives_while_the_stream_goes_on(service: str, live_api: Api) -> None:
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


def test_several_may_follow_in_every_process(service: str, live_api: Api) -> None:
    wallet, key = live_api.open(), f"Bearer {new_key(READ)}"
    with ExitStack() as stack:
        # More than a key's share of one process: so there are some in another one.
        streams = [
            stack.enter_context(following(service, wallet, Authorization=key))
            for _ in range(live.MAX_STREAMS_PER_CALLER + 1)
        ]
        live_api.deposit(wallet, "5")
        for stream in streams:
            assert stream.types(2) == ["wallet.operation.completed", "wallet.balance.changed"]


def test_who_listens_is_told_of_a_whole_bulk(service: str, live_api: Api) -> None:
    wallet = live_api.open()
    each = {"operationType": "DEPOSIT", "walletId": wallet, "amount": "1"}
    with following(service, wallet) as stream:
        assert live_api.bulk(*[each] * 1000).status == 200
        sequences = [stream.next()[1]["data"]["sequence"] for _ in range(2000)]
        assert sequences == [sequence for sequence in range(1, 1001) for _ in range(2)]


def test_who_comes_again_misses_nothing(service: str, live_api: Api) -> None:
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


def test_who_was_away_for_too_long_is_told(
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


def test_who_has_missed_more_than_may_wait_is_told(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert len(ids) == 6  # one that is told again is known by its id
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
def test_what_is_malformed_is_refused(api: Api, query: str, headers: dict[str, str], field: str) -> None:
    answer = api.get(f"/wallets/{api.open()}/events{query}", **headers)
    assert (answer.status, answer.code) == (400, "validation_error")
    assert [error["field"] for error in answer.json["errors"]] == [field]


def test_only_who_may_see_the_wallet_may_follow_it(api: Api) -> None:
    assert api.get("/wallets/nothing/events?seconds=0").code == "wallet_not_found"
    reader = Api(key=new_key(READ))
    assert reader.get(f"/wallets/{api.open()}/events?seconds=0").status == 200
    assert api.get(f"/wallets/{api.open()}/events", Accept="application/json").code == "not_acceptable"


def test_who_asks_for_the_head_alone_does_not_wait(service: str, live_api: Api) -> None:
    wallet, sender = live_api.open(), OverHttp(service, timeout=20)
    with closing(sender.connection):
        answer = Api(sender).send("HEAD", f"/wallets/{wallet}/events")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert Api(sender).wallet(wallet)["id"] == wallet  # on the same connection


def test_too_many_are_refused_and_who_leaves_makes_room(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS", 2)
    wallet = api.open()
    for _ in range(5):  # each has left when it is answered
        assert api.get(f"/wallets/{wallet}/events?seconds=0").status == 200
    watches = [live.tail().watch(UUID(wallet), None, "") for _ in range(2)]
    assert api.get(f"/wallets/{wallet}/events?seconds=0").code == "too_many_requests"
    watches[0].close()
    watches[0].close()  # once is enough
    assert api.get(f"/wallets/{wallet}/events?seconds=0").status == 200
    watches[1].close()


def test_nobody_takes_more_than_their_share(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS_PER_CALLER", 1)
    wallet = api.open()
    key = new_key(READ)
    one, other = Api(key=key), Api(key=new_key(READ))
    with closing(live.tail().watch(UUID(wallet), None, f"key:{prefix_of(key)}")):
        assert one.get(f"/wallets/{wallet}/events?seconds=0").code == "too_many_requests"
        assert other.get(f"/wallets/{wallet}/events?seconds=0").status == 200
    assert one.get(f"/wallets/{wallet}/events?seconds=0").status == 200
    # All that an open API knows of who asks without a key is that there are many.
    with closing(live.tail().watch(UUID(wallet), None, "")):
        assert api.get(f"/wallets/{wallet}/events?seconds=0").status == 200


@pytest.mark.slow
def test_a_client_that_goes_is_not_told_any_more() -> None:
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
            api.deposit(wallet, "1")  # that a client has gone is noticed when it is told something
            return reader.get(f"/wallets/{wallet}/events?seconds=0").status == 200

        wait_until(has_room, "who has gone still waits")


@pytest.mark.slow
def test_a_service_that_stops_ends_its_streams() -> None:
    with running_service(WORKERS="1") as address:  # it asserts that the service has ended in time
        sender = OverHttp(address)
        wallet = Api(sender).open()
        sender.connection.close()
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        connection.request("GET", f"/api/v1/wallets/{wallet}/events")
        response = connection.getresponse()
        assert response.readline() == b": hello\n"
    with closing(connection):
        assert response.read().strip() == b""


# --- By hand ----------------------------------------------------------------------------------------
class ByHand(Tail):
    """One that looks when it is told to."""

    def _run(self) -> None: ...

    def watch(self, *args: Any) -> Watch:
        horizon()
        return super().watch(*args)

    def look(self) -> bool:
        horizon()
        return self._read_if_needed()


class Overtaking(ByHand):
    """It has passed what happens while somebody asks to be let in."""

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


def told(watch: Watch) -> list[tuple[str, int]]:
    """The types and sequences of what waits."""
    moments: list[StreamItem] = []
    while moment := watch.next(0):
        moments.append(moment)
    return [summary(moment.event) for moment in moments]


def summary(event: Event | None) -> tuple[str, int]:
    if event is None:
        return "gap", 0
    return event.type.removeprefix("wallet."), json.loads(event.content)["data"].get("sequence", 0)


def deposits(*sequences: int) -> list[tuple[str, int]]:
    return [(type, each) for each in sequences for type in ("operation.completed", "balance.changed")]


@contextmanager
def failing_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[list[Exception]]:
    """Where the entries of the log are made events."""
    errors = [error]

    def fail(entries: Iterable[LogItem]) -> list[Event]:
        if entries and errors:
            raise errors.pop()
        return events_of(list(entries))

    with monkeypatch.context() as patch:
        patch.setattr(live, "events_of", fail)
        yield errors


def test_who_joins_amid_a_window_misses_nothing_of_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet, tail = api.open(), ByHand()
    since = horizon()
    with closing(tail.watch(UUID(wallet), None, "")) as early:
        for _ in range(3):
            api.deposit(wallet, "1")
        with monkeypatch.context() as patch:
            patch.setattr(live, "MAX_ENTRIES_PER_READ", 2)
            tail.look()
        assert told(early) == deposits(1, 2)
        with (
            closing(tail.watch(UUID(wallet), since, "")) as late,
            closing(tail.watch(UUID(wallet), None, "")) as latest,
        ):
            tail.look()
            assert told(early) == deposits(3)
            assert told(late) == deposits(1, 2, 3, 3)  # what it has seen it knows by the id
            assert told(latest) == deposits(3)


def test_who_joins_while_the_tail_moves_on_misses_nothing(api: Api) -> None:
    wallet = api.open()
    tail = Overtaking(api, wallet)
    with (
        closing(tail.watch(UUID(wallet), None, "")) as first,
        closing(tail.watch(UUID(wallet), None, "")) as second,
    ):
        assert told(first) == told(second) == deposits(1)


def test_who_comes_again_is_told_in_the_order_in_which_it_happened(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet, tail, since = api.open(), ByHand(), horizon()
    api.deposit(wallet, "1")
    missed = live._missed

    def slowly(*args: Any) -> list[StreamItem]:
        """Meanwhile the tail goes on."""
        api.deposit(wallet, "1")
        tail.look()
        return missed(*args)

    monkeypatch.setattr(live, "_missed", slowly)
    with closing(tail.watch(UUID(wallet), since, "")) as watch:
        assert told(watch) == deposits(1, 2)


def test_who_waits_to_join_keeps_no_connection(api: Api) -> None:
    wallet = api.open()
    tail = Overtaking(api, wallet)
    tail.watch(UUID(wallet), None, "").close()
    assert tail.connections == [None]


def test_what_the_database_did_not_say_at_once_is_told_later(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet, tail = api.open(), ByHand()
    with closing(tail.watch(UUID(wallet), None, "")) as watch:
        api.deposit(wallet, "1")
        with (
            failing_once(monkeypatch, db.OperationalError("the database is away")),
            pytest.raises(db.OperationalError),
        ):
            tail.look()
        assert told(watch) == []
        tail.look()
        assert told(watch) == deposits(1)


def test_a_fault_does_not_end_the_tail(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "ERROR_PAUSE_SECONDS", 0)
    wallet, tail = api.open(), Tail()
    with (
        closing(tail.watch(UUID(wallet), None, "")) as watch,
        failing_once(monkeypatch, ValueError("nobody thought of this")) as errors,
    ):
        api.deposit(wallet, "1")
        moment = watch.next(30)
        assert moment
        assert summary(moment.event) == ("operation.completed", 1)
        assert not errors
    assert "nobody thought of this" in caplog.text


def test_there_is_one_thread_however_often_somebody_comes_and_goes(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    class Noted(Tail):
        def _run(self) -> None:
            threads.append(threading.current_thread())
            super()._run()

    monkeypatch.setattr(live, "POLL_SECONDS", 0.02)
    wallet, tail = UUID(api.open()), Noted()
    for _ in range(100):
        tail.watch(wallet, None, "").close()
        time.sleep(0.01)
    with closing(tail.watch(wallet, None, "")):
        wait_until(lambda: sum(thread.is_alive() for thread in threads) == 1, "more than one goes on")
    wait_until(lambda: not any(thread.is_alive() for thread in threads), "it goes on for nobody")


def test_who_does_not_listen_is_told_to_look_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_QUEUED_ITEMS", 3)
    watch = Watch(uuid7(), "", lambda _: None)
    event = Event("", "", watch.wallet_id, b"")
    for position in range(5):
        watch.put(StreamItem(event, position))
    assert [watch.next(0) for _ in range(3)] == [StreamItem(None, 3), StreamItem(event, 4), None]


def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_is_known_of_a_wallet_stays_known_while_others_ask(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloudevents, "MAX_CACHED_CURRENCIES", 0)
    one, other = UUID(api.open(currency="EUR")), UUID(api.open(currency="USD"))
    found = cloudevents._find_currencies({one})
    assert cloudevents._find_currencies({other}) == {other: "USD"}
    assert found == {one: "EUR"}

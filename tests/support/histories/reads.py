"""The positions of a wallet's history at which the state shown by a read was current."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from tests.support.histories import bodies
from tests.support.histories.journal import Call, History
from tests.support.histories.ledger import Operation
from tests.support.histories.replay import Replay, State, Story

END = 1 << 62  # after every position
MAX_CLOCK_DIFFERENCE = timedelta(milliseconds=100)  # between the wall clocks of clients and database


class Seen(NamedTuple):
    """The state of the wallet at some position from `first` to `last`."""

    wallet_id: str
    first: int
    last: int


class Impossible(Exception):
    """The wallet never had the state that was read."""


class Reads:
    def __init__(self, history: History, replay: Replay, inbox: Mapping[str, Operation]) -> None:
        self._history = history
        self._replay = replay
        self._inbox = inbox
        self._listed = {id: list(_listed(story)) for id, story in replay.stories.items()}

    def seen(self, call: Call) -> Seen | None:
        """Return the state shown by a successful GET, or None if it names no wallet. Raises Impossible."""
        assert call.answer
        url = urlsplit(call.request.path)
        query = dict(parse_qsl(url.query))
        shown = call.answer.json
        match url.path.strip("/").split("/"):
            case ["wallets", _]:
                return self.wallet(call, shown)
            case ["wallets", wallet_id, "operations"]:
                return self._operations(self._story(wallet_id), shown["items"], int(query["limit"]))
            case ["wallets", wallet_id, "balance"]:
                return self._balance(self._story(wallet_id), shown, query.get("at"))
            case ["operations", operation_id]:
                return self._operation(operation_id, shown)
            case ["holds", hold_id]:
                return self._hold(call, hold_id, shown)
        return None

    def wallet(self, call: Call, shown: Mapping[str, Any]) -> Seen:
        story = self._story(shown["id"])
        at = datetime.fromisoformat(shown["updatedAt"])
        position = story.last_until(at)
        if position < 0 or (story.times[position] != at and at not in story.expiries):
            raise Impossible("nothing happened to it then")
        state = story.states[position]
        _expect(shown, _as_shown(state) | {"status": state.status, "label": state.label})
        begin, end = (
            self._history.moment(call.began) - MAX_CLOCK_DIFFERENCE,
            self._history.moment(call.ended) + MAX_CLOCK_DIFFERENCE,
        )
        self._expect_held(state, shown, max(begin, state.at), max(end, state.at))
        return Seen(story.wallet.id, position, position)

    def _expect_held(self, state: State, shown: Mapping[str, Any], begin: datetime, end: datetime) -> None:
        possible = state.held_between(begin, end)
        for held in possible:
            if not list(bodies.differences(shown, {"held": held, "available": state.balance - held})):
                return
        raise Impossible(f"held is {shown['held']}, not {' or '.join(map(str, possible))}")

    def _operations(self, story: Story, items: list[Any], limit: int) -> Seen:
        listed = self._listed[story.wallet.id]
        if not items:
            return Seen(story.wallet.id, 0, listed[0][0] - 1 if listed else END)
        first = self._replay.positions.get(items[0]["id"], -1)
        after = bisect_right(listed, first, key=lambda entry: entry[0])
        expected = [row for _, row in listed[max(0, after - limit) : after]][::-1]
        if len(items) != len(expected):
            raise Impossible(f"it shows {len(items)} operations of {len(expected)}")
        for item, row in zip(items, expected, strict=True):
            _expect(item, bodies.operation(row))
        return Seen(story.wallet.id, first, listed[after][0] - 1 if after < len(listed) else END)

    def _balance(self, story: Story, shown: Mapping[str, Any], requested_at: str | None) -> Seen:
        at = datetime.fromisoformat(shown["at"])
        if requested_at is not None and at != datetime.fromisoformat(requested_at):
            raise Impossible("the request named another time")
        position = story.last_until(at)
        if position < 0:
            raise Impossible("there was no such wallet yet")
        state = story.states[position]
        _expect(shown, _as_shown(state))
        self._expect_held(state, shown, at, at)
        return Seen(story.wallet.id, position, position if requested_at is None else END)

    def _operation(self, operation_id: str, shown: Mapping[str, Any]) -> Seen:
        row = self._replay.operations.get(operation_id)
        if shown["status"] == "PENDING":
            accepted = row or self._inbox.get(operation_id)
            if accepted is None or accepted.accepted_at is None:
                raise Impossible("it was never accepted for later")
            _expect(shown, bodies.accepted(accepted))
            return Seen(accepted.wallet_id, 0, self._replay.positions[row.id] - 1 if row else END)
        if row is None:
            raise Impossible("it is not there")
        _expect(shown, bodies.operation(row))
        return Seen(row.wallet_id, self._replay.positions[row.id], END)

    def _hold(self, call: Call, hold_id: str, shown: Mapping[str, Any]) -> Seen:
        placed = self._replay.operations.get(hold_id)
        if placed is None:
            raise Impossible("no operation placed it")
        story = self._story(placed.wallet_id)
        end, begin = story.ended.get(hold_id), self._replay.positions[hold_id]
        end_at = self._replay.positions[end.id] if end else END
        same = {"id": hold_id, "amount": placed.amount, "createdAt": placed.created_at}
        match shown["status"]:
            case "ACTIVE":
                if (
                    placed.expires_at
                    and placed.expires_at <= self._history.moment(call.began) - MAX_CLOCK_DIFFERENCE
                ):
                    raise Impossible("it had expired")
                _expect(shown, same | {"endedAt": None, "capturedAmount": None})
                return Seen(placed.wallet_id, begin, end_at - 1)
            case "EXPIRED":
                now = self._history.moment(call.ended) + MAX_CLOCK_DIFFERENCE
                if placed.expires_at is None or placed.expires_at > now or end is not None:
                    raise Impossible("it did not expire")
                _expect(shown, same | {"endedAt": placed.expires_at, "capturedAmount": None})
                return Seen(placed.wallet_id, begin, END)
        if end is None or shown["status"] != {"CAPTURE": "CAPTURED", "VOID": "VOIDED"}[end.type]:
            raise Impossible("it did not end so")
        is_captured = end.type == "CAPTURE"
        _expect(
            shown, same | {"endedAt": end.created_at, "capturedAmount": end.amount if is_captured else None}
        )
        return Seen(placed.wallet_id, end_at, END)

    def _story(self, wallet_id: str) -> Story:
        story = self._replay.stories.get(wallet_id)
        if story is None:
            raise Impossible("there is no such wallet")
        return story


def _listed(story: Story) -> Iterator[tuple[int, Operation]]:
    """Yield the operations of the default list of a wallet, with their positions."""
    for position, event in enumerate(story.events, 1):
        if isinstance(event, Operation) and event.type not in ("HOLD", "VOID"):
            yield position, event


def _as_shown(state: State) -> bodies.Fields:
    return {"balance": state.balance, "sequence": state.sequence}


def _expect(shown: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    if different := list(bodies.differences(shown, expected)):
        raise Impossible("; ".join(different))

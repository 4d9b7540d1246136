"""Times in responses have six fraction digits; times in requests may have more or fewer."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from tests.support.client import Api
from wallets.contract.fields import format_time


@pytest.mark.parametrize("microsecond", [0, 1, 500_000, 999_999])
@pytest.mark.parametrize("zone", [UTC, ZoneInfo("UTC")], ids=["utc", "zoneinfo"])
@pytest.mark.parametrize("year", [1, 2026, 9999])
def test_time_is_written_with_all_microseconds(year: int, zone: ZoneInfo, microsecond: int) -> None:
    time = datetime(year, 2, 3, 4, 5, 6, microsecond, tzinfo=zone)
    assert format_time(time) == f"{year:04}-02-03T04:05:06.{microsecond:06}Z"


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("2099-01-01T00:00:00.1234567Z", "2099-01-01T00:00:00.123456Z"),  # .NET writes seven digits,
        ("2099-01-01T00:00:00.999999999Z", "2099-01-01T00:00:00.999999Z"),  # Go nine
        ("2099-01-01T00:00:00.5Z", "2099-01-01T00:00:00.500000Z"),
        ("2099-01-01t03:00:00+03:00", "2099-01-01T00:00:00.000000Z"),
    ],
)
def test_fraction_digits_are_cut_to_microseconds(api: Api, sent: str, taken: str) -> None:
    wallet_id = api.open(deposit="5")
    held, replay = (api.hold(wallet_id, 1, key="k", expiresAt=at) for at in (sent, taken))
    assert (held.status, held.json["expiresAt"]) == (201, taken)
    assert replay.json == held.json


def test_plus_sign_of_a_query_may_arrive_as_a_space(api: Api) -> None:
    wallet_id = api.open(deposit="1")
    for offset in ("+03:00", "%2B03:00", "%2b03:00", "%2003:00"):
        answer = api.get(f"/wallets/{wallet_id}/statement?from=2026-01-01T00:00:00{offset}")
        assert (answer.status, answer.json["from"]) == (200, "2025-12-31T21:00:00.000000Z")


def test_space_in_a_time_of_a_body_is_refused(api: Api) -> None:
    refused = api.hold(api.open(deposit="5"), 1, expiresAt="2099-01-01T00:00:00 00:00")
    assert (refused.code, refused.json["errors"][0]["field"]) == ("validation_error", "expiresAt")

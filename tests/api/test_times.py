"""Times in responses always have six fraction digits."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from wallets.contract.fields import format_time


@pytest.mark.parametrize("microsecond", [0, 1, 500_000, 999_999])
@pytest.mark.parametrize("zone", [UTC, ZoneInfo("UTC")], ids=["utc", "zoneinfo"])
@pytest.mark.parametrize("year", [1, 2026, 9999])
def test_time_is_written_with_all_microseconds(year: int, zone: ZoneInfo, microsecond: int) -> None:
    time = datetime(year, 2, 3, 4, 5, 6, microsecond, tzinfo=zone)
    assert format_time(time) == f"{year:04}-02-03T04:05:06.{microsecond:06}Z"

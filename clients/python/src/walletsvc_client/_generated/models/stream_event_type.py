from enum import StrEnum
from typing import Self


class StreamEventType(StrEnum):
    GAP = "gap"
    MESSAGE = "message"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """Keep a value of a later version of the service: a committed payment must not fail to parse."""
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_ = unknown._value_ = value
        return unknown

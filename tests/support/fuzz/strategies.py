"""What is sent: JSON of every kind, and good bodies that were spoilt."""

import json
from typing import Any, Final

from hypothesis import strategies as st

from tests.support.client import UNKNOWN_ID

# Lone surrogates, NUL and other scripts' digits are among them.
texts: Final = st.text(st.characters(codec=None), max_size=40)
numbers: Final = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(2**53) | st.just(-0.0)
)
values: Final = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
json_texts: Final = values.map(json.dumps) | st.dictionaries(texts, values, max_size=4).map(json.dumps)

# What is right at some place of some shape, and so may be wrong at another one.
GOOD: Final[list[Any]] = [
    *("DEPOSIT", "WITHDRAW", "EUR", "JPY", "ACTIVE", "now", "anna@example.com", "https://example.com/"),
    *(UNKNOWN_ID, UNKNOWN_ID[:-1] + "1", "1.00", "0.01", 1, 100, 115.6, "2030-01-01T00:00:00Z", True, {}),
    *(["wallet.opened"], "50", "", [{"walletId": UNKNOWN_ID, "operationType": "DEPOSIT", "amount": 1}]),
]


def objects(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """With some of these names, seldom with another."""
    value = st.sampled_from(GOOD) | values
    known = st.dictionaries(st.sampled_from(names), value)
    return known | st.builds(lambda one, other: one | other, known, st.dictionaries(texts, value, max_size=1))


_GOOD_BODY: Final = json.dumps(
    {"operationType": "DEPOSIT", "amount": "115.60", "description": "é", "metadata": {"a": [1, 2.5, None]}}
).encode()


def spoilt(content: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with up to three slices of them replaced, by others or by another slice of their own."""
    place = st.integers(0, len(content))
    piece = st.binary(max_size=4) | st.sampled_from(
        [b'"', b"{", b"]", b",", b"e9", b"-", b"\\u0000", b"\\ud800"]
    )
    own = st.tuples(place, place).map(lambda at: content[min(at) : max(at)])

    def replace(changes: list[tuple[int, int, bytes]]) -> bytes:
        result = content
        for start, length, new in changes:
            result = result[:start] + new + result[start + length :]
        return result

    return st.lists(st.tuples(place, st.integers(0, 8), piece | own), min_size=1, max_size=3).map(replace)


bodies: Final = spoilt(_GOOD_BODY)

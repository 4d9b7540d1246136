"""Strategies for requests: JSON of every kind, and valid bodies with corrupted bytes."""

import json
from typing import Any, Final

from hypothesis import strategies as st

from tests.support.client import UNKNOWN_ID

# The texts include lone surrogates, NUL and digits of other scripts.
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

# Values that are valid in some field of some schema and invalid in others.
GOOD: Final[list[Any]] = [
    *("DEPOSIT", "WITHDRAW", "EUR", "JPY", "ACTIVE", "now", "anna@example.com", "https://example.com/"),
    *(UNKNOWN_ID, UNKNOWN_ID[:-1] + "1", "1.00", "0.01", 1, 100, 115.6, "2030-01-01T00:00:00Z", True, {}),
    *(["wallet.opened"], "50", "", [{"walletId": UNKNOWN_ID, "operationType": "DEPOSIT", "amount": 1}]),
]


def objects(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate objects with some of these names, and rarely with another name."""
    value = st.sampled_from(GOOD) | values
    known = st.dictionaries(st.sampled_from(names), value)
    return known | st.builds(lambda one, other: one | other, known, st.dictionaries(texts, value, max_size=1))


_GOOD_BODY: Final = json.dumps(
    {"operationType": "DEPOSIT", "amount": "115.60", "description": "é", "metadata": {"a": [1, 2.5, None]}}
).encode()


def spoilt(content: bytes) -> st.SearchStrategy[bytes]:
    """Replace up to three slices of the content by random bytes or by other slices of it."""
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

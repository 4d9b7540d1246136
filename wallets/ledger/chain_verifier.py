"""Verifies the hash chain of a wallet: computes each hash, sequence and balance from its predecessor.

An operation comes as a line of COPY: whether it precedes the checkpoint, its hash, its wallet, and the hashed
bytes. A column that was changed by hand may contain anything, even no number: the verifier reports it and
continues.
"""

from binascii import unhexlify
from collections.abc import Iterator, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Final
from uuid import UUID

from wallets.ledger import chain
from wallets.operation_types import INCOMING

OWNER: Final = itemgetter(slice(67, 103))  # the wallet id in a line
_HASH: Final = slice(2, 66)
_LINE: Final = slice(104, None)  # of the operation
_IS_BEFORE: Final = b"t"

_INCOMING: Final = frozenset(name.encode() for name in INCOMING)
_NOTHING: Final = b"\\N"
_UNIT: Final = Decimal("0.0001")  # amounts are integers of this unit in this module


class ChainVerifier:
    """The state that a wallet's row has, and the state after the operations that were verified so far."""

    def __init__(self, wallet_id: UUID, balance: Decimal, sequence: int, hash: bytes) -> None:
        self.wallet_id, self._balance, self._sequence, self._hash = wallet_id, balance, sequence, hash
        self.head_then = b""  # the hash of the last operation before the checkpoint
        self._last = b""  # the id of the last operation; its hash and its predecessor's are in the next line
        self._head = self._before = chain.BEGINNING
        self._counted = 0  # the sequence of the last operation that moved money
        self._summed = 0  # the balance that this operation records
        self._total = 0  # the sum of all amounts up to it

    def start(self, last: UUID, head: bytes, sequence: int, balance: Decimal) -> None:
        """Continue from an operation that an earlier verification has reached."""
        self._last, self._head, self._counted = str(last).encode(), head, sequence
        self._summed = self._total = int(balance / _UNIT)

    def follow(self, lines: Sequence[bytes]) -> list[str]:
        """Return the differences in the wallet's next operations; nearly always there are none."""
        hashes = [unhexlify(line[_HASH]) for line in lines]
        canonical = [chain.hashed(line[_LINE]) for line in lines]
        found = [] if self._all_follow(hashes, canonical) else self._one_by_one(hashes, canonical)
        before = next((n for n in range(len(lines) - 1, -1, -1) if lines[n][:1] == _IS_BEFORE), None)
        if before is not None:
            self.head_then = hashes[before]
        return found

    def end(self) -> Iterator[str]:
        """Yield the differences between the wallet's row and its operations."""
        if self._hash != self._head:
            yield f"hash is not that of {self._named_last}: operations were added or removed at the end"
        if self._balance != self._total * _UNIT:
            yield f"balance {self._balance}, the ledger says {_money(self._total)}"
        if self._sequence != self._counted:
            yield f"sequence {self._sequence}, the ledger says {self._counted}"

    # --- All operations at once -------------------------------------------------------------------
    def _all_follow(self, hashes: list[bytes], canonical: list[bytes]) -> bool:
        """Whether each operation agrees with its predecessor. If so, take over the state after them."""
        predecessors = [self._head, *hashes[:-1]]
        if list(map(chain.link, predecessors, canonical)) != hashes:
            return False
        fields = [line.split(b"\t", 6) for line in canonical]
        moves = [each for each in fields if each[2] != _NOTHING]
        count = self._counted + len(moves)
        try:
            sequences = [int(each[2]) for each in moves]
            balances = [_units(each[5]) for each in moves]
            amounts = [_units(each[4]) if each[3] in _INCOMING else -_units(each[4]) for each in moves]
        except ValueError:
            return False
        if sequences != list(range(self._counted + 1, count + 1)):
            return False
        if [after - moved for after, moved in zip(balances, amounts, strict=True)] != [
            self._summed,
            *balances,
        ][: len(moves)]:
            return False
        self._last, self._before, self._head = fields[-1][0], predecessors[-1], hashes[-1]
        self._counted, self._summed = count, balances[-1] if moves else self._summed
        self._total += sum(amounts)
        return True

    # --- One by one, to report the differences ----------------------------------------------------------
    def _one_by_one(self, hashes: list[bytes], canonical: list[bytes]) -> list[str]:
        return [
            what
            for hash, line in zip(hashes, canonical, strict=True)
            for what in (*self._next(hash, line), *self._move(line))
        ]

    def _next(self, hash: bytes, canonical: bytes) -> Iterator[str]:
        id = canonical.partition(b"\t")[0].decode()
        if chain.link(self._head, canonical) != hash:
            if self._last and chain.link(self._before, canonical) == hash:
                yield f"operation {id} follows on the one before {self._named_last}, which was put between"
            else:
                yield f"operation {id} does not follow on {self._named_last}: changed, or one between removed"
        self._last, self._before, self._head = id.encode(), self._head, hash

    def _move(self, canonical: bytes) -> Iterator[str]:
        id, _, number, kind, amount, balance_after, _ = canonical.split(b"\t", 6)
        if number == _NOTHING:
            return
        try:
            moved = _units(amount) if kind in _INCOMING else -_units(amount)
            sequence, balance = int(number), _units(balance_after)
        except ValueError:
            what = f"sequence {number.decode()}, amount {amount.decode()}, balance {balance_after.decode()}"
            yield f"operation {id.decode()}: {what}: not all are numbers"
            return
        if sequence != self._counted + 1:
            yield f"operation {sequence}: sequence {sequence}, not {self._counted + 1}"
        if balance != self._summed + moved:
            yield f"operation {sequence}: balance {_money(balance)}, not {_money(self._summed + moved)}"
        self._counted, self._summed = sequence, balance
        self._total += moved

    @property
    def _named_last(self) -> str:
        return self._last.decode() or "the beginning"


def _units(amount: bytes) -> int:
    """Return an amount with four fraction digits in units of 0.0001."""
    return int(amount.replace(b".", b""))


def _money(units: int) -> str:
    return f"{units * _UNIT:.4f}"

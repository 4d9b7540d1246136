"""Checkpoints: the signed state of all chains at a time. A change of an earlier operation is found.

A person with write access to the database can change an operation and compute the rest of its chain again. A
checkpoint that is stored elsewhere proves the earlier state. It is a file of two lines, the state as JSON and
its signature (Ed25519, base64), so that openssl can verify it too.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from wallets.ledger.consistent_read import Snapshot, reading

FORMAT: Final = "walletsvc checkpoint 1"
MAX_RANGES: Final = 1024  # keeps the file at some hundred kilobytes for any number of wallets

_MOMENT: Final = "SELECT pg_current_snapshot()::text, clock_timestamp(), pg_is_in_recovery()"
_TOTALS: Final = "SELECT count(*), coalesce(sum(sequence), 0) FROM wallet WHERE hash <> ''"
_HEADS: Final = "COPY (SELECT id, encode(hash, 'hex') FROM wallet WHERE hash <> '' ORDER BY id) TO STDOUT"


class CheckpointError(Exception):
    """A checkpoint file or a key is unusable, with the reason."""


class Range(BaseModel):
    """The wallets up to the id `until`: how many of them have operations, and the digest of their chains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: UUID
    wallets: int
    digest: str


def _in_order(snapshot: str) -> str:
    """Return the snapshot if its ids are in order, as PostgreSQL requires. Raises ValueError."""
    it = Snapshot(snapshot)
    between = [int(id) for id in snapshot.split(":")[2].split(",") if id]
    if not 0 < it.begin <= it.end or between != sorted(id for id in between if it.begin <= id < it.end):
        raise ValueError("no snapshot")
    return snapshot


class Checkpoint(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    made_at: datetime  # by the database's clock
    # The transactions that the checkpoint covers, as PostgreSQL's pg_snapshot.
    snapshot: Annotated[
        str,
        Field(pattern=r"^[0-9]{1,18}:[0-9]{1,18}:([0-9]{1,18}(,[0-9]{1,18})*)?$"),
        AfterValidator(_in_order),
    ]
    wallets: int  # with operations
    entries: int  # operations that moved money, in all wallets
    ranges: list[Range]


@dataclass(slots=True)
class _Digest:
    """The digest of a range: SHA-256 over each wallet's id and the hash of its last operation."""

    wallets: int = 0
    _hash: Any = field(default_factory=sha256)

    def add(self, wallet_id: UUID, head: bytes) -> None:
        self.wallets += 1
        self._hash.update(wallet_id.bytes + head)

    def up_to(self, until: UUID) -> Range:
        return Range(until=until, wallets=self.wallets, digest=self._hash.hexdigest())


# --- Creating a checkpoint ------------------------------------------------------------------------
def make() -> Checkpoint:
    """Return the committed state of all chains.

    Raises CheckpointError on a standby, whose snapshot does not list the transactions in progress.
    """
    with reading() as cursor:
        snapshot, made_at, is_standby = cursor.execute(_MOMENT).fetchone()
        if is_standby:
            raise CheckpointError("create the checkpoint on the primary; this is a standby")
        wallets, entries = cursor.execute(_TOTALS).fetchone()
        with cursor.copy(_HEADS) as lines:
            ranges = list(_ranges(map(_head, lines), size=-(-wallets // MAX_RANGES)))
    return Checkpoint(made_at=made_at, snapshot=snapshot, wallets=wallets, entries=entries, ranges=ranges)


def _head(line: bytes) -> tuple[UUID, bytes]:
    wallet_id, head = bytes(line).decode().split()
    return UUID(wallet_id), bytes.fromhex(head)


def _ranges(heads: Iterable[tuple[UUID, bytes]], size: int) -> Iterator[Range]:
    digest, last = _Digest(), None
    for last, head in heads:
        digest.add(last, head)
        if digest.wallets == size:
            yield digest.up_to(last)
            digest = _Digest()
    if digest.wallets and last:
        yield digest.up_to(last)


def signed(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """Return the content of the checkpoint file."""
    state = checkpoint.model_dump_json().encode()
    return state + b"\n" + base64.b64encode(key.sign(state)) + b"\n"


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """Load the key. Raises CheckpointError for any other content."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise CheckpointError("the key is not an Ed25519 private key in PEM format without a passphrase")
    return key


# --- Reading a checkpoint -------------------------------------------------------------------------
def read(content: bytes, key: Ed25519PublicKey) -> Checkpoint:
    """Return the checkpoint in a file.

    Raises CheckpointError if the content is not a checkpoint, or was not signed with this key.
    """
    state, _, signature = content.partition(b"\n")
    try:
        key.verify(base64.b64decode(signature.strip(), validate=True), state)
    except (InvalidSignature, binascii.Error):
        raise CheckpointError("the file is not a checkpoint signed with this key") from None
    try:
        checkpoint = Checkpoint.model_validate(orjson.loads(state))
    except (ValidationError, ValueError):
        raise CheckpointError("the file is not a checkpoint") from None
    if checkpoint.format != FORMAT:
        raise CheckpointError(f"the file is a {checkpoint.format!r}, not a {FORMAT}")
    return checkpoint


def public_key(pem: bytes) -> Ed25519PublicKey:
    """Load the key. Raises CheckpointError for any other content."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm, InternalError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise CheckpointError("the key is not an Ed25519 public key in PEM format")
    return key


# --- Comparing with a checkpoint ------------------------------------------------------------------
class Comparison:
    """Compares the current chains, up to the time of the checkpoint, in ascending wallet id."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.snapshot = Snapshot(checkpoint.snapshot)
        self.made_at = checkpoint.made_at
        self._ranges = iter(checkpoint.ranges)
        self._expected = next(self._ranges, None)
        self._found = _Digest()
        self._beyond = UUID(int=0)

    def add(self, wallet_id: UUID, head: bytes) -> Iterator[tuple[UUID, str]]:
        """Add the next wallet; yield the differences of the ranges that end before it."""
        while self._expected and self._expected.until < wallet_id:
            yield from self._close(self._expected)
        if self._expected is None:
            yield wallet_id, "has operations before the checkpoint, which contains none"
        else:
            self._found.add(wallet_id, head)

    def finish(self) -> Iterator[tuple[UUID, str]]:
        while self._expected:
            yield from self._close(self._expected)

    def _close(self, expected: Range) -> Iterator[tuple[UUID, str]]:
        if self._found.up_to(expected.until) != expected:
            yield expected.until, _difference(self._beyond, expected, self._found.wallets)
        self._beyond, self._found = expected.until, _Digest()
        self._expected = next(self._ranges, None)


def _difference(beyond: UUID, expected: Range, found: int) -> str:
    what = "differs from the checkpoint: earlier operations were changed, removed or added"
    if expected.wallets == found == 1:
        return what
    return (
        f"and those after {beyond}: one of {expected.wallets} {what}; now {found} have operations before it"
    )

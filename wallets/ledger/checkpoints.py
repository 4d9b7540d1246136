"""The state of all chains at a moment, signed: what came before cannot be changed without its key.

Whoever may write to the database can compute a chain anew from where they changed it. A checkpoint that lies
elsewhere still knows how it was. It is a file of two lines, the state as JSON and its signature (Ed25519,
base64), so that openssl can verify it as well.
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
MAX_RANGES: Final = 1024  # at most: the file has some hundred kilobytes then, however many wallets there are

_MOMENT: Final = "SELECT pg_current_snapshot()::text, clock_timestamp(), pg_is_in_recovery()"
_TOTALS: Final = "SELECT count(*), coalesce(sum(sequence), 0) FROM wallet WHERE hash <> ''"
_HEADS: Final = "COPY (SELECT id, encode(hash, 'hex') FROM wallet WHERE hash <> '' ORDER BY id) TO STDOUT"


class CheckpointError(Exception):
    """A file or a key cannot be used; says why."""


class Range(BaseModel):
    """Wallets by id, up to `until`: how many of them have operations, and the hash of all their chains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: UUID
    wallets: int
    digest: str


def _in_order(snapshot: str) -> str:
    """As PostgreSQL wants it."""
    it = Snapshot(snapshot)
    between = [int(id) for id in snapshot.split(":")[2].split(",") if id]
    if not 0 < it.begin <= it.end or between != sorted(id for id in between if it.begin <= id < it.end):
        raise ValueError("no snapshot")
    return snapshot


class Checkpoint(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    made_at: datetime  # by the database's clock
    # Which transactions it is about, as PostgreSQL's pg_snapshot.
    snapshot: Annotated[
        str,
        Field(pattern=r"^[0-9]{1,18}:[0-9]{1,18}:([0-9]{1,18}(,[0-9]{1,18})*)?$"),
        AfterValidator(_in_order),
    ]
    wallets: int  # that have operations
    entries: int  # of all wallets: operations that moved money
    ranges: list[Range]


@dataclass(slots=True)
class _Digest:
    """Of the chains in a range: SHA-256 of each wallet's id and the hash of its last operation."""

    wallets: int = 0
    _hash: Any = field(default_factory=sha256)

    def add(self, wallet_id: UUID, head: bytes) -> None:
        self.wallets += 1
        self._hash.update(wallet_id.bytes + head)

    def up_to(self, until: UUID) -> Range:
        return Range(until=until, wallets=self.wallets, digest=self._hash.hexdigest())


# --- Making one -------------------------------------------------------------------------------------
def make() -> Checkpoint:
    """The state of all chains as it is committed now.

    Raises CheckpointError on a standby: its snapshot does not say which transactions are at work.
    """
    with reading() as cursor:
        snapshot, made_at, is_standby = cursor.execute(_MOMENT).fetchone()
        if is_standby:
            raise CheckpointError("a checkpoint is made on the primary, and this is a standby")
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
    """The file."""
    state = checkpoint.model_dump_json().encode()
    return state + b"\n" + base64.b64encode(key.sign(state)) + b"\n"


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """Raises CheckpointError where that is none."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise CheckpointError("the key is no Ed25519 private key in PEM without a passphrase")
    return key


# --- Reading one ------------------------------------------------------------------------------------
def read(content: bytes, key: Ed25519PublicKey) -> Checkpoint:
    """The checkpoint in a file.

    Raises CheckpointError where the file is none, or was not signed with that key.
    """
    state, _, signature = content.partition(b"\n")
    try:
        key.verify(base64.b64decode(signature.strip(), validate=True), state)
    except (InvalidSignature, binascii.Error):
        raise CheckpointError("this is no checkpoint that was signed with that key") from None
    try:
        checkpoint = Checkpoint.model_validate(orjson.loads(state))
    except (ValidationError, ValueError):
        raise CheckpointError("this is no checkpoint") from None
    if checkpoint.format != FORMAT:
        raise CheckpointError(f"this is a {checkpoint.format!r}, not a {FORMAT}")
    return checkpoint


def public_key(pem: bytes) -> Ed25519PublicKey:
    """Raises CheckpointError where that is none."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm, InternalError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise CheckpointError("the key is no Ed25519 public key in PEM")
    return key


# --- Comparing with one -----------------------------------------------------------------------------
class Comparison:
    """The chains as they are, up to the checkpoint's moment, wallet by wallet in ascending id."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.snapshot = Snapshot(checkpoint.snapshot)
        self.made_at = checkpoint.made_at
        self._ranges = iter(checkpoint.ranges)
        self._expected = next(self._ranges, None)
        self._found = _Digest()
        self._beyond = UUID(int=0)

    def add(self, wallet_id: UUID, head: bytes) -> Iterator[tuple[UUID, str]]:
        """Yields what differs of the wallets before this one."""
        while self._expected and self._expected.until < wallet_id:
            yield from self._close(self._expected)
        if self._expected is None:
            yield wallet_id, "has operations from before the checkpoint, which knows of none"
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
    what = "differs from the checkpoint: what came before it was changed, removed or added"
    if expected.wallets == found == 1:
        return what
    return (
        f"and those after {beyond}: one of {expected.wallets} {what}"
        f"; {found} have operations from before it now"
    )

"""Hashes passwords, at a third of a second of CPU each, which makes guessing expensive.

Each process hashes one password at a time, in a thread beside the event loop (OpenSSL releases Python's
lock), and only a few may wait. So logins cannot take the time of other requests.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar
from unicodedata import normalize

import gevent
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from gevent import monkey

from wallets.apps import give_back_connection
from wallets.problems import TooManyRequests

T = TypeVar("T")

MAX_PENDING_HASHES: Final = 8  # in a process: the last one waits three seconds


class Hasher(PBKDF2PasswordHasher):
    """Django's PBKDF2 hasher, one call at a time.

    A password is hashed in the form NFC (RFC 8265, 4.2.2): keyboards write é as one or two characters. One
    that was set before in another form is still recognised.
    """

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        """Hash the password. Raises TooManyRequests if MAX_PENDING_HASHES are pending.

        Without `iterations` it is a new password, or the login of an unknown user.
        """
        if iterations is not None:
            return self._hash(password, salt, iterations)
        composed = normalize("NFC", password)
        if composed != password:
            self._hash(password, salt, None)  # takes as long as `verify` of such a password of a known user
        return self._hash(composed, salt, None)

    def verify(self, password: str, encoded: str) -> bool:
        composed = normalize("NFC", password)
        return super().verify(composed, encoded) or (
            composed != password and super().verify(password, encoded)
        )

    def _hash(self, password: str, salt: str, iterations: int | None) -> str:
        return _in_turn(partial(super().encode, password, salt, iterations))


_room = threading.BoundedSemaphore(MAX_PENDING_HASHES)
_turn = threading.Lock()


def _in_turn(work: Callable[[], T]) -> T:
    if not _room.acquire(blocking=False):
        raise TooManyRequests("Too many logins at the same time.")
    try:
        give_back_connection()  # other requests may use the connection meanwhile
        with _turn:
            return _beside(work)
    finally:
        _room.release()


def _beside(work: Callable[[], T]) -> T:
    """Run in a real thread if the caller is a greenlet; otherwise the caller has a thread already."""
    if not monkey.is_module_patched("threading"):
        return work()
    done: Any = gevent.get_hub().threadpool.apply(work)
    result: T = done
    return result

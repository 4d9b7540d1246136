"""Hashes passwords. Each hash takes a third of a second of CPU, which makes guessing expensive.

Each process hashes one password at a time, in a thread outside of the event loop (OpenSSL releases Python's
lock), and limits how many hashes wait. So logins do not delay other requests.
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

MAX_PENDING_HASHES: Final = 8  # in each process; the last one waits three seconds


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
        return _hash_alone(partial(super().encode, password, salt, iterations))


_slots = threading.BoundedSemaphore(MAX_PENDING_HASHES)
_hashing = threading.Lock()


def _hash_alone(work: Callable[[], T]) -> T:
    if not _slots.acquire(blocking=False):
        raise TooManyRequests("Too many logins at the same time.")
    try:
        give_back_connection()  # other requests may use the connection meanwhile
        with _hashing:
            return _in_thread(work)
    finally:
        _slots.release()


def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a native thread if the caller is a greenlet, otherwise in the caller's own thread."""
    if not monkey.is_module_patched("threading"):
        return work()
    done: Any = gevent.get_hub().threadpool.apply(work)
    result: T = done
    return result

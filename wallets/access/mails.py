"""Mails with a link. It leads to PUBLIC_URL, whatever host a request named.

Nothing in a mail was typed by a user: it would reach others with the sender of this service.
"""

import logging
from collections.abc import Callable
from threading import Thread

from django import db
from django.conf import settings
from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.utils import translation

from wallets.models import User

logger = logging.getLogger(__name__)


def in_background(task: Callable[[], None]) -> None:
    """Run the task in a thread: the client sees neither how long it takes nor that the mail server is down.

    The task speaks the language of the request. Its failure is logged.
    """
    Thread(target=_run, args=[task, translation.get_language()], name="mail").start()


def _run(task: Callable[[], None], language: str | None) -> None:
    try:
        with translation.override(language):
            task()
    except db.Error as error:
        logger.warning("a mail was not sent: %s", error)
    finally:
        db.connection.close()  # gives it back to the pool


def send(user: User, kind: str, path: str) -> None:
    """Send the mail `pages/mail/{kind}` with a link to the path. A failure is logged."""
    db.connection.close()  # gives it back to the pool: the mail server may be slow
    subject = render_to_string(f"pages/mail/{kind}_subject.txt").strip()
    text = render_to_string(f"pages/mail/{kind}.txt", {"link": settings.PUBLIC_URL + path})
    try:
        EmailMessage(subject, text, to=[user.email]).send()
    except Exception:  # of the mail server, of the network, of an address that is none
        logger.exception("the mail %r to user %s was not sent", kind, user.pk)

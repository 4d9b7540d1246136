"""Sends mails with a link. It begins with PUBLIC_URL, never with the host that a request names.

A mail contains no text that a user wrote: the service would send it to other people in its own name.
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
    """Run the task in a thread, so that the response reveals neither its duration nor its failure.

    The task uses the language of the request. Its failure is logged.
    """
    Thread(target=_run, args=[task, translation.get_language()], name="mail").start()


def _run(task: Callable[[], None], language: str | None) -> None:
    try:
        with translation.override(language):
            task()
    except db.Error as error:
        logger.warning("a mail was not sent: %s", error)
    finally:
        db.connection.close()  # return it to the pool


def send(user: User, kind: str, path: str) -> None:
    """Send the mail `pages/mail/{kind}` with a link to the path. A failure is logged."""
    db.connection.close()  # return it to the pool: the mail server may be slow
    subject = render_to_string(f"pages/mail/{kind}_subject.txt").strip()
    text = render_to_string(f"pages/mail/{kind}.txt", {"link": settings.PUBLIC_URL + path})
    try:
        EmailMessage(subject, text, to=[user.email]).send()
    except Exception:  # errors of the mail server, the network or the address
        logger.exception("the mail %r to user %s was not sent", kind, user.pk)

"""manage.py webhooks: list and manage webhooks."""

import argparse
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db.models import Q

from wallets.contract.fields import Id, Limit
from wallets.contract.request_schemas import (
    DEFAULT_FORMER_SECRET_HOURS,
    MAX_FORMER_SECRET_HOURS,
    WebhookName,
    WebhookUrl,
)
from wallets.database_retry import retry_until_deadline
from wallets.events import webhook_registry
from wallets.events.cloudevents import TYPES
from wallets.events.delivery_state import DeliveryState, standings
from wallets.management.arguments import Command as Base
from wallets.management.arguments import argument
from wallets.management.commands.relay_events import describe
from wallets.models import Subscriber
from wallets.problems import Problem

ACTOR: Final = "command:webhooks"


class Command(Base):
    help = "Manage webhooks. Events are posted to them, signed with a secret that is shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        self._add_action(actions, "list", "print the webhooks and the broker with their delivery state")
        add = self._add_action(actions, "add", "register a webhook and print its id and secret")
        add.add_argument("name", type=argument(WebhookName))
        add.add_argument("url", type=argument(WebhookUrl))
        add.add_argument("--type", nargs="+", action="extend", choices=TYPES, default=[], dest="types")
        add.add_argument(
            "--batch", type=argument(Limit), default=1, help="maximum number of events in one request"
        )
        add.add_argument(
            "--from-beginning",
            action="store_const",
            const="beginning",
            default="now",
            dest="begins",
            help="deliver all events, not only new ones",
        )
        add.add_argument(
            "--id", type=argument(Id), help="UUID of the new webhook; makes the command safe to repeat"
        )
        for action, help in (
            ("remove", "remove a webhook, its waiting events and its dead letters"),
            ("enable", "continue delivery from its position; also for the broker"),
            ("disable", "send no events until it is enabled again; also for the broker"),
            ("test", "send an event of the type webhook.test; exit with code 1 if it is not accepted"),
            ("replay", "send its dead letters again"),
            ("forget", "delete its dead letters"),
            ("rotate", "print a new secret; the former one stays valid for some hours"),
        ):
            parser_of_action = self._add_action(actions, action, help)
            parser_of_action.add_argument("webhook", metavar="NAME-OR-ID")
        rotate = parser_of_action  # the last one
        rotate.add_argument(
            "--former-valid-hours",
            type=int,
            default=DEFAULT_FORMER_SECRET_HOURS,
            help="how long the former secret stays valid (default: %(default)s)",
        )

    def _add_action(self, actions: "argparse._SubParsersAction[Any]", name: str, help: str) -> Any:
        return self.without_usage(actions.add_parser(name, help=help))

    def handle(self, **options: Any) -> None:
        try:
            getattr(self, f"_{options['action']}")(options)
        except Problem as problem:
            self.refuse(problem.detail)

    def _list(self, options: dict[str, Any]) -> None:
        rows = {row.name: row for row in retry_until_deadline(lambda: list(Subscriber.objects.all()))}
        for state in retry_until_deadline(standings):
            if row := rows.get(state.name):
                self.stdout.write(line_of(row, state))

    def _add(self, options: dict[str, Any]) -> None:
        names = ("name", "url", "types", "batch", "begins", "id")
        registered = webhook_registry.register(
            webhook_registry.Registration(**{name: options[name] for name in names}), ACTOR
        )
        if registered.secret is None:
            self.refuse("the webhook was registered before; its secret is not shown again: rotate it")
        self.stdout.write(f"{registered.webhook.id}\n{registered.secret}")

    def _remove(self, options: dict[str, Any]) -> None:
        webhook = self._webhook(options)
        webhook_registry.remove(webhook.id, ACTOR)
        self.stdout.write(f"Removed {webhook.name}")

    def _enable(self, options: dict[str, Any]) -> None:
        self._switch(options, is_enabled=True)

    def _disable(self, options: dict[str, Any]) -> None:
        self._switch(options, is_enabled=False)

    def _switch(self, options: dict[str, Any], *, is_enabled: bool) -> None:
        subscriber = self._subscriber(options["webhook"])
        webhook_registry.switch(subscriber, is_enabled, ACTOR)
        self.stdout.write(f"{'Enabled' if is_enabled else 'Disabled'} {subscriber.name}")

    def _rotate(self, options: dict[str, Any]) -> None:
        hours = options["former_valid_hours"]
        if not 0 <= hours <= MAX_FORMER_SECRET_HOURS:
            self.refuse(f"--former-valid-hours must be from 0 to {MAX_FORMER_SECRET_HOURS}")
        webhook = self._webhook(options)
        rotated = webhook_registry.rotate(webhook.id, ACTOR, former_valid=timedelta(hours=hours))
        self.stdout.write(rotated.webhook.secret)

    def _test(self, options: dict[str, Any]) -> None:
        delivery = webhook_registry.try_out(self._webhook(options).id)
        duration = f"after {delivery.duration.total_seconds() * 1000:.0f} ms"
        if delivery.error:
            raise CommandError(f"not accepted: {delivery.error}, {duration}", returncode=1)
        self.stdout.write(f"accepted: status {delivery.status_code} {duration}")

    def _replay(self, options: dict[str, Any]) -> None:
        count = webhook_registry.replay(self._webhook(options).id, ACTOR)
        self.stdout.write(f"{count} dead letters will be sent again")

    def _forget(self, options: dict[str, Any]) -> None:
        count = webhook_registry.forget(self._webhook(options).id, ACTOR)
        self.stdout.write(f"deleted {count} dead letters")

    def _webhook(self, options: dict[str, Any]) -> Subscriber:
        subscriber = self._subscriber(options["webhook"])
        if subscriber.kind != Subscriber.Kind.WEBHOOK:
            self.refuse(f"{subscriber.name} is the broker, not a webhook")
        return subscriber

    def _subscriber(self, text: str) -> Subscriber:
        subscriber = retry_until_deadline(Subscriber.objects.filter(_by_name_or_id(text)).first)
        if subscriber is None:
            self.refuse(f"there is no webhook {text}")
        return subscriber


def _by_name_or_id(text: str) -> Q:
    try:
        return Q(name=text) | Q(id=UUID(text))
    except ValueError:
        return Q(name=text)


def line_of(row: Subscriber, state: DeliveryState) -> str:
    disabled = "" if row.is_enabled else f"disabled: {row.disabled_because} "
    error = f", failing: {row.last_error}" if row.failures else ""
    return (
        f"{row.id}  {row.name}  {row.url or 'the broker'}  {', '.join(row.types) or 'all events'}  "
        f"{disabled}{describe(state)}{error}"
    )

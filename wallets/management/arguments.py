"""Argument parsing of the commands: invalid input is one line on stderr and exit code 2."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import psycopg
from django import db
from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError

from wallets.contract.field_errors import field_errors

T = TypeVar("T")


def argument(field_type: Any) -> Callable[[str], Any]:
    """Return an argparse type for a field type of the API (wallets.contract.fields)."""
    adapter: TypeAdapter[Any] = TypeAdapter(field_type)

    def parse(text: str) -> Any:
        try:
            return adapter.validate_python(text)
        except PydanticError as error:
            raise ArgumentTypeError(field_errors(error)[0].detail) from None

    return parse


class Command(BaseCommand):
    """Base of the commands. An unavailable database is a one-line error; --traceback shows the traceback."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except (db.OperationalError, psycopg.OperationalError) as error:
            raise CommandError(
                f"database error: {str(error).strip().splitlines()[0]}", returncode=2
            ) from error

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return self.without_usage(super().create_parser(prog_name, subcommand, **kwargs))

    def without_usage(self, parser: CommandParser) -> CommandParser:
        parser.print_usage = lambda file=None: None  # type: ignore[method-assign]  # it would hide the error
        return parser

    def refuse(self, message: str) -> NoReturn:
        raise CommandError(message, returncode=2)

"""manage.py sync_permissions: create content types and permissions.

Django does this after its migrations, but here Liquibase changes the schema.
"""

from typing import Any

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.contenttypes.management import create_contenttypes

from wallets.management.arguments import Command as Base


class Command(Base):
    help = "Create the content types and permissions of all models. Safe to repeat."

    def handle(self, **options: Any) -> None:
        for app in apps.get_app_configs():
            create_contenttypes(app, verbosity=options["verbosity"])
            create_permissions(app, verbosity=options["verbosity"])

"""Probes: whether the process is alive, and whether it can serve requests."""

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from wallets.error_mapping import problem_response, to_problem
from wallets.problems import Unavailable
from wallets.schema import EXPECTED_TAG
from walletsvc.version import VERSION


def livez(request: HttpRequest) -> HttpResponse:
    """Respond 200 while the process runs."""
    return JsonResponse({"status": "ok", "version": VERSION})


def readyz(request: HttpRequest) -> HttpResponse:
    """Respond 200 if the database is reachable and has this code's schema or a newer one, otherwise 503."""
    try:
        missing = missing_schema()
    except Exception as error:
        return problem_response(request, to_problem(error))
    if missing:
        return problem_response(request, Unavailable(missing))
    return JsonResponse({"status": "ok", "schema": EXPECTED_TAG})


def missing_schema() -> str | None:
    """Return the problem with the schema. A newer one is fine: a deployment migrates before it restarts."""
    tags = schema_tags()
    if EXPECTED_TAG in tags:
        return None
    return f"The schema is at {tags[-1] if tags else None}, this service needs {EXPECTED_TAG}."


def schema_tags() -> list[str]:
    """Return the tags that Liquibase has set, the newest last; none for an empty database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('databasechangelog') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return []
        cursor.execute("SELECT tag FROM databasechangelog WHERE tag IS NOT NULL ORDER BY orderexecuted")
        return [tag for (tag,) in cursor.fetchall()]

"""What probes ask: is the process alive, and may it have traffic."""

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from wallets.errors import problem_response, to_problem
from wallets.problems import Unavailable
from wallets.schema import EXPECTED_TAG


def livez(request: HttpRequest) -> HttpResponse:
    """200 as long as the process answers."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when the database is reachable and its schema is the expected one; else 503."""
    try:
        tag = schema_tag()
    except Exception as error:
        return problem_response(request, to_problem(error))
    if tag != EXPECTED_TAG:
        return problem_response(
            request, Unavailable(f"The schema is at {tag}, this service needs {EXPECTED_TAG}.")
        )
    return JsonResponse({"status": "ok", "schema": tag})


def schema_tag() -> str | None:
    """The newest tag that Liquibase has set; None for an empty database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('databasechangelog') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return None
        cursor.execute(
            "SELECT tag FROM databasechangelog WHERE tag IS NOT NULL ORDER BY orderexecuted DESC LIMIT 1"
        )
        row = cursor.fetchone()
        return row[0] if row else None

"""The privileges of the application's role, complete; and secrets that no output contains."""

import re
from collections import deque
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any, Final

import psycopg
import pytest
from django.test import Client

from local.postgres import APPLICATION, OWNER, SUPERUSER
from tests.access.test_rights import ROWS, Row, World, new_world
from tests.support.client import Api
from tests.support.cluster import cluster
from tests.support.keys import PASSWORD, hashed, new_operator, session_of

pytestmark = pytest.mark.usefixtures("quick_hashing")

READ = ("SELECT",)
ADD = ("SELECT", "INSERT")
ADD_AND_REMOVE = (*ADD, "DELETE")
EVERYTHING = (*ADD, "UPDATE", "DELETE")

# What may be done with each table, and below it the columns that may be changed where not all may.
# A new grant has to be written down here.
GRANTED: Final[dict[str, tuple[str, ...]]] = {
    "operation": ADD,
    "operation_id": ADD,
    "wallet": ADD,
    "wallet_change": ADD,
    "hold": ADD,
    "inbox": ADD_AND_REMOVE,
    "ledger_check": ADD,
    "keyed_request": ADD,
    "api_key": ADD,
    "rate_limit": EVERYTHING,
    "subscriber": EVERYTHING,
    "parked_event": EVERYTHING,
    "delivery": ADD_AND_REMOVE,
    "wallet_user": EVERYTHING,
    "wallet_user_groups": EVERYTHING,
    "wallet_user_user_permissions": EVERYTHING,
    "auth_group": EVERYTHING,
    "auth_group_permissions": EVERYTHING,
    "auth_permission": EVERYTHING,
    "django_content_type": EVERYTHING,
    "django_session": EVERYTHING,
    "django_admin_log": ADD,
    "axes_accessattempt": EVERYTHING,
    "axes_accessattemptexpiration": EVERYTHING,
    "axes_accessfailurelog": EVERYTHING,
    "axes_accesslog": ADD,
    "otp_static_staticdevice": EVERYTHING,
    "otp_static_statictoken": EVERYTHING,
    "otp_totp_totpdevice": EVERYTHING,
    "databasechangelog": READ,
    "databasechangeloglock": (),
}
CHANGEABLE: Final[dict[str, set[str]]] = {
    "wallet": {
        *("balance", "held", "sequence", "next_expiry_at", "hash", "updated_at"),
        *("status", "external_id", "label", "metadata", "owner_id", "overdraft_limit", "max_balance"),
    },
    "hold": {"status", "captured_amount", "operation_id", "ended_at"},
    "inbox": {"position", "attempts", "last_error", "next_attempt_at", "set_aside_at"},
    "api_key": {"revoked_at", "last_used_at"},
    "axes_accesslog": {"logout_time"},
}


TABLES = "relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')"
Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def server() -> Iterator[Connection]:
    """As a superuser, to read the whole catalogue."""
    with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as connection:
        yield connection


@pytest.fixture
def application() -> Iterator[Connection]:
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        yield connection


def columns_of(server: Connection, table: str) -> set[str]:
    found = server.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [table],
    )
    return {name for (name,) in found}


# --- What is granted --------------------------------------------------------------------------------
def test_nothing_is_granted_but_what_the_table_says(server: Connection) -> None:
    """However it comes by it: from a grant, from PUBLIC or from another role."""
    granted = server.execute(
        "SELECT relname, array(SELECT privilege FROM unnest(%s::text[]) AS privilege"
        f"                      WHERE has_table_privilege(%s, oid, privilege)) FROM pg_class WHERE {TABLES}",
        [[*EVERYTHING, "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"], APPLICATION],
    ).fetchall()
    assert {table: tuple(privileges) for table, privileges in granted} == GRANTED


def test_no_column_may_be_changed_but_what_the_table_says(server: Connection) -> None:
    granted = server.execute(
        "SELECT relname, privilege, array_agg(attname) FROM pg_class"
        " JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped"
        " CROSS JOIN unnest(%(privileges)s::text[]) AS privilege"
        f" WHERE {TABLES} AND NOT has_table_privilege(%(role)s, pg_class.oid, privilege)"
        "   AND has_column_privilege(%(role)s, pg_class.oid, attnum, privilege) GROUP BY 1, 2",
        {"privileges": [*ADD, "UPDATE", "REFERENCES"], "role": APPLICATION},
    ).fetchall()
    assert {(table, privilege): set(columns) for table, privilege, columns in granted} == {
        (table, "UPDATE"): columns for table, columns in CHANGEABLE.items()
    }


def test_the_failures_of_the_inbox_may_be_counted_and_not_set_back(server: Connection) -> None:
    granted = server.execute(
        "SELECT array(SELECT privilege FROM unnest(%s::text[]) AS privilege"
        "             WHERE has_sequence_privilege(%s, 'inbox_failures', privilege))",
        [["USAGE", "SELECT", "UPDATE"], APPLICATION],
    ).fetchone()
    assert granted == (["USAGE", "SELECT"],)


def test_no_other_role_has_grants_and_none_can_pass_them_on(server: Connection) -> None:
    granted = server.execute(
        "SELECT DISTINCT grantee::regrole::text, is_grantable FROM ("
        "  SELECT relacl AS acl FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        "  UNION ALL SELECT attacl FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        "             WHERE relnamespace = 'public'::regnamespace"
        "  UNION ALL SELECT nspacl FROM pg_namespace WHERE nspname = 'public'"
        "  UNION ALL SELECT datacl FROM pg_database WHERE datname = current_database()"
        "), aclexplode(acl) WHERE grantee <> %s::regrole",
        [OWNER],
    ).fetchall()
    assert granted == [(APPLICATION, False)]


def test_the_role_has_no_attribute_but_login_joins_no_other_and_owns_nothing(server: Connection) -> None:
    assert server.execute(
        "SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
        "  FROM pg_roles WHERE rolname = %s",
        [APPLICATION],
    ).fetchone() == (True, False, False, False, False, False)
    joined = "SELECT roleid::regrole FROM pg_auth_members WHERE member = %s::regrole"
    assert server.execute(joined, [APPLICATION]).fetchall() == []
    owned = "SELECT classid::regclass, objid FROM pg_shdepend WHERE refobjid = %s::regrole AND deptype = 'o'"
    assert server.execute(owned, [APPLICATION]).fetchall() == []


def test_no_function_runs_with_the_rights_of_another(server: Connection) -> None:
    assert server.execute("SELECT oid::regprocedure FROM pg_proc WHERE prosecdef").fetchall() == []


# --- What is refused --------------------------------------------------------------------------------
def may_not(application: Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        application.execute(statement)


@pytest.mark.parametrize("table", [table for table, granted in GRANTED.items() if granted != EVERYTHING])
def test_what_is_in_a_table_may_not_be_changed_or_removed(
    application: Connection, server: Connection, table: str
) -> None:
    fixed = columns_of(server, table) - CHANGEABLE.get(table, set())
    assert fixed
    for column in fixed:
        may_not(application, f"UPDATE {table} SET {column} = DEFAULT")
    for verb in {"DELETE"} - set(GRANTED[table]):
        may_not(application, f"{verb} FROM {table}")


@pytest.mark.parametrize("table", GRANTED)
def test_no_table_may_be_emptied_altered_or_taken_away(application: Connection, table: str) -> None:
    for statement in (
        f"TRUNCATE {table} CASCADE",
        f"DROP TABLE {table} CASCADE",
        f"ALTER TABLE {table} ADD x int",
        f"ALTER TABLE {table} DISABLE TRIGGER ALL",
        f"ALTER TABLE {table} OWNER TO {APPLICATION}",
        f"CREATE INDEX ON {table} ((1))",
        f"CREATE TRIGGER x BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        f"CREATE RULE x AS ON INSERT TO {table} DO INSTEAD NOTHING",
    ):
        may_not(application, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE operation DROP CONSTRAINT operation_amount_positive",
        "ALTER TABLE wallet DROP CONSTRAINT wallet_available_within_overdraft_limit",
        "BEGIN; LOCK TABLE operation IN ACCESS EXCLUSIVE MODE",
        "SET session_replication_role = replica",  # no trigger and no foreign key would count
        "CREATE TABLE x (y int)",
        "CREATE TEMPORARY TABLE wallet (y int)",  # it would be found before the real one
        "CREATE SCHEMA x",
        "CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT NULL::timestamptz $$",
        "CREATE PUBLICATION x FOR TABLE operation",
        f"SET ROLE {OWNER}",
        f"SET ROLE {SUPERUSER}",
        f"SET SESSION AUTHORIZATION {SUPERUSER}",
        f"GRANT {OWNER} TO {APPLICATION}",
        f"GRANT pg_write_all_data TO {APPLICATION}",
        f"ALTER ROLE {OWNER} PASSWORD 'x'",
        *(
            f"ALTER ROLE {APPLICATION} {attribute}"
            for attribute in ("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")
        ),
        "CREATE ROLE x",
        "CREATE DATABASE x",
        f"ALTER DATABASE {cluster.url().rpartition('/')[2]} SET synchronous_commit = off",
        "ALTER SYSTEM SET fsync = off",
        "CHECKPOINT",
        "SELECT pg_reload_conf()",
        "SELECT pg_switch_wal()",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_shadow",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_ls_dir('.')",
        "SELECT lo_import('/etc/passwd')",
        "COPY operation FROM '/etc/passwd'",
        "COPY wallet TO '/dev/null'",
        "COPY wallet TO PROGRAM 'true'",
        "COPY operation FROM PROGRAM 'true'",
    ],
)
def test_the_application_may_not(application: Connection, statement: str) -> None:
    may_not(application, statement)


# --- Secrets in no output ----------------------------------------------------------------------------
def tells_a_password(content: str) -> bool:
    """The operators of these tests share one password, so there is one hash to look for."""
    _, _, salt, digest = hashed().split("$")
    return any(secret in content for secret in (PASSWORD, salt, digest.rstrip("=")))


@pytest.fixture(scope="module")
def world() -> World:
    return new_world()


@pytest.fixture(scope="module")
def superuser() -> Any:
    return new_operator(is_superuser=True)


ASKERS = ("an admin key", "the owner, logged in", "a superuser")


@pytest.mark.parametrize("asker", ASKERS)
@pytest.mark.parametrize("line", ROWS)
@pytest.mark.slow
def test_no_answer_of_the_api_has_a_password_or_its_hash(
    world: World, superuser: Any, line: str, asker: str
) -> None:
    row: Row = ROWS[line]
    api = dict(zip(ASKERS, (world.bank, session_of(world.user), session_of(superuser)), strict=True))[asker]
    answer = row.send(line.split(maxsplit=1)[0], api, world.ids)
    assert answer.status != 500
    assert not tells_a_password(answer.content.decode())
    assert '"password"' not in answer.content.decode()


def test_no_body_of_the_openapi_document_has_a_password() -> None:
    document = Api().sender.send("GET", "/api/schema", headers={"Accept": "application/json"}).json
    told = {
        name
        for item in document["paths"].values()
        for operation in item.values()
        for answer in operation["responses"].values()
        for name in names_in(answer, document, set())
    }
    assert {"balance", "email"} <= told
    assert [name for name in told if re.search("passw|hash|digest", name, re.IGNORECASE)] == []


def names_in(node: Any, document: Any, seen: set[str]) -> Iterator[str]:
    """The properties of a schema, and of those that it refers to."""
    match node:
        case {"$ref": str(reference)} if reference not in seen:
            seen.add(reference)
            yield from names_in(reduce(getitem, reference.split("/")[1:], document), document, seen)
        case dict():
            yield from node.get("properties", {})
            for each in node.values():
                yield from names_in(each, document, seen)
        case list():
            for each in node:
                yield from names_in(each, document, seen)


def kind_of(address: str) -> str:
    """A page of a thousand wallets is one page."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=/)\d+(?=/)", "{id}", address.partition("?")[0])


def linked(address: str, content: str) -> list[str]:
    found = re.findall(r'href="(/admin/[^"#]*)"', content)
    return [link.replace("&amp;", "&") for link in found] + [
        f"{address}{link}" for link in re.findall(r'href="(\?[^"#]*)"', content)[:3]
    ]


@pytest.mark.slow
def test_no_page_of_the_admin_has_the_hash_of_a_password(world: World, superuser: Any) -> None:
    """Every kind of page that links lead to from the start, and all of an operator's own."""
    client = Client()
    client.force_login(superuser, backend="django.contrib.auth.backends.ModelBackend")
    of_superuser = f"/admin/wallets/user/{superuser.pk}/change/"
    unlinked = of_superuser.replace("change", "password")
    waiting, visited = deque(["/admin/", of_superuser, unlinked]), set[str]()
    while waiting:
        address = waiting.popleft()
        if (kind := kind_of(address)) in visited:
            continue
        visited.add(kind)
        response = client.get(address)
        assert response.status_code in (200, 302, 405), address
        if not response.headers.get("Content-Type", "").startswith("text/html"):
            continue
        content = response.content.decode()
        assert not tells_a_password(content), address
        waiting.extend(linked(address, content))
    assert {kind_of(of_superuser), "/admin/wallets/wallet/{id}/change/", "/admin/auth/group/"} <= visited
    assert client.get(of_superuser).status_code == 200  # it has not logged itself out on the way

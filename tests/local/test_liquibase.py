"""Liquibase: the choice of the program, its version, its arguments and its errors."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import LocalError, jars, liquibase

URL = "postgres://me:s%3Acret@db.example:6543/the%20base?sslmode=require"


@pytest.fixture(autouse=True)
def _clear_cached_command() -> Iterator[None]:
    liquibase.command.cache_clear()
    yield
    liquibase.command.cache_clear()


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_libpq_url_becomes_a_jdbc_url_and_a_login() -> None:
    assert liquibase.connection(URL) == {
        "LIQUIBASE_COMMAND_URL": "jdbc:postgresql://db.example:6543/the%20base?sslmode=require",
        "LIQUIBASE_COMMAND_USERNAME": "me",
        "LIQUIBASE_COMMAND_PASSWORD": "s:cret",
    }


@pytest.mark.parametrize(
    ("address", "jdbc"),
    [
        ("postgres://me@db/base", "jdbc:postgresql://db:5432/base"),
        ("postgresql://me@[::1]:1/base", "jdbc:postgresql://[::1]:1/base"),
        ("postgres://me@db", "jdbc:postgresql://db:5432/me"),
    ],
)
def test_libpq_url_may_omit_parts(address: str, jdbc: str) -> None:
    assert liquibase.connection(address)["LIQUIBASE_COMMAND_URL"] == jdbc


def test_malformed_url_is_refused_without_its_password() -> None:
    with pytest.raises(LocalError, match="postgres://user:password@host") as refusal:
        liquibase.connection("mysql://me:secret@db/base")
    assert "secret" not in str(refusal.value)


def test_unix_socket_is_refused() -> None:
    with pytest.raises(LocalError, match="not a socket"):
        liquibase.connection("postgres://me@%2Frun%2Fpostgresql/base")


def test_secrets_are_not_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'echo "Liquibase Version: 4.33.0"; echo "$@" >{tmp_path}/arguments; env >{tmp_path}/environment'
    monkeypatch.setenv("LIQUIBASE", str(program(tmp_path / "mine", script)))
    monkeypatch.setenv("LIQUIBASE_COMMAND_URL", "jdbc:postgresql://another/database")
    liquibase.update(URL)
    assert (tmp_path / "arguments").read_text() == "update\n"
    environment = (tmp_path / "environment").read_text().splitlines()
    assert "LIQUIBASE_COMMAND_PASSWORD=s:cret" in environment
    assert "LIQUIBASE_COMMAND_CHANGELOG_FILE=changelog.yaml" in environment
    assert not any("another" in line for line in environment)


def test_configured_liquibase_must_not_be_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = program(tmp_path / "old", 'echo "Liquibase Version: 4.27.0"')
    monkeypatch.setenv("LIQUIBASE", str(old))
    with pytest.raises(LocalError, match=r"is version 4\.27\.0, older than 4\.28$"):
        liquibase.command()


@pytest.mark.parametrize(
    ("version", "fits"),
    [("4.27.9", False), ("4.28.0", True), ("4.33.0", True), ("5.0.1", False), ("garbage", False)],
)
def test_liquibase_on_the_path_is_used_if_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, fits: bool
) -> None:
    installed = program(tmp_path / "liquibase", f'echo "Liquibase Version: {version}"')
    monkeypatch.delenv("LIQUIBASE", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(liquibase, "java", lambda: ("java",))
    assert liquibase.command() == ((str(installed),) if fits else ("java",))


def test_package_with_another_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(work: Path) -> Path:
        package = work / "liquibase-4.28.1.tgz"
        package.write_bytes(b"something else")
        return package

    monkeypatch.setattr(jars, "STATE", tmp_path)
    monkeypatch.setattr(jars, "FOLDER", tmp_path / "liquibase-4.28.0")
    monkeypatch.setattr(jars, "pack", pack)
    with pytest.raises(LocalError, match="not the published package"):
        jars.java()
    assert [path.name for path in tmp_path.iterdir()] == ["liquibase.lock"]


def test_error_has_no_stack_trace() -> None:
    output = (
        "SEVERE [liquibase.integration] ERROR: relation\n\tat liquibase.Scope.child(Scope.java:200)\n\n"
        "Unexpected error running Liquibase: Migration failed for changeset changes/1.sql::a::b:\n"
        "     Reason: ERROR: relation does not exist\n\nliquibase.exception.X\n\tat liquibase.Y\n"
    )
    assert liquibase.explanation(output) == (
        "Liquibase failed: Migration failed for changeset changes/1.sql::a::b: "
        "Reason: ERROR: relation does not exist"
    )

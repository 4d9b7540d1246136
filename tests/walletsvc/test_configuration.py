"""Settings from the environment: accepted values, defaults, error messages, env.example and compose."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
import yaml
from django.core.exceptions import ImproperlyConfigured
from packaging.utils import canonicalize_name

from local import ROOT
from tests.deploy.test_supply_chain import pins
from wallets.events import destinations, webhooks

REQUIRED = {
    "SECRET_KEY": "Wq3vT7zLr9XsNf2mKb8HcYd5GjPa4RuE6eVoZi1tQxCwDnMySBgUhFkJ",
    "DATABASE_URL": "postgres://walletsvc_app:hunter2@127.0.0.1:5432/walletsvc",
}
PRODUCTION = REQUIRED | {"ALLOWED_HOSTS": "wallets.example.com"}

MANAGE = ["manage.py", "check"]
SERVE = ["-m", "gunicorn", "--check-config", "-c", "walletsvc/gunicorn.py", "walletsvc.wsgi"]

# env.example is for a first try on one machine: these differ from the defaults of the code.
EXAMPLE_VALUES = {"SECRET_KEY", "DATABASE_URL", "API_ACCESS", "ALLOWED_HOSTS", "HTTPS", "METRICS_TOKEN"}

ASSIGNMENT = re.compile(r"([A-Z_]+)=(\S*)")
SUBSTITUTION = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)\}")


def run(arguments: list[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run Python in the repository with these arguments and only these environment variables."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@cache
def settings_read() -> dict[str, str | None]:
    """Return each variable that the settings read, with its default; None if it is required."""
    code = "import json, walletsvc.settings; print(json.dumps(walletsvc.environment.DEFAULTS))"
    found: dict[str, str | None] = json.loads(run(["-c", code], PRODUCTION).stdout)
    return found


@cache
def example() -> dict[str, str]:
    return {line[1]: line[2] for line in map(ASSIGNMENT.fullmatch, example_lines()) if line}


@cache
def example_lines() -> list[str]:
    return (ROOT / "env.example").read_text().splitlines()


@cache
def compose_text() -> str:
    return (ROOT / "docker-compose.yml").read_text()


@cache
def substitutions() -> dict[str, str | None]:
    """Return the variables that docker-compose.yml takes from .env, with its defaults."""
    return {found["name"]: found["default"] for found in SUBSTITUTION.finditer(compose_text())}


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(compose_text())["services"]
    return found


# --- Mistakes ---------------------------------------------------------------------------------------
def assert_one_line_error(done: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith("walletsvc is not configured: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


def refusal(environment: Mapping[str, str]) -> str:
    """Return the error message of the settings for this environment, without a new process."""
    settings = str(ROOT / "walletsvc" / "settings.py")
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        pytest.raises(ImproperlyConfigured) as refused,
    ):
        runpy.run_path(settings)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("command", [MANAGE, SERVE], ids=["manage.py", "gunicorn"])
@pytest.mark.parametrize("name", REQUIRED)
def test_missing_required_setting_is_named(command: list[str], name: str) -> None:
    without = {key: value for key, value in REQUIRED.items() if key != name}
    assert_one_line_error(run(command, without), f"{name} is not set")
    assert_one_line_error(run(command, without | {name: ""}), f"{name} is not set")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "true"),
        ("HTTPS", "1"),
        ("TRUST_PROXY", "yes"),
        ("HSTS_SECONDS", "-1"),
        ("API_ACCESS", "closed"),
        ("ADMIN_OTP", "required"),
        ("LOGIN_LOCKOUT", "5"),
        ("RATE_LIMIT_KEY", "0/1s"),
        ("RATE_LIMIT_USER", "10/1w"),
        ("RATE_LIMIT_SIGNUP", "ten/1m"),
        ("SESSION_HOURS", "0"),
        ("DATABASE_POOL_MIN", "-1"),
        ("DATABASE_POOL_MAX", "0"),
        ("DATABASE_CONNECT_TIMEOUT", "3s"),
        ("OPERATION_DEADLINE", "nan"),
        ("LOCK_PATIENCE", "0.0004"),
        ("DEFAULT_CURRENCY", "rub"),
        ("DEFAULT_CURRENCY", "XAU"),
        ("GROUP_COMMIT", "On"),
        ("GROUP_COMMIT_BATCH", "0"),
        ("MAX_AMOUNT", "1000000000000001"),
        ("MAX_AMOUNT", "lots"),
        ("BIND", "127.0.0.1"),
        ("MAX_BODY_BYTES", "1023"),
        ("WORKERS", "many"),
        ("LOG_LEVEL", "info"),
        ("LOG_FORMAT", "text"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_TRACES_SAMPLER", "always"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "half"),
        ("METRICS", "yes"),
        ("PUBLIC_URL", "wallets.example.com"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "ftp://wallets.example.com"),
        ("PUBLIC_URL", "https://wallets.example.com/"),
        ("PUBLIC_URL", "https://wallets.example.com/pay"),
        ("PUBLIC_URL", "https://wallets.example.com?a=b"),
        ("PUBLIC_URL", "https://wallets.example.com#a"),
        ("PUBLIC_URL", "https://anna@wallets.example.com"),
        ("PUBLIC_URL", "https://wallets.example.com evil.example"),
        ("PUBLIC_URL", "https://wallets.example.com:port"),
    ],
)
def test_malformed_value_is_named(name: str, value: str) -> None:
    assert refusal(REQUIRED | {name: value}).startswith(f"{name}='{value}': ")


def test_server_reports_a_malformed_value_in_one_line() -> None:
    for name, value in (
        ("WORKERS", "0"),
        ("STATEMENT_TIMEOUT_SECONDS", "0"),
        ("STATEMENT_TIMEOUT_SECONDS", "on"),
    ):
        assert_one_line_error(run(SERVE, REQUIRED | {name: value}), f"{name}='{value}': ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "hunter2"),
        ("DATABASE_URL", "mysql://walletsvc:hunter2@127.0.0.1/walletsvc"),
        ("DATABASE_URL", "postgres://walletsvc:hunter2@127.0.0.1:port/walletsvc"),
        ("DATABASE_URL", "postgres://walletsvc:hunter2/@127.0.0.1/walletsvc"),
        ("DATABASE_URL", "hunter2"),
        ("EMAIL_URL", "hunter2"),
        ("EMAIL_URL", "imap://walletsvc:hunter2@mail.example.com"),
        ("EMAIL_URL", "smtp://walletsvc:hunter2@mail.example.com:port"),
        ("SENTRY_DSN", "hunter2@sentry.example.com/1"),
        ("METRICS_TOKEN", "hunter2-15-long"),
        ("EVENTS_BROKER_URL", "http://walletsvc:hunter2@127.0.0.1"),
        ("EVENTS_BROKER_URL", "amqp://walletsvc:hunter2/@127.0.0.1"),
        ("EVENTS_BROKER_URL", "amqp://walletsvc:hunter2@127.0.0.1:port"),
        ("EVENTS_BROKER_URL", "amqp://hunter2@127.0.0.1"),
        ("EVENTS_BROKER_URL", "kafka://walletsvc:hunter2@127.0.0.1"),
        ("EVENTS_BROKER_URL", "kafka://127.0.0.1:9092,?sasl.password=hunter2"),
    ],
)
def test_malformed_secret_is_named_but_not_shown(name: str, value: str) -> None:
    message = refusal(REQUIRED | {name: value})
    assert message.startswith(f"{name}: ")
    assert "hunter2" not in message


@pytest.mark.parametrize("command", [MANAGE, SERVE], ids=["manage.py", "gunicorn"])
def test_no_command_shows_a_malformed_secret(command: list[str]) -> None:
    done = run(command, REQUIRED | {"EMAIL_URL": "imap://walletsvc:hunter2@mail.example.com"})
    assert_one_line_error(done, "EMAIL_URL: ")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("command", [MANAGE, SERVE], ids=["manage.py", "gunicorn"])
def test_mail_without_public_url_is_refused(command: list[str]) -> None:
    mail = REQUIRED | {"EMAIL_URL": "smtp+tls://walletsvc:hunter2@mail.example.com:587"}
    for given in (mail, mail | {"PUBLIC_URL": ""}):
        done = run(command, given)
        assert_one_line_error(done, "PUBLIC_URL='': must be set, because EMAIL_URL is")
        assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    "address", ["https://wallets.example.com", "http://127.0.0.1:8000", "http://[::1]:80"]
)
@pytest.mark.slow
def test_mail_with_public_url_is_accepted(address: str) -> None:
    given = {"EMAIL_URL": "smtp://mail.example.com", "PUBLIC_URL": address}
    assert run(MANAGE, REQUIRED | given).returncode == 0


def test_pool_maximum_below_its_minimum_is_refused() -> None:
    done = run(MANAGE, REQUIRED | {"DATABASE_POOL_MIN": "9"})
    assert_one_line_error(done, "DATABASE_POOL_MAX='4': must be at least 9")


@pytest.mark.slow
def test_secret_may_begin_with_a_dollar() -> None:
    assert run(MANAGE, REQUIRED | {"SECRET_KEY": "$" + REQUIRED["SECRET_KEY"]}).returncode == 0


# --- Production -------------------------------------------------------------------------------------
@pytest.mark.slow
def test_deployment_check_passes_with_required_settings_alone() -> None:
    done = run(["manage.py", "check", "--deploy", "--fail-level", "WARNING"], PRODUCTION)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


def test_defaults_are_for_production() -> None:
    read = settings_read()
    assert {name for name, default in read.items() if default is None} == set(REQUIRED)
    assert read["API_ACCESS"] == "key"
    assert read["DEBUG"] == "off"
    assert read["HTTPS"] == "on"


def test_service_imports_only_packages_of_requirements_txt() -> None:
    """Production does not have the packages of the tests."""
    installed = {pin.name for pin in pins("requirements")}
    missing = [
        module
        for module, owners in packages_distributions().items()
        if not installed.intersection(map(canonicalize_name, owners))
    ]
    code = (
        # Importing a module that is None fails.
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:])); "
        "import django; django.setup(); import walletsvc.urls, walletsvc.server.worker"
    )
    done = run(["-c", code, *missing], PRODUCTION | {"DJANGO_SETTINGS_MODULE": "walletsvc.settings"})
    assert done.returncode == 0, done.stderr


# --- env.example ------------------------------------------------------------------------------------
def test_env_example_names_exactly_the_variables_that_are_read() -> None:
    assert set(example()) == set(settings_read()) | set(substitutions())
    assert len(example()) == sum(1 for line in example_lines() if ASSIGNMENT.match(line))  # none twice


def test_env_example_shows_the_defaults() -> None:
    shown = {name: value for name, value in example().items() if name in settings_read()}
    assert {name for name, value in shown.items() if value != settings_read()[name]} == EXAMPLE_VALUES


def test_env_example_shows_the_defaults_of_compose() -> None:
    defaults = {name: value for name, value in substitutions().items() if value}
    assert {name: example()[name] for name in defaults} == defaults


def test_env_example_explains_every_setting() -> None:
    for before, line in pairwise(example_lines()):
        if setting := ASSIGNMENT.match(line):
            assert before.startswith("# "), line
            assert not before.startswith("# ---"), line
            if setting[1] in EXAMPLE_VALUES:
                assert "Default: " in before or "Required." in before, line


@pytest.mark.slow
def test_env_example_is_a_working_configuration() -> None:
    for command in (MANAGE, SERVE):
        done = run(command, example())
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_deployment_check_refuses_the_key_of_env_example() -> None:
    done = run(["manage.py", "check", "--deploy"], PRODUCTION | {"SECRET_KEY": example()["SECRET_KEY"]})
    assert "security.W009" in done.stderr


def test_connections_of_env_example_fit_into_the_server() -> None:
    number = {name: int(value) for name, value in example().items() if value.isdecimal()}
    ledger_connections, reserve = 2, 10
    service_connections = number["WORKERS"] * (number["DATABASE_POOL_MAX"] + ledger_connections)
    assert service_connections + reserve <= number["POSTGRES_MAX_CONNECTIONS"]


# --- docker-compose.yml -----------------------------------------------------------------------------
def test_compose_starts_services_in_order(services: dict[str, Any]) -> None:
    conditions = {
        (name, other): dependency["condition"]
        for name, service in services.items()
        for other, dependency in service.get("depends_on", {}).items()
    }
    assert conditions == {
        ("roles", "db"): "service_healthy",
        ("liquibase", "roles"): "service_completed_successfully",
        ("setup", "liquibase"): "service_completed_successfully",
        ("web", "setup"): "service_completed_successfully",
        ("inbox", "setup"): "service_completed_successfully",
        ("relay", "setup"): "service_completed_successfully",
        ("prometheus", "web"): "service_started",
        ("grafana", "prometheus"): "service_started",
    }
    once, observing = {"roles", "liquibase", "setup"}, {"prometheus", "grafana"}
    assert set(services) == {"db", "web", "inbox", "relay", "rabbitmq"} | once | observing
    assert {name for name, service in services.items() if "restart" not in service} == once
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {name: ["observability"] for name in observing} | {"rabbitmq": ["events"]}


def test_compose_passes_the_service_only_its_own_settings(services: dict[str, Any]) -> None:
    environment = services["web"]["environment"]
    set_by_the_image = {"BIND"}
    assert set(environment) | set_by_the_image == set(settings_read())
    passed_on = {name: f"${{{name}:-}}" for name in environment}
    assert {name for name, value in environment.items() if value != passed_on[name]} == set(REQUIRED)
    assert set(services["setup"]["environment"]) == {*environment, "ADMIN_PASSWORD", "BOOTSTRAP_API_KEY"}
    assert services["inbox"]["environment"] == services["relay"]["environment"] == environment


SERVICES_OF_OUR_IMAGE = {"setup", "web", "inbox", "relay"}


def test_compose_runs_services_with_least_privilege(services: dict[str, Any]) -> None:
    writable = {"rabbitmq"}
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        # Docker's default seccomp profile applies, because none is named.
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is (name not in writable), name
        assert "/tmp" in service["tmpfs"], name  # noqa: S108
        assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode"} & set(
            service
        )
        assert not any("docker.sock" in volume for volume in service.get("volumes", [])), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert services["web"]["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]


def test_compose_runs_nothing_as_root(services: dict[str, Any]) -> None:
    users = {name: service["user"] for name, service in services.items() if "user" in service}
    assert set(services) - set(users) == SERVICES_OF_OUR_IMAGE  # the Dockerfile sets their user, by number
    assert [name for name, user in users.items() if re.match("root|0", user)] == []


def test_compose_builds_the_image_locally(services: dict[str, Any]) -> None:
    assert {
        name for name, service in services.items() if service.get("pull_policy") == "never"
    } == SERVICES_OF_OUR_IMAGE


def test_compose_requires_passwords_for_prometheus_and_grafana(
    services: dict[str, Any],
) -> None:
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["observability"]
        assert re.search(r"test -n .* exit 1", services[name]["command"][0])
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), volume


def test_compose_has_the_broker_that_env_example_names(services: dict[str, Any]) -> None:
    broker = services["rabbitmq"]
    user, vhost = (broker["environment"][f"RABBITMQ_DEFAULT_{name}"] for name in ("USER", "VHOST"))
    address = f"amqp://{user}:{example()['RABBITMQ_PASSWORD']}@{broker['hostname']}:5672/{vhost}"
    assert f"# EVENTS_BROKER_URL to {address}. Default: none" in example_lines()
    assert run(MANAGE, REQUIRED | {"EVENTS_BROKER_URL": address}).returncode == 0
    assert broker["ports"] == ["127.0.0.1:${RABBITMQ_PORT:-5672}:5672"]
    assert re.search(r"test -n .* exit 1", broker["command"][0])


def test_compose_keeps_commits_durable(services: dict[str, Any]) -> None:
    assert {"--fsync=on", "--full_page_writes=on", "--synchronous_commit=on"} <= set(
        services["db"]["command"]
    )


def test_compose_stop_grace_period_exceeds_graceful_timeout() -> None:
    assert int(example()["STOP_GRACE_PERIOD"].removesuffix("s")) > int(example()["GRACEFUL_TIMEOUT"])


def max_relay_stop_seconds() -> float:
    """A broker connects, takes a page and disconnects; a webhook may try an idle connection first."""
    name_resolution_seconds = 10
    return max(
        2 * destinations.BROKER_TIMEOUT_SECONDS + 1,
        webhooks.MAX_PAGE_SECONDS + 2 * webhooks.REQUEST_TIMEOUT_SECONDS + name_resolution_seconds,
    )


def test_compose_lets_the_relay_finish_its_deliveries(services: dict[str, Any]) -> None:
    assert int(services["relay"]["stop_grace_period"].removesuffix("s")) > max_relay_stop_seconds()


def test_compose_and_make_run_use_the_same_changeset_paths(services: dict[str, Any]) -> None:
    environment = services["liquibase"]["environment"]
    assert environment["LIQUIBASE_COMMAND_CHANGELOG_FILE"] == "changelog.yaml"
    assert f"./liquibase:{environment['LIQUIBASE_SEARCH_PATH']}:ro" in services["liquibase"]["volumes"]

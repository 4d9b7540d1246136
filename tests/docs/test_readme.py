"""The README and the pages of the documentation show what the service does."""

import re
import subprocess
from pathlib import Path

import pytest
from django.core.management import get_commands

from wallets.api import urls

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SESSIONS = [ROOT / "README.md", ROOT / "docs" / "getting-started.md"]
ADDRESS = "http://127.0.0.1:8000"

# Patterns of values that differ between runs.
CHANGING = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME"),
    (r'"(id|requestId|operationId)":"(?!0193a5d0-ac96-774b-8cce-b302099a80)[0-9a-f-]{36}"', r'"\1":"ID"'),
]


def session(page: Path) -> list[tuple[str, str]]:
    """Return every `$ command` of the page with the output that it shows."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    steps = [step for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, output) for command, _, output in (step.partition("\n") for step in steps)]


def without_changing_values(output: str) -> str:
    for pattern, name in CHANGING:
        output = re.sub(pattern, name, output)
    return output.strip()


@pytest.mark.brokers  # curl, from the distribution
@pytest.mark.parametrize("page", SESSIONS, ids=lambda page: page.stem)
def test_first_session_shows_real_output(service: str, page: Path) -> None:
    assert len(session(page)) >= 4
    for command, shown in session(page):
        done = subprocess.run(
            ["bash", "-c", command.replace(ADDRESS, service)], capture_output=True, text=True, check=True
        )
        assert without_changing_values(done.stdout) == without_changing_values(
            shown.replace(ADDRESS, service)
        ), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_make_command_of_a_page_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", "\n".join(code_of(page))))
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def code_of(page: Path) -> list[str]:
    return re.findall(r"```sh\n.*?```|`[^`\n]+`", page.read_text(), re.DOTALL)


def test_readme_names_the_first_make_commands() -> None:
    assert set(re.findall(r"make ([a-z-]+)", README)) >= {"run", "test", "help", "check", "docs"}


def test_readme_is_short() -> None:
    assert README.count("\n") <= 200


def test_readme_lists_every_url_of_the_api() -> None:
    for route in urls.urlpatterns:
        address = "/" + re.sub(r"<id:\w+>", "{id}", str(route.pattern))
        assert f"{address}`" in README, address


def test_commands_page_lists_every_command_of_ours() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    ours = [name for name, app in get_commands().items() if app == "wallets"]
    assert len(ours) >= 5
    assert [name for name in ours if f"`manage.py {name}" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_exist(page: Path) -> None:
    content = page.read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)", content):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    folders = "wallets|walletsvc|tests|local|loadtest|deploy|liquibase|docs|examples|clients"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []

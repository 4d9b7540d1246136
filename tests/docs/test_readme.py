"""The commands, URLs and links of the README work as shown."""

import re
import subprocess
from pathlib import Path

import pytest
from django.core.management import get_commands

from wallets.api import urls

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8000"

# Texts that differ between runs.
CHANGING = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME"),
    (r'"(id|requestId|operationId)":"(?!0193a5d0-ac96-774b-8cce-b302099a80)[0-9a-f-]{36}"', r'"\1":"ID"'),
]


def session() -> list[tuple[str, str]]:
    """Return every `$ command` of the README with its documented output."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    steps = [step for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, output) for command, _, output in (step.partition("\n") for step in steps)]


def normalize(output: str) -> str:
    for pattern, name in CHANGING:
        output = re.sub(pattern, name, output)
    return output.strip()


@pytest.mark.brokers  # needs curl
def test_first_session_has_the_documented_output(service: str) -> None:
    assert len(session()) >= 4
    for command, shown in session():
        done = subprocess.run(
            ["bash", "-c", command.replace(ADDRESS, service)], capture_output=True, text=True, check=True
        )
        assert normalize(done.stdout) == normalize(shown), command


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", README))
    assert {"run", "test", "help", "check"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_readme_lists_every_url_of_the_api() -> None:
    for route in urls.urlpatterns:
        address = "/" + re.sub(r"<id:\w+>", "{id}", str(route.pattern))
        assert f"{address}`" in README, address


def test_readme_lists_every_management_command() -> None:
    ours = [name for name, app in get_commands().items() if app == "wallets"]
    assert len(ours) >= 5
    assert [name for name in ours if f"`manage.py {name}" not in README] == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name
)
def test_links_exist(page: Path) -> None:
    content = page.read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)", content):
        assert (page.parent / link).exists(), link

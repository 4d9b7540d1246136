"""The documentation as a site: it builds strictly, loads nothing from other hosts, and names real code."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from local import ROOT
from tests.support.client import Api
from tests.walletsvc.test_configuration import settings_read, substitutions
from wallets import problems

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LOADING_ATTRIBUTES = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
REQUIRED = {"SECRET_KEY", "DATABASE_URL", "APP_PASSWORD", "OWNER_PASSWORD", "POSTGRES_PASSWORD"}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


# --- The site ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site. With --strict a broken link or anchor fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Loaded(HTMLParser):
    """Collect the addresses that a browser loads to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        address = found.get(LOADING_ATTRIBUTES.get(tag, ""))
        if address and not (tag == "link" and found.get("rel") in ("canonical", "next", "prev")):
            self.addresses.append(address)


def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for built in pages:
        loaded = Loaded()
        content = built.read_text()
        loaded.feed(content)
        assert loaded.addresses, built
        assert [address for address in loaded.addresses if re.match(r"(https?:)?//", address)] == [], built
        # Material's script fetches a drawing library from another host for an element of this class.
        assert 'class="mermaid"' not in content, built


def test_site_serves_the_repository_files_that_pages_link_to(site: Path) -> None:
    copy = site / "source" / "wallets" / "ledger" / "execute.py.txt"
    assert copy.read_text() == (ROOT / "wallets" / "ledger" / "execute.py").read_text()


def test_every_page_is_in_the_navigation() -> None:
    def files_of(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        entries = entry.values() if isinstance(entry, dict) else entry
        return [name for part in entries for name in files_of(part)]  # type: ignore[attr-defined]

    navigation = files_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(navigation) == sorted(found.relative_to(DOCS).as_posix() for found in PAGES)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page_begins_with_what_its_reader_can_do(path: Path) -> None:
    title, _, text = path.read_text().partition("\n\n")
    assert re.fullmatch(r"# .+", title)
    assert text.startswith("After reading this page you ")


# --- The reference ----------------------------------------------------------------------------------
def test_errors_page_describes_every_problem() -> None:
    text = page("errors.md").replace("**", "")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    kinds = problems.Problem.__subclasses__()
    assert sorted(rows) == sorted((kind.code, str(kind.status), kind.cause, kind.action) for kind in kinds)


def test_settings_page_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", page("settings.md"), re.MULTILINE)
    defaults = substitutions() | settings_read()
    assert sorted(name for name, _ in rows) == sorted(defaults)
    for name, shown in rows:
        expected = "required" if name in REQUIRED else f"`{defaults[name]}`" if defaults[name] else "none"
        assert shown == expected, name


def test_metrics_page_lists_every_metric(live_api: Api) -> None:
    live_api.wallet(live_api.open(deposit="1"))  # a gauge appears with its first value
    exposed = live_api.sender.send("GET", "/metrics").content.decode()
    names = re.findall(r"^# TYPE (walletsvc_\w+) ", exposed, re.MULTILINE)
    assert len(names) > 20
    assert sorted(first_cells(page("metrics.md"))) == sorted(names)


# --- The architecture -------------------------------------------------------------------------------
def test_architecture_names_code_that_exists() -> None:
    rows = re.findall(r"^\| \d+ \| \[.*?\]\(\.\./(.*?)\) \| (.*?) \|", page("architecture.md"), re.MULTILINE)
    assert len(rows) > 20
    for file, names in rows:
        source = (ROOT / file).read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b{name}\b", source), (file, name)


def test_architecture_lists_every_package() -> None:
    packages = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "wallets").glob("*/__init__.py")}
    assert [name for name in packages if f"| `{name}/` |" not in page("architecture.md")] == []


def test_decisions_page_lists_every_decision() -> None:
    records = [path.name for path in (DOCS / "decisions").glob("*.md") if path.name != "index.md"]
    assert [name for name in records if f"({name})" not in page("decisions/index.md")] == []

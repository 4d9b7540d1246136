"""Imports respect the boundaries of the packages, and class names are unique."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from wallets import ledger

ROOT = Path(__file__).parents[2]
PRODUCT = ("wallets", "walletsvc", "local")
EXPORTED = {*ledger.__all__, *ledger.MODULES}
# Django finds these classes by name, one in each model or module.
NAMED_BY_DJANGO = {"Command", "Kind", "Meta", "Status", "Type"}


def modules(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each import of the tree; the name is empty for `import module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def test_other_packages_import_only_the_facade_of_the_ledger() -> None:
    past_facade = [
        f"{path}: {module} {name}"
        for path, tree in modules(*PRODUCT)
        if not path.startswith("wallets/ledger/")
        for module, name in imports(tree)
        if module.startswith("wallets.ledger.")
        or (module == "wallets.ledger" and name not in {*ledger.__all__, *ledger.MODULES})
    ]
    assert past_facade == []


def test_facade_exports_nothing_unused() -> None:
    used = {
        name
        for path, tree in modules(*PRODUCT)
        if not path.startswith("wallets/ledger/")
        for module, name in imports(tree)
        if module == "wallets.ledger"
    }
    attributes = {
        node.attr
        for path, tree in modules(*PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ledger"
    }
    assert EXPORTED - {"MODULES"} - used - attributes == set()


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("wallets/events", "wallets.api"),
        ("wallets/pages", "wallets.api"),
        ("wallets/contract", "wallets.api"),
        ("wallets/ledger", "wallets.contract"),
        ("wallets/ledger", "wallets.access"),
    ],
)
def test_lower_packages_do_not_import_higher_ones(folder: str, forbidden: str) -> None:
    wrong = [
        f"{path}: {module}"
        for path, tree in modules(folder)
        for module, name in imports(tree)
        if f"{module}.{name}.".startswith(f"{forbidden}.")
    ]
    assert wrong == []


def test_each_class_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in modules(*PRODUCT):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name not in NAMED_BY_DJANGO:
                places[node.name].append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_wallet_lock_is_inside_the_transaction() -> None:
    """execute.py shows the lock directly below the transaction that it belongs to."""
    source = (ROOT / "wallets/ledger/execute.py").read_text().splitlines()
    atomic = next(number for number, line in enumerate(source) if "with transaction.atomic(" in line)
    lock = next(number for number, line in enumerate(source) if ".select_for_update(" in line)
    assert 0 < lock - atomic < 10

"""`make search-costs` checks the plans of all combinations of filters on a large ledger."""

import subprocess
import sys

import pytest

from loadtest.search_costs import Finding


@pytest.mark.slow
def test_no_combination_of_filters_scans_a_table() -> None:
    command = [sys.executable, "-m", "loadtest.search_costs", "--operations", "200000", "--plans"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" combinations of filters on 200,000 operations, 0 failed\n")


def test_sequential_scan_is_found_in_a_plan() -> None:
    plan = "Limit\n  ->  Seq Scan on operation\n        Filter: (amount > 1)\n  ->  Seq Scan on hold u0"
    assert Finding("/", 0.0, plan).scanned_tables == {"operation"}
    assert Finding("/", 0.0, "Index Scan using operation_pk on operation").scanned_tables == set()

"""The report of a campaign, as text and as figures."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.support.campaign.rounds import Result

MAX_SHOWN_VIOLATIONS = 20  # of a round


def of_round(result: Result) -> str:
    lines = [f"  {happened}" for happened in result.happened]
    lines.append(f"  {result.operations:,} operations, {result.events:,} events; {_listed(result.answers)}")
    if result.deaths:
        lines.append(f"  ended by themselves: {_listed(result.deaths)}")
    if result.violations:
        lines.append(f"  {len(result.violations)} VIOLATIONS, SEED={result.seed}, kept in {result.kept}:")
        lines += [f"    {violation}" for violation in result.violations[:MAX_SHOWN_VIOLATIONS]]
    return "\n".join(lines)


def figures(results: Sequence[Result]) -> dict[str, Any]:
    return {
        "seeds": [result.seed for result in results],
        "rounds": len(results),
        "faults": dict(Counter(sorted(each.name for result in results for each in result.happened))),
        "operations": sum(result.operations for result in results),
        "events": sum(result.events for result in results),
        "answers": dict(sum((result.answers for result in results), Counter[str]())),
        "ended by themselves": dict(sum((result.deaths for result in results), Counter[str]())),
        "violations": sum(len(result.violations) for result in results),
    }


def table(results: Sequence[Result]) -> str:
    rows = [
        (name, _listed(value) if isinstance(value, dict) else f"{value:,}")
        for name, value in figures(results).items()
        if name != "seeds"
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items())) or "none"

"""A dashboard's panels as one HTML page: what Prometheus answered, drawn without Grafana."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from local import LocalError

COLUMN, UNIT, GAP = 64, 27, 8  # pixels of Grafana's grid
COLOURS: Final = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#b877d9", "#5794f2", "#37872d")
TITLE: Final = "walletsvc: the dashboard's queries, drawn from Prometheus (this is not Grafana)"
STYLE: Final = """
    body { margin: 0; background: #111217; color: #ccccdc; font: 12px sans-serif; position: relative }
    h1 { font-size: 15px; margin: 0; padding: 12px 8px; height: 16px }
    section { position: absolute; background: #181b1f; border: 1px solid #2a2d33; box-sizing: border-box;
        padding: 6px 8px; overflow: hidden }
    h2 { font-size: 12px; margin: 0 0 4px; font-weight: 600 }
    .value { font-size: 26px; text-align: center; padding-top: 14px; color: #73bf69 }
    .value.bad { color: #f2495c }
    .legend { line-height: 14px; font-size: 10px; height: 42px; overflow: hidden }
    .legend i { display: inline-block; width: 10px; height: 3px; margin: 0 4px 2px 0 }
    .legend span { margin-right: 8px; white-space: nowrap }
    text { fill: #8e9099; font-size: 10px }
"""


@dataclass(frozen=True)
class Line:
    """One series: seconds since the beginning, and values."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    given: dict[str, Any]  # as the dashboard has it
    lines: list[Line]

    @property
    def defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = self.given["fieldConfig"]["defaults"]
        return defaults


def chromium() -> list[str]:
    """The command that takes a picture of a page."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise LocalError("there is no Chromium: apt-get install chromium")
    size = f"--window-size={24 * COLUMN},{40 + 44 * UNIT}"
    return [found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]


def page(panels: Sequence[Panel]) -> str:
    return (
        f"<!doctype html><meta charset=utf-8><title>{TITLE}</title><style>{STYLE}</style>"
        f"<h1>{TITLE}</h1>{''.join(map(section, panels))}"
    )


def section(panel: Panel) -> str:
    at = panel.given["gridPos"]
    width, height = at["w"] * COLUMN - GAP, at["h"] * UNIT - GAP
    place = (
        f"left:{at['x'] * COLUMN + GAP // 2}px;top:{40 + at['y'] * UNIT}px;width:{width}px;height:{height}px"
    )
    inside = (stat if panel.given["type"] == "stat" else chart)(panel, width - 18, height - 80)
    return f'<section style="{place}"><h2>{escape(panel.given["title"])}</h2>{inside}</section>'


def stat(panel: Panel, _width: int, _height: int) -> str:
    if not panel.lines or not panel.lines[0].points:
        return '<div class="value">–</div>'
    value = panel.lines[0].points[-1][1]
    mapped = {
        key: text["text"]
        for one in panel.defaults.get("mappings", [])
        for key, text in one["options"].items()
    }
    text = mapped.get(f"{value:.0f}") or in_unit(value, panel.defaults["unit"])
    steps = panel.defaults.get("thresholds", {}).get("steps", [])
    colours = [step["color"] for step in steps if step["value"] is None or step["value"] <= value]
    return f'<div class="value {"bad" if colours[-1:] == ["red"] else ""}">{text}</div>'


def chart(panel: Panel, width: int, height: int) -> str:
    lines = stacked(panel.lines) if is_stacked(panel) else panel.lines
    points = [point for line in lines for point in line.points]
    if not points:
        return "<p>nothing</p>"
    end = max(at for at, _ in points) or 1
    top = max([panel.defaults.get("max", 0), *(value for _, value in points)]) * 1.05 or 1
    left = 46
    paths = [
        " ".join(
            f"{left + at / end * (width - left):.1f},{height - value / top * height:.1f}"
            for at, value in line.points
        )
        for line in lines
    ]
    # The last first: of what is stacked, each then covers what those on top of it share with it.
    drawn = "".join(
        drawn_line(path, number, height, is_stacked(panel)) for number, path in reversed([*enumerate(paths)])
    )
    legend = "".join(
        f'<span><i style="background:{colour(number)}"></i>{escape(line.name)}</span>'
        for number, line in enumerate(panel.lines)
    )
    inside = axes(panel, width, height, top, end, left) + drawn
    return f'<svg width="{width}" height="{height + 16}">{inside}</svg><div class="legend">{legend}</div>'


def drawn_line(path: str, number: int, height: int, is_area: bool) -> str:
    line = f'<polyline points="{path}" fill="none" stroke="{colour(number)}" stroke-width="1.3"/>'
    if not is_area or not path:
        return line
    first, *_, last = [point.partition(",")[0] for point in [path, *path.split()]]
    area = f'<polygon points="{first},{height} {path} {last},{height}"'
    under = f'{area} fill="#181b1f"/>{area} fill="{colour(number)}" opacity="0.3"/>'
    return under + line


def axes(panel: Panel, width: int, height: int, top: float, end: float, left: int) -> str:  # noqa: PLR0913, PLR0917
    across = "".join(
        f'<line x1="{left}" x2="{width}" y1="{height * part:.1f}" y2="{height * part:.1f}" stroke="#2a2d33"/>'
        f'<text x="{left - 4}" y="{height * part + 4:.1f}" text-anchor="end">'
        f"{in_unit(top * (1 - part), panel.defaults['unit'])}</text>"
        for part in (0.05, 0.35, 0.65, 1)
    )
    below = "".join(
        f'<text x="{left + (width - left) * part:.1f}" y="{height + 13}" text-anchor="middle">'
        f"{end * part:.0f} s</text>"
        for part in (0.25, 0.5, 0.75)
    )
    return across + below


def is_stacked(panel: Panel) -> bool:
    return bool(panel.defaults["custom"]["stacking"]["mode"] == "normal")


def stacked(lines: Sequence[Line]) -> list[Line]:
    """Each on top of those before it."""
    sums: dict[float, float] = {}
    on_top = []
    for line in lines:
        own = dict(line.points)
        times = sorted({*own, *sums})
        sums = {at: sums.get(at, 0) + own.get(at, 0) for at in times}
        on_top.append(Line(line.name, list(sums.items())))
    return on_top


def colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def in_unit(value: float, unit: str) -> str:
    match unit:
        case "s" if 0 < value < 1:
            return f"{value * 1000:.3g} ms"
        case "s":
            return f"{value:.3g} s"
        case "percentunit":
            return f"{value * 100:.3g} %"
        case _:
            return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"  # noqa: PLR2004

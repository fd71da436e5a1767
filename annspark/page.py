"""The page: report.html, one file that needs nothing else, and the same in a notebook.

Jinja2 writes the HTML and matplotlib the charts, both of the extra `report`; nothing else in annspark needs them.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from annspark.core.calibrate import Calibration
from annspark.core.recall import Band, Recall
from annspark.report import Report, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By their names in the page's CSS, which gives them other values in the dark; these are the values in the light.
_COLORS = {
    "ink": "#1b1f24",
    "soft": "#57606a",
    "line": "#d0d7de",
    "blue": "#0a62ae",
    "orange": "#a84b00",
    "bad": "#c02717",
}
_INK, _SOFT, _LINE, _BLUE, _ORANGE, _BAD = _COLORS.values()
_WIDTH = 340  # of a chart, in CSS pixels: a phone shows it unscaled
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "lines.linewidth": 1.8,
}
_TICKS = (0, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1)  # of recall, where misses halve
_FEWER_TICKS = (0, 0.5, 0.9, 0.99, 0.999, 1)
_HIGHEST = 0.9999  # a recall of 1 stands here then
_NIGHTS = 120  # drawn at most
_LISTED = 10  # of them in the table


@dataclass(frozen=True)
class _Night:
    """What the trend shows of a run; numbers its report lacks are NaN."""

    when: datetime
    mean: float
    low: float
    high: float
    rows: float
    seconds: float
    missed: bool
    version: str


def can_render() -> bool:
    """Say whether the libraries that draw the page are installed (the extra `report`)."""
    return all(find_spec(name) for name in ("jinja2", "matplotlib"))


def render_page(report: Report, earlier: list[dict[str, Any]]) -> str:
    """Return report.html's text.

    earlier : what earlier runs' report.json held, oldest first; what cannot be read of them is skipped
    """
    return _render(report, earlier, whole=True)


def render_fragment(report: Report) -> str:
    """Return the page's content without html and head, for a notebook; its styles reach nothing outside it."""
    return _render(report, [], whole=False)


def _render(report: Report, earlier: list[dict[str, Any]], whole: bool) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {
        "recall": _recall,
        "count": _count,
        "seconds": _seconds,
        "bytes": _bytes,
        "band": _band,
        "when": _when,
    }
    this = json.loads(report.as_json())
    nights = _nights([*earlier, this])
    template = environment.from_string(files("annspark").joinpath("page.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        report=report,
        versions={"annspark": report.version} | report.versions,
        whole=whole,
        verdict=_verdict(report),
        charts=_charts(report, nights),
        nights=nights,
        listed=nights[: -_LISTED - 1 : -1],
        changes=_changes(this, earlier),
        colors=_COLORS,
    )
    # Arguments that are no UTF-8 come as lone surrogates, which no file takes.
    return page.encode("utf-8", "replace").decode("utf-8")


def _verdict(report: Report) -> str:
    if report.calibration is None:
        return f"Measured recall: {_recall(report.recall.mean)}"
    away = report.recall.mean - report.calibration.target
    if not report.passed:
        return f"MISSED by {_recall(-away)}: recall is {_recall(report.recall.mean)}"
    if away < 0:
        return f"Passed: recall is {_recall(-away)} below the target, which its interval reaches"
    return f"Passed: recall is {_recall(away)} above the target"


# Earlier runs


def _nights(reports: Iterable[Any]) -> list[_Night]:
    """Return what can be read of reports, oldest first; a report without a date is left out."""
    nights = []
    for report in reports:
        when = _date(_at(report, "created"))
        if when is None:
            continue
        night = _Night(
            when,
            mean=_number(_at(report, "recall", "mean")),
            low=_number(_at(report, "recall", "low")),
            high=_number(_at(report, "recall", "high")),
            rows=_number(_at(report, "rows", "written")),
            seconds=_number(_at(report, "seconds", "total")),
            missed=_at(report, "passed") is False,
            version=str(_at(report, "version") or ""),
        )
        if any(map(math.isfinite, (night.mean, night.rows, night.seconds))):
            nights.append(night)
    return sorted(nights, key=lambda night: night.when)[-_NIGHTS:]


def _changes(this: dict[str, Any], earlier: Sequence[Any]) -> list[tuple[str, Any, Any]]:
    """Return name, value before and value now of the versions and settings that differ from the last report's."""
    now, before = _asked(this), _asked(earlier[-1] if earlier else None)
    return [(name, before[name], value) for name, value in now.items() if name in before and before[name] != value]


def _asked(report: Any) -> dict[str, Any]:
    """Return a report's versions and settings in one."""
    parts = [_at(report, "versions"), _at(report, "settings")]
    version = _at(report, "version")
    asked = {} if version is None else {"annspark": version}
    return asked | {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


def _at(value: Any, *path: str) -> Any:
    """Return what lies at a path of keys, None where nothing does."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float:
    """Return a number as a float, NaN for anything else and for what no chart could hold."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
    return float(value) if known else math.nan


def _date(value: Any) -> datetime | None:
    try:
        when = datetime.fromisoformat(value)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


# Numbers as text


def _recall(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _count(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "-"
    return f"{value:,.0f}"


def _unit(seconds: float) -> tuple[int, str]:
    """Return the seconds in the unit of time that so many are told in, and its name."""
    return (1, " s") if seconds < 100 else (60, " min") if seconds < 6_000 else (3_600, " h")


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    divisor, unit = _unit(value)
    return f"{value / divisor:,.1f}{unit}"


def _bytes(value: float) -> str:
    power = min(max(len(f"{value:.0f}") - 1, 0) // 3, 6)
    return f"{value / 1000**power:,.{1 if power else 0}f} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[power]}"


def _short(value: float) -> str:
    """Return a number for an axis: 1200000 is 1.2M."""
    power = min(max(len(f"{abs(value):.0f}") - 1, 0) // 3, 4)
    return f"{value / 1000**power:g}{' kMGT'[power].strip()}"


def _band(band: Band) -> str:
    if band.last is None:
        return f"{band.first:,} or more"
    if band.last == 0:
        return "never"
    return f"{band.first:,}" if band.first == band.last else f"{band.first:,} to {band.last:,}"


def _when(value: Any) -> str:
    when = value if isinstance(value, datetime) else _date(value)
    return f"{when:%Y-%m-%d %H:%M} UTC" if when else str(value)


# Charts


def _charts(report: Report, nights: list[_Night]) -> dict[str, str]:
    """Return inline SVG by the name of the chart, for the charts there are data for."""
    import matplotlib.style

    recall, goal = report.recall, report.calibration
    steps = {name: value for name, value in report.seconds.items() if name != "total"}
    distances = [one for one in report.distances if all(map(math.isfinite, (one.p5, one.median, one.p95)))]
    # The salt makes ids that differ between charts and reports, and are the same whenever a report is drawn.
    salt = sha256(report.as_json().encode()).hexdigest()
    charts = {}

    def add(name: str, figure: "Figure", label: str) -> None:
        with matplotlib.rc_context({"svg.hashsalt": salt + name}):
            charts[name] = _svg(figure, label)

    # From matplotlib's defaults, so that a notebook's own style does not change the page.
    with matplotlib.style.context(["default", _STYLE]):
        if recall.bands:
            label = "; ".join(
                f"{_band(band)}: {_recall(band.mean)}, {_count(band.users)} users" for band in recall.bands
            )
            add("bands", _draw_bands(recall), f"Recall by how often a user is somebody's neighbor. {label}")
        if goal:
            label = f"asked {goal.target:g}, predicted {_recall(goal.predicted)}, measured {_recall(recall.mean)}"
            add("curve", _draw_curve(goal, recall), f"Recall against probes: {label}")
        if steps:
            label = ", ".join(f"{name} {_seconds(value)}" for name, value in steps.items())
            add("steps", _draw_steps(steps), f"Time by step: {label}")
        if distances:
            first, last = distances[0], distances[-1]
            label = f"median {first.median:.4g} at rank {first.rank}, {last.median:.4g} at rank {last.rank}"
            add("distances", _draw_distances(distances), f"Distances by rank: {label}")
        target = goal.target if goal else None
        for name, label in (("mean", "Recall"), ("rows", "Users written"), ("seconds", "Total time")):
            shown = [night for night in nights if math.isfinite(getattr(night, name))]
            if len(shown) > 1:
                add(f"trend_{name}", _draw_trend(shown, name, target), f"{label} of the last {len(shown)} runs")
    return charts


def _svg(figure: "Figure", label: str) -> str:
    """Return a figure as an svg element to stand in HTML: sized and colored by the page's CSS, nothing global in it."""
    from markupsafe import Markup, escape

    stream = StringIO()
    nothing = dict.fromkeys(("Type", "Format", "Creator", "Date"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r"<!--.*?-->|<style.*?</style>|(?<=<g) id=\"[^\"]*\"", "", stream.getvalue(), flags=re.DOTALL)
    for name, color in _COLORS.items():
        svg = svg.replace(color, f"var(--{name}, {color})")
    box, drawing = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)', svg, re.DOTALL).groups()  # type: ignore[union-attr]
    drawing = drawing.replace("xlink:href", "href")
    return Markup(f'<svg {box} role="img" aria-label="{escape(label)}">{drawing.rstrip()}')


def _figure(height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH / 72, height / 72), dpi=72, layout="constrained")


def _draw_bands(recall: Recall) -> "Figure":
    bands = recall.bands
    figure = _figure(64 + 27 * len(bands))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = range(len(bands))
    left.axvline(recall.mean, color=_SOFT, linestyle=(0, (4, 3)), linewidth=1)
    left.hlines(places, [band.low for band in bands], [band.high for band in bands], color=_BLUE)
    left.plot([band.mean for band in bands], places, "o", color=_BLUE, markersize=6)
    left.set(yticks=places, yticklabels=[_band(band) for band in bands], ylim=(len(bands) - 0.5, -0.5), title="recall")
    _frame_recall(left, "x")
    bars = right.barh(places, [band.users for band in bands], height=0.55, color=_BLUE, alpha=0.5)
    right.bar_label(bars, [_count(band.users) for band in bands], padding=3)
    right.set(title="users", xticks=[])
    right.margins(x=0.6)
    for panel in (left, right):
        panel.tick_params(axis="y", length=0)
    right.spines[["bottom"]].set_visible(False)
    return figure


def _draw_curve(goal: Calibration, recall: Recall) -> "Figure":
    figure = _figure(300)
    panel = figure.subplots()
    probes, curve = [one.probes for one in goal.curve], goal.curve
    low, high = [_scale(one.low) for one in curve], [_scale(one.high) for one in curve]
    if curve:
        panel.fill_between(probes, low, high, color=_BLUE, alpha=0.22, linewidth=0)
        panel.plot(probes, [_scale(one.mean) for one in curve], color=_BLUE, label="predicted")
    panel.axhline(_scale(goal.target), color=_ORANGE, linestyle=(0, (4, 3)), linewidth=1.4, label="asked")
    panel.axvline(goal.probes, color=_SOFT, linewidth=0.8, linestyle=":")
    panel.plot(goal.probes, _scale(goal.predicted), "o", color=_BLUE, markersize=11, fillstyle="none", label="chosen")
    interval = [_scale(recall.low), _scale(recall.high)]
    panel.plot([goal.probes] * 2, interval, "_-", color=_INK, linewidth=1.4, markersize=9, markeredgewidth=1.4)
    panel.plot(goal.probes, _scale(recall.mean), "D", color=_INK, markersize=4, label="measured")
    _scale_probes(panel, [*probes, goal.probes])
    below, above = panel.get_ylim()
    spare = max(0.0, 0.8 - (above - below)) / 2  # room for two ticks at least
    panel.set_ylim(below - spare, above + spare)
    ticks = [tick for tick in _TICKS if below - spare <= _scale(tick) <= above + spare]
    if len(ticks) > 9:
        ticks = [tick for tick in ticks if tick in _FEWER_TICKS]
    panel.set_yticks([_scale(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    panel.set(xlabel="probes", title="recall")
    panel.grid(axis="y")
    figure.legend(loc="outside lower left", ncols=4, columnspacing=1.2, handlelength=1.3, handletextpad=0.5)
    return figure


def _scale(recall: float) -> float:
    """Return the place of a recall: each halving of the misses takes as much room as the one before."""
    return -math.log10(1 - min(recall, _HIGHEST))


def _scale_probes(panel: "Axes", probes: list[float]) -> None:
    """Give each doubling of the probes the same room, when there are doublings."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    if min(probes) > 0 and max(probes) >= 4 * min(probes):
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
    elif min(probes) == max(probes):
        panel.set_xticks(probes[:1], [f"{probes[0]:g}"])


def _draw_steps(steps: dict[str, float]) -> "Figure":
    figure = _figure(16 + 25 * len(steps))
    panel = figure.subplots()
    bars = panel.barh(list(range(len(steps))), list(steps.values()), height=0.62, color=_BLUE)
    panel.bar_label(bars, [_seconds(value) for value in steps.values()], padding=4)
    panel.set(yticks=range(len(steps)), yticklabels=list(steps), xticks=[], ylim=(len(steps) - 0.5, -0.5))
    panel.set_xlim(0, 1.35 * max(steps.values()) or 1)  # with room for the labels
    panel.tick_params(axis="y", length=0)
    panel.spines[["bottom"]].set_visible(False)
    return figure


def _draw_distances(distances: list[Spread]) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure = _figure(230)
    panel = figure.subplots()
    ranks = [one.rank for one in distances]
    low, high = [one.p5 for one in distances], [one.p95 for one in distances]
    panel.fill_between(ranks, low, high, color=_BLUE, alpha=0.22, linewidth=0)
    if len(ranks) == 1:  # where a band has no width
        panel.vlines(ranks, low, high, color=_BLUE, alpha=0.4)
    panel.plot(ranks, [one.median for one in distances], "o-" if len(ranks) <= 20 else "-", color=_BLUE, markersize=4)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    panel.set(xlabel="rank", title="distance")
    panel.grid(axis="y")
    return figure


def _draw_trend(nights: list[_Night], name: str, target: float | None) -> "Figure":
    """Draw one number of every night over time; recall with its interval, the target asked for today, and misses."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = _figure(170)
    panel = figure.subplots()
    days = [night.when.timestamp() / 86_400 for night in nights]
    values = [getattr(night, name) for night in nights]
    divisor, unit = _unit(max(values)) if name == "seconds" else (1, "")
    values = [value / divisor for value in values]
    size, thickness = (5, 1.8) if len(nights) <= 40 else (3, 0.8)
    panel.plot(days, values, "o-", color=_BLUE, markersize=size, linewidth=1.4)
    panel.yaxis.set_major_locator(MaxNLocator(4))
    if name == "mean":
        known = [(day, n.low, n.high) for day, n in zip(days, nights, strict=True) if math.isfinite(n.low + n.high)]
        if known:
            panel.vlines(*zip(*known, strict=True), color=_BLUE, linewidth=thickness)
        if target is not None:
            panel.axhline(target, color=_ORANGE, linestyle=(0, (4, 3)), linewidth=1.4)
        missed = [(day, night.mean) for day, night in zip(days, nights, strict=True) if night.missed]
        if missed:
            panel.plot(*zip(*missed, strict=True), "X", color=_BAD, markersize=9)
        _frame_recall(panel, "y")
    else:
        panel.set_ylim(0, max(values) * 1.12 or 1)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{_short(value)}{unit}"))
    ends = [min(days), max(days)]
    form = "%H:%M:%S" if nights[0].when.date() == nights[-1].when.date() else "%Y-%m-%d"
    if ends[0] < ends[1]:
        panel.set_xticks(ends, [format(night.when, form) for night in (nights[0], nights[-1])])
        first, last = panel.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
    else:
        panel.set_xticks(ends[:1], [format(nights[0].when, form)])
    panel.grid(axis="y")
    return figure


def _frame_recall(panel: "Axes", axis: Literal["x", "y"]) -> None:
    """Let an axis of recalls end at 0 and a hair over 1, and span 0.02 at least, so that noise does not look large."""
    low, high = panel.get_xlim() if axis == "x" else panel.get_ylim()
    spare = max(0.0, 0.02 - (high - low)) / 2
    panel.set(**{f"{axis}lim": (max(-0.004, low - spare), min(1.004, high + spare))})
    panel.grid(axis=axis)

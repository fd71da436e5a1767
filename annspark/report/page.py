"""The page: report.html, which is one file and loads no other, and the same content for a notebook.

A page is drawn from what report.json holds, as json.loads returns it; no record is needed. Jinja2 writes the HTML.
Matplotlib draws the charts. The extra `report` installs both, and only this module uses them.
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# These are the colors of the light page by their names in the CSS. The CSS gives them other values for the dark page.
_COLORS = {
    "ink": "#1b1f24",
    "soft": "#57606a",
    "line": "#d0d7de",
    "blue": "#0a62ae",
    "orange": "#a84b00",
    "bad": "#c02717",
}
_INK, _SOFT, _LINE, _BLUE, _ORANGE, _BAD = _COLORS.values()
_WIDTH = 340  # CSS pixels of a chart; a phone shows it unscaled
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
# From one tick of recall to the next the misses fall by about half.
_TICKS = (0, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1)
_FEWER_TICKS = (0, 0.5, 0.9, 0.99, 0.999, 1)
_HIGHEST = 0.9999  # a recall of 1 is drawn here
_NIGHTS = 120  # runs in the trend, at most
_LISTED = 10  # runs in its table, at most


@dataclass(frozen=True)
class _Night:
    """What the trend shows of a run; a number that its report lacks is NaN."""

    when: datetime
    mean: float
    low: float
    high: float
    rows: float
    seconds: float
    missed: bool
    version: str


def can_render() -> bool:
    """Say whether the libraries of the extra `report` are installed."""
    return all(find_spec(name) for name in ("jinja2", "matplotlib"))


def render_page(report: dict[str, Any], earlier: list[dict[str, Any]]) -> str:
    """Return the text of report.html.

    report  : what report.json holds
    earlier : what the report.json of earlier runs hold, oldest first; the page skips what it cannot read of them
    """
    return _render(report, earlier, whole=True)


def render_fragment(report: dict[str, Any]) -> str:
    """Return the content of the page for a notebook, without html and head; its styles change nothing outside it.

    report : what report.json holds
    """
    return _render(report, [], whole=False)


def _render(report: dict[str, Any], earlier: list[dict[str, Any]], whole: bool) -> str:
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
    nights = _nights([*earlier, report])
    template = environment.from_string(files("annspark.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        report=report,
        versions={"annspark": report["version"]} | report["versions"],
        whole=whole,
        verdict=_verdict(report),
        charts=_charts(report, nights),
        nights=nights,
        listed=nights[: -_LISTED - 1 : -1],
        changes=_changes(report, earlier),
        colors=_COLORS,
    )
    # An argument that is no UTF-8 holds lone surrogates. A file cannot hold them.
    return page.encode("utf-8", "replace").decode("utf-8")


def _verdict(report: dict[str, Any]) -> str:
    mean, goal = report["recall"]["mean"], report["calibration"]
    if goal is None:
        return f"Measured recall: {_recall(mean)}"
    away = mean - goal["target"]
    if not report["passed"]:
        return f"MISSED by {_recall(-away)}: recall is {_recall(mean)}"
    if away < 0:
        return f"Passed: recall is {_recall(-away)} below the target, which its interval reaches"
    return f"Passed: recall is {_recall(away)} above the target"


# Earlier runs


def _nights(reports: Iterable[Any]) -> list[_Night]:
    """Return the runs of reports, oldest first, without those that have no date or no number to draw."""
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
    """Return name, value before and value now of each version and setting that differs from the last report."""
    now, before = _asked(this), _asked(earlier[-1] if earlier else None)
    return [(name, before[name], value) for name, value in now.items() if name in before and before[name] != value]


def _asked(report: Any) -> dict[str, Any]:
    """Return the versions and settings of a report in one dict."""
    parts = [_at(report, "versions"), _at(report, "settings")]
    version = _at(report, "version")
    asked = {} if version is None else {"annspark": version}
    return asked | {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


def _at(value: Any, *path: str) -> Any:
    """Return the value at a path of keys; None where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float:
    """Return a number as a float; NaN for anything else and for a number that no chart could show."""
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
    """Return how many seconds the unit has in which to show so many seconds, and the name of the unit."""
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


def _band(band: dict[str, Any]) -> str:
    first, last = band["first"], band["last"]
    if last is None:
        return f"{first:,} or more"
    if last == 0:
        return "never"
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _when(value: Any) -> str:
    when = value if isinstance(value, datetime) else _date(value)
    return f"{when:%Y-%m-%d %H:%M} UTC" if when else str(value)


# Charts


def _charts(report: dict[str, Any], nights: list[_Night]) -> dict[str, str]:
    """Return each chart that has data as inline SVG, by its name."""
    import matplotlib.style

    recall, goal = report["recall"], report["calibration"]
    steps = {name: value for name, value in report["seconds"].items() if name != "total"}
    distances = [
        one for one in report["distances"] if all(math.isfinite(one[name]) for name in ("p5", "median", "p95"))
    ]
    # Matplotlib makes ids from the salt. They differ between charts and reports. The same report gives the same ids.
    salt = sha256((json.dumps(report, indent=2) + "\n").encode()).hexdigest()
    charts = {}

    def add(name: str, figure: "Figure", label: str) -> None:
        with matplotlib.rc_context({"svg.hashsalt": salt + name}):
            charts[name] = _svg(figure, label)

    # The style starts from matplotlib's defaults. A style that a notebook sets does not change the page.
    with matplotlib.style.context(["default", _STYLE]):
        if recall["bands"]:
            label = "; ".join(
                f"{_band(band)}: {_recall(band['mean'])}, {_count(band['users'])} users" for band in recall["bands"]
            )
            add("bands", _draw_bands(recall), f"Recall by how often a user is somebody's neighbor. {label}")
        if goal:
            label = f"asked {goal['target']:g}, predicted {_recall(goal['predicted'])}"
            label += f", measured {_recall(recall['mean'])}"
            add("curve", _draw_curve(goal, recall), f"Recall against probes: {label}")
        if steps:
            label = ", ".join(f"{name} {_seconds(value)}" for name, value in steps.items())
            add("steps", _draw_steps(steps), f"Time by step: {label}")
        if distances:
            first, last = distances[0], distances[-1]
            label = f"median {first['median']:.4g} at rank {first['rank']}, "
            label += f"{last['median']:.4g} at rank {last['rank']}"
            add("distances", _draw_distances(distances), f"Distances by rank: {label}")
        target = goal["target"] if goal else None
        for name, label in (("mean", "Recall"), ("rows", "Users written"), ("seconds", "Total time")):
            shown = [night for night in nights if math.isfinite(getattr(night, name))]
            if len(shown) > 1:
                add(f"trend_{name}", _draw_trend(shown, name, target), f"{label} of the last {len(shown)} runs")
    return charts


def _svg(figure: "Figure", label: str) -> str:
    """Return a figure as an svg element for HTML; the CSS of the page sets its size and colors."""
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


def _draw_bands(recall: dict[str, Any]) -> "Figure":
    bands = recall["bands"]
    figure = _figure(64 + 27 * len(bands))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = range(len(bands))
    left.axvline(recall["mean"], color=_SOFT, linestyle=(0, (4, 3)), linewidth=1)
    left.hlines(places, _each(bands, "low"), _each(bands, "high"), color=_BLUE)
    left.plot(_each(bands, "mean"), places, "o", color=_BLUE, markersize=6)
    left.set(yticks=places, yticklabels=[_band(band) for band in bands], ylim=(len(bands) - 0.5, -0.5), title="recall")
    _frame_recall(left, "x")
    bars = right.barh(places, _each(bands, "users"), height=0.55, color=_BLUE, alpha=0.5)
    right.bar_label(bars, [_count(users) for users in _each(bands, "users")], padding=3)
    right.set(title="users", xticks=[])
    right.margins(x=0.6)
    for panel in (left, right):
        panel.tick_params(axis="y", length=0)
    right.spines[["bottom"]].set_visible(False)
    return figure


def _draw_curve(goal: dict[str, Any], recall: dict[str, Any]) -> "Figure":
    figure = _figure(300)
    panel = figure.subplots()
    curve, chosen = goal["curve"], goal["probes"]
    probes, low, mean, high = (_each(curve, name) for name in ("probes", "low", "mean", "high"))
    if curve:
        panel.fill_between(probes, _scale_all(low), _scale_all(high), color=_BLUE, alpha=0.22, linewidth=0)
        panel.plot(probes, _scale_all(mean), color=_BLUE, label="predicted")
    panel.axhline(_scale(goal["target"]), color=_ORANGE, linestyle=(0, (4, 3)), linewidth=1.4, label="asked")
    panel.axvline(chosen, color=_SOFT, linewidth=0.8, linestyle=":")
    panel.plot(chosen, _scale(goal["predicted"]), "o", color=_BLUE, markersize=11, fillstyle="none", label="chosen")
    interval = _scale_all([recall["low"], recall["high"]])
    panel.plot([chosen] * 2, interval, "_-", color=_INK, linewidth=1.4, markersize=9, markeredgewidth=1.4)
    panel.plot(chosen, _scale(recall["mean"]), "D", color=_INK, markersize=4, label="measured")
    _scale_probes(panel, [*probes, chosen])
    below, above = panel.get_ylim()
    spare = max(0.0, 0.8 - (above - below)) / 2  # leaves room for two ticks at least
    panel.set_ylim(below - spare, above + spare)
    ticks = [tick for tick in _TICKS if below - spare <= _scale(tick) <= above + spare]
    if len(ticks) > 9:
        ticks = [tick for tick in ticks if tick in _FEWER_TICKS]
    panel.set_yticks(_scale_all(ticks), [f"{tick:g}" for tick in ticks])
    panel.set(xlabel="probes", title="recall")
    panel.grid(axis="y")
    figure.legend(loc="outside lower left", ncols=4, columnspacing=1.2, handlelength=1.3, handletextpad=0.5)
    return figure


def _scale(recall: float) -> float:
    """Return where a recall is drawn; each halving of the misses takes the same room."""
    return -math.log10(1 - min(recall, _HIGHEST))


def _scale_all(recalls: Iterable[float]) -> list[float]:
    return [_scale(recall) for recall in recalls]


def _each(parts: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """Return the value of one name in each part."""
    return [part[name] for part in parts]


def _scale_probes(panel: "Axes", probes: list[float]) -> None:
    """Give each doubling of the probes the same room where the probes span two doublings."""
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
    panel.set_xlim(0, 1.35 * max(steps.values()) or 1)  # leaves room for the labels
    panel.tick_params(axis="y", length=0)
    panel.spines[["bottom"]].set_visible(False)
    return figure


def _draw_distances(distances: list[dict[str, Any]]) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure = _figure(230)
    panel = figure.subplots()
    ranks, low, median, high = (_each(distances, name) for name in ("rank", "p5", "median", "p95"))
    panel.fill_between(ranks, low, high, color=_BLUE, alpha=0.22, linewidth=0)
    if len(ranks) == 1:  # A band of one rank has no width.
        panel.vlines(ranks, low, high, color=_BLUE, alpha=0.4)
    panel.plot(ranks, median, "o-" if len(ranks) <= 20 else "-", color=_BLUE, markersize=4)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    panel.set(xlabel="rank", title="distance")
    panel.grid(axis="y")
    return figure


def _draw_trend(nights: list[_Night], name: str, target: float | None) -> "Figure":
    """Draw one number of each run over time; a recall also has its interval, the target of this run and the misses."""
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
    """Keep an axis of recalls between 0 and 1; let it span 0.02 at least, as noise would look large on less."""
    low, high = panel.get_xlim() if axis == "x" else panel.get_ylim()
    spare = max(0.0, 0.02 - (high - low)) / 2
    panel.set(**{f"{axis}lim": (max(-0.004, low - spare), min(1.004, high + spare))})
    panel.grid(axis=axis)

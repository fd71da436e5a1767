"""results.png: recall against seconds, a panel per set, a curve per system."""

import math
from pathlib import Path

from jobs.benchmark.runs import Run
from jobs.benchmark.summary import rows_of
from jobs.benchmark.systems import SYSTEMS

# Okabe and Ito's colors, told apart by most who see colors differently; the markers tell what is left.
COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#8C6D1F", "#7F7F7F")
MARKERS = "osD^vPX<>ph"
TICKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1)
LOWEST, HIGHEST = 0.4, 0.9996


def plot(folder: Path, runs: list[Run]) -> None:
    """Plot the medians of all runs that finished."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    sets = list(dict.fromkeys(run.set for run in runs))
    across = min(math.ceil(len(sets) ** 0.5), 3)
    down = math.ceil(len(sets) / across)
    columns = 3 * across
    width, legend = 5.5 * across, 0.2 + 0.25 * math.ceil(len(SYSTEMS) / columns)
    height = 4.2 * down + legend
    figure, panels = plt.subplots(down, across, figsize=(width, height), squeeze=False)
    shown = {}
    for panel, data in zip(panels.flat, sets, strict=False):
        for number, system in enumerate(SYSTEMS):
            rows = sorted(rows_of(runs, data, system), key=lambda row: row.recall)
            rows = [row for row in rows if row.recall >= LOWEST]
            if not rows:
                continue
            bold = system == "annspark"
            (shown[system],) = panel.plot(
                [_scale(row.recall) for row in rows],
                [row.seconds for row in rows],
                color=COLORS[number % len(COLORS)],
                marker=MARKERS[number],
                linewidth=3.2 if bold else 1.4,
                markersize=7 if bold else 5,
                linestyle="-" if number < len(COLORS) else "--",
                zorder=3 if bold else 2,
                label=system,
            )
        panel.set(title=data, xlabel="recall@10", yscale="log", xlim=(_scale(LOWEST), _scale(HIGHEST) + 0.1))
        low, high = panel.get_ylim()
        widen = max(1, 2 * (low / high) ** 0.5)  # at least a factor of four, so that noise does not look like a slope
        panel.set_ylim(low / widen, high * widen)
        panel.set_xticks([_scale(tick) for tick in TICKS], [f"{tick:g}" for tick in TICKS], fontsize=8)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(which="both", linewidth=0.3)
    for panel in panels[:, 0]:
        panel.set_ylabel("seconds, fresh process to finished table")
    for panel in panels.flat[len(sets) :]:
        panel.set_visible(False)
    figure.legend(shown.values(), shown.keys(), loc="lower center", ncols=columns, frameon=False)
    figure.tight_layout(rect=(0, legend / height, 1, 1))
    figure.savefig(folder / "results.png", dpi=150)
    plt.close(figure)


def _scale(recall: float) -> float:
    """Return the place of a recall: each tenth of the misses left takes as much room as the one before."""
    return -math.log10(1 - min(recall, HIGHEST))

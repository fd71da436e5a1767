"""Advice: the settings that would reach a recall that was missed, or is predicted to be."""

import math

from annspark.core.calibrate import MOST_PROBES, suggest_settings
from annspark.flow.audit import Audit
from annspark.index import Index
from annspark.settings import MOST_LEAF_ROWS


def advise(index: Index, measured: float | None) -> str:
    """Return a sentence that names settings with which the recall would be reached, as far as calibration can tell.

    measured : recall of the audit; None before there is one
    """
    if index.calibration is None or index.home_distances is None:
        return ""
    chosen, sample = (index.calibration, len(index.plan.reach)), index.known.samples.routed.vectors
    found = suggest_settings(index.grown, sample, index.home_distances, chosen, measured)
    if found and index.grown.gains_by_trees:  # where probes are set, trees do not follow from the recall
        advice = f"Set probes to {found[0]:g} and trees to {found[1]}"
    elif found:
        advice = f"Set probes to {found[0]:g}"
    elif not index.grown.gains_by_trees and max(index.grown.sizes) > MOST_PROBES:
        advice = f"Set trees to {2 * len(index.plan.reach)}"
    elif (rows := index.known.users.rows) <= MOST_LEAF_ROWS:
        advice = f"More probes or trees would not do. Set leaf_rows to {rows} (one leaf, which is exact, if slow)"
    else:
        return "More probes or trees would not do. Ask for less."
    return f"{advice}, or ask for less."


def advise_on_rounding(audited: Audit, index: Index) -> str:
    """Return what to do where the recall was missed only because of rounding in float32; "" otherwise."""
    recall, lost = audited.recall.mean, audited.precision.recall_lost
    if index.calibration is None or recall + lost < index.calibration.target:
        return ""
    return (
        f"Rounding took {lost:.4f} of it: other neighbors than the exact ones are as near as float32 can tell, which "
        f"neither probes nor leaf_rows change. Set recall to {math.floor(100 * recall) / 100:g}, or leave out all but "
        "one of vectors that are nearly the same."
    )

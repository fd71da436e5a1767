"""Advice: the settings that would reach a recall that was missed, or is predicted to be."""

import math

from annspark.core.calibrate import MOST_PROBES, suggest_settings
from annspark.flow.audit import Audit
from annspark.settings import MOST_LEAF_ROWS
from annspark.tuned import Tuned


def advise(tuned: Tuned, measured: float | None) -> str:
    """Return a sentence that names settings with which the recall would be reached, as far as calibration can tell.

    measured : recall of the audit; None before there is one
    """
    if tuned.calibration is None or tuned.home_distances is None:
        return ""
    chosen, sample = (tuned.calibration, len(tuned.plan.reach)), tuned.known.samples.routed.vectors
    found = suggest_settings(tuned.grown, sample, tuned.home_distances, chosen, measured)
    if found and tuned.grown.gains_by_trees:  # where probes are set, trees do not follow from the recall
        advice = f"Set probes to {found[0]:g} and trees to {found[1]}"
    elif found:
        advice = f"Set probes to {found[0]:g}"
    elif not tuned.grown.gains_by_trees and max(tuned.grown.sizes) > MOST_PROBES:
        advice = f"Set trees to {2 * len(tuned.plan.reach)}"
    elif (rows := tuned.known.users.rows) <= MOST_LEAF_ROWS:
        advice = f"More probes or trees would not do. Set leaf_rows to {rows} (one leaf, which is exact, if slow)"
    else:
        return "More probes or trees would not do. Ask for less."
    return f"{advice}, or ask for less."


def advise_queries(tuned: Tuned, measured: float | None) -> str:
    """Return a sentence that names settings with which queries would reach the recall, as advise does for a build."""
    if tuned.calibration is None or tuned.home_distances is None:
        return ""
    chosen, sample = (tuned.calibration, len(tuned.plan.reach)), tuned.known.samples.routed.vectors
    found = suggest_settings(tuned.forest, sample, tuned.home_distances, chosen, measured)
    if found:
        return f"Set probes to {found[0]:g}, or ask for less."
    if (rows := tuned.known.users.rows) <= MOST_LEAF_ROWS:
        return (
            f"More probes would not do. Index with leaf_rows {rows} (one leaf, which is exact, if slow), or ask for "
            "less."
        )
    return "More probes would not do. Ask for less."


def advise_on_rounding(audited: Audit, tuned: Tuned) -> str:
    """Return what to do where the recall was missed only because of rounding in float32; "" otherwise."""
    recall, lost = audited.recall.mean, audited.precision.recall_lost
    if tuned.calibration is None or recall + lost < tuned.calibration.target:
        return ""
    return (
        f"Rounding took {lost:.4f} of it: other neighbors than the exact ones are as near as float32 can tell, which "
        f"neither probes nor leaf_rows change. Set recall to {math.floor(100 * recall) / 100:g}, or leave out all but "
        "one of vectors that are nearly the same."
    )

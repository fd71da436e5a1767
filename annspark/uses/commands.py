"""Commands of the uses: their flags and what their help says."""

import argparse

from annspark.allowed import settings_in
from annspark.flags import add_debug, add_flag
from annspark.uses.jobs import JOBS

_SHAPES = (
    "The neighbors may be of `annspark build`, `annspark query` or another system: a row per user with an array "
    "`neighbors` of structs, or a row per neighbor, with neighbor_id and distance (or inner_product)."
)
# By command: a line for the list of commands, and what follows it in the help of the command.
_HELP = {
    "recommend": (
        "recommend what a user's neighbors took and the user did not",
        "Items that the neighbors of each user took and the user did not, the best first.",
    ),
    "duplicates": (
        "find groups of rows that are nearly the same",
        "Groups of rows within a distance of each other, and which row of each group to keep. Another cut-off needs no "
        "other table of neighbors.",
    ),
    "outliers": (
        "score how far each user is from the others",
        "A score for every user by the distances of its neighbors: the larger, the more alone.",
    ),
    "vote": (
        "label rows by their neighbors",
        "The class or number that the labeled neighbors of each row vote for, and how often that is right for rows "
        "that have a label.",
    ),
}


def add_uses(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add a command for every use."""
    for use, (job, settings) in JOBS.items():
        line, text = _HELP[use]
        command = commands.add_parser(
            use, help=line, description=f"{text} {_SHAPES}", argument_default=argparse.SUPPRESS
        )
        for name, setting in (settings_in(job) | settings_in(settings)).items():
            add_flag(command, name, setting)
        add_debug(command)

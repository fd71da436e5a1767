"""Stores: publish on an object store, by one put of the list of files that readers follow.

What was replaced stays until the next run publishes, for readers that are in the middle of it.
"""

import json
from contextlib import suppress

from annspark.errors import SettingsError
from annspark.listed import LIST, RUN, current, list_of, read_list, run_in
from annspark.output.outputs import Output, Pending, is_taken, taken
from annspark.spark import files
from annspark.spark.leftovers import OWNER, clean, this_owner
from annspark.spark.places import identity_of

_BEFORE = "replaced.json"  # in the folder of a run that has published: what was at the output before


def commit(pending: Pending) -> None:
    """Lead readers of the output to the pending files.

    Raises SettingsError when something is at the output that may not be replaced.  It stays, and so do the pending
    files.
    """
    output = pending.output
    if is_taken(pending.spark, output, identity_of(pending.spark, output.place)):
        raise _keep(pending)
    files.mark_published(pending.name)
    others = [name for name in files.own_names(output.place) if name != LIST]
    files.write_text(f"{output.aside}/{_BEFORE}", json.dumps({"list": read_list(output.place), "names": others}))
    text = list_of(pending.name)
    # From here on the folder is no left-over, even if this process ends between the two writes, or the second one is
    # done although it has failed.
    files.remove(f"{output.aside}/{OWNER}")
    try:
        files.write_text(f"{output.place}/{LIST}/0", text)
    except BaseException:
        if read_list(output.place) != text:
            _own(output)
            raise


def take_back(pending: Pending) -> None:
    """Undo the commit: readers are led to what was at the output before."""
    output = pending.output
    before = json.loads(files.read_text(f"{output.aside}/{_BEFORE}"))
    if before["list"]:
        files.write_text(f"{output.place}/{LIST}/0", before["list"])
    else:
        files.remove(f"{output.place}/{LIST}/0")
    _own(output)


def tidy(output: Output) -> None:
    """Delete what no reader needs any more: all runs that have published, but this one and the one before it."""
    with files.alone(output.place):
        names = files.names_in(output.place)
        run = run_in(read_list(output.place))
        if f"{output.place}/{run}" != output.aside:  # this run has not published
            return
        before = json.loads(files.read_text(f"{output.aside}/{_BEFORE}"))
        runs = {name for name in names if name.startswith(RUN)} - {run, run_in(before["list"])}
        for name in (*before["names"], *sorted(runs)):
            folder = f"{output.place}/{name}"
            if name not in runs or (files.exists(f"{folder}/{_BEFORE}") and not files.exists(f"{folder}/{OWNER}")):
                clean(folder)
        for folder in set(output.written) - {current(output.place)}:
            clean(folder)


def _own(output: Output) -> None:
    """Make the run's folder one that is deleted when the run ends."""
    files.write_text(f"{output.aside}/{OWNER}", json.dumps(this_owner()))


def _keep(pending: Pending) -> SettingsError:
    """Let the pending files stay, because their place is taken, and return the error that says so."""
    with suppress(OSError):
        files.remove(f"{pending.output.aside}/{OWNER}")
    return taken(
        pending.output, pending.name, "Read it there, or move away what is at the output, and run the job again."
    )

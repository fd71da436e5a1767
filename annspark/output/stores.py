"""Stores: publish on an object store, by one put of the list of files that readers follow.

What was replaced stays until the next run publishes, for readers that are in the middle of it.
"""

import json
import logging

from annspark.errors import SettingsError, reason_of
from annspark.listed import LIST, RUN, current, list_of, read_list, run_in
from annspark.output.outputs import Output, Pending, is_taken, kept_error
from annspark.spark import files
from annspark.spark.leftovers import OWNER, clean, this_owner
from annspark.spark.places import identity_of

logger = logging.getLogger("annspark")
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
    except OSError:
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
    """Delete what no reader needs any more: what all runs have published, but this one and the one before it.

    A failure is only logged, because the run has published.
    """
    try:
        with files.alone(output.place):
            for folder in _unneeded(output):
                clean(folder)
    except OSError as error:
        logger.warning("left over: files below %s could not be deleted (%s).", output.place, reason_of(error))


def _unneeded(output: Output) -> list[str]:
    published = current(output.place)
    if not published.startswith(f"{output.aside}/"):  # this run has not published, or another one has since
        return []
    before = json.loads(files.read_text(f"{output.aside}/{_BEFORE}"))
    needed = {output.aside, f"{output.place}/{run_in(before['list'])}"}
    runs = [f"{output.place}/{name}" for name in files.names_in(output.place) if name.startswith(RUN)]
    # Runs that have not published yet have an owner; those that were kept have not noted what was there before.
    done = [run for run in runs if files.exists(f"{run}/{_BEFORE}") and not files.exists(f"{run}/{OWNER}")]
    plain = [f"{output.place}/{name}" for name in before["names"]]
    return sorted((set(done) - needed) | set(plain) | (set(output.written) - {published}))


def _own(output: Output) -> None:
    """Make the run's folder one that is deleted when the run ends."""
    files.write_text(f"{output.aside}/{OWNER}", json.dumps(this_owner()))


def _keep(pending: Pending) -> SettingsError:
    """Let the pending files stay, because their place is taken, and return the error that says so."""
    files.remove(f"{pending.output.aside}/{OWNER}")
    return kept_error(pending.output, pending.name, "move away what is at the output, and run the job again.")

import json
import logging
import subprocess
import sys
from uuid import uuid4

import pytest

from annspark.output.publish import aside, check_output, commit, write_pending
from annspark.spark import files
from annspark.spark.leftovers import OWNER, is_dead, sweep, this_owner, working_in
from annspark.spark.staging import staging
from tests.helpers import files_in, tables_in


def ended():
    """Return the owner of a process that has ended."""
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return this_owner() | {"pid": int(done.stdout)}


def leave(folder, owner, *inside):
    """Make a folder as a run leaves it that ended before its time."""
    folder.mkdir(parents=True)
    if owner is not None:
        (folder / OWNER).write_text(json.dumps(owner))
    for name in inside:
        (folder / name).mkdir()
        (folder / name / "part-0.parquet").write_text(name)


def test_a_process_is_dead_alive_or_out_of_sight():
    here = this_owner()
    assert is_dead(here) is False
    assert is_dead(ended()) is True
    assert is_dead(here | {"started": "1"}) is True  # another process has its number by now
    assert is_dead(here | {"pid": 2**40}) in (True, None)
    for stranger in ({"host": "elsewhere"}, {"namespace": "pid:[1]"}, {"machine": "another"}, {"pid": "7"}):
        assert is_dead(ended() | stranger) is None
    for nonsense in (None, [], "7", {}, {"pid": 7}):
        assert is_dead(nonsense) is None


def test_what_ran_before_the_machine_was_started_is_dead_but_a_container_may_run_elsewhere(monkeypatch):
    here = this_owner() | {"machine": "m", "namespace": "pid:[4026531836]"}
    monkeypatch.setattr("annspark.spark.leftovers.this_owner", lambda: here)
    assert is_dead(here | {"boot": "before"}) is True
    here["namespace"] = "pid:[7]"
    assert is_dead(here | {"boot": "before"}) is None


def test_a_zombie_is_dead():
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.stdout.read()  # ends with the process, which has not been waited for
    process.stdout.close()
    owner = this_owner() | {"pid": process.pid, "started": "1"}
    assert is_dead(owner) is True
    process.wait()


def test_folders_of_dead_runs_go_and_others_are_named(spark, tmp_path, caplog):
    caplog.set_level(logging.INFO, "annspark")
    for name, owner in (("dead", ended()), ("alive", this_owner()), ("far", ended() | {"host": "x"}), ("old", None)):
        leave(tmp_path / f".out.pending-{name}", owner, "table")
        leave(tmp_path / "scratch" / f"annspark-{name}", owner, "0")
        leave(tmp_path / "scratch" / f"neighbors-{name}-0", None)
    leave(tmp_path / ".out2.pending-dead", ended(), "table")
    with aside(spark, check_output(spark, str(tmp_path / "out"), overwrite=False)):
        pass
    with staging(str(tmp_path / "scratch"), spark):
        pass
    left = [f".out.pending-{name}" for name in ("alive", "far", "old")]
    assert files_in(tmp_path) == [*left, ".out2.pending-dead", "scratch"]
    kept = [f"{begin}-{name}" for begin in ("annspark", "neighbors") for name in ("alive", "far", "old")]
    assert [name.removesuffix("-0") for name in files_in(tmp_path / "scratch")] == kept
    said = [line for line in caplog.messages if line.startswith("left over")]
    assert [line for line in said if "is deleted" in line and "dead" not in line] == []
    assert len(said) == 4
    assert all("far" in line and "old" in line and "alive" not in line for line in said if "by hand" in line)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_only_copy_of_last_nights_table_is_put_back(spark, tmp_path, caplog, overwrite):
    caplog.set_level(logging.INFO, "annspark")
    leave(tmp_path / ".out.pending-dead", ended(), "table", "replaced")
    try:
        check_output(spark, str(tmp_path / "out"), overwrite)
    except ValueError:
        assert not overwrite  # as it is there again
    assert files_in(tmp_path) == ["out"]
    assert (tmp_path / "out" / "part-0.parquet").read_text() == "replaced"
    assert "back in its place" in caplog.text


def test_what_was_moved_aside_goes_only_when_annspark_has_replaced_it(spark, tmp_path, caplog):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data.csv").write_text("somebody's")
    leave(tmp_path / ".out.pending-dead", ended(), "replaced")
    check_output(spark, str(tmp_path / "out"), overwrite=True)
    assert files_in(tmp_path) == [".out.pending-dead", "out"]
    assert "delete it by hand" in caplog.text
    files.mark_published(str(tmp_path / "out"))
    check_output(spark, str(tmp_path / "out"), overwrite=True)
    assert files_in(tmp_path) == ["out"]


def test_catalog_tables_of_dead_runs_go_and_the_only_copy_is_put_back(spark, monkeypatch):
    database = f"night_{uuid4().hex[:8]}"
    spark.sql(f"CREATE DATABASE {database}")
    spark.range(3).write.saveAsTable(f"{database}.out")
    output = check_output(spark, f"{database}.out", overwrite=True)
    with monkeypatch.context() as patched:
        patched.setattr("annspark.output.tables.this_owner", ended)
        patched.setattr("annspark.output.tables.drop", lambda *_: None)  # as when the process is killed
        with aside(spark, output):
            write_pending(spark.range(5), output)
    spark.sql(f"ALTER TABLE {database}.out RENAME TO {database}.{output.aside.split('.')[1]}_replaced")
    output = check_output(spark, f"{database}.out", overwrite=True)
    assert tables_in(spark, database) == ["out"]
    assert spark.table(f"{database}.out").count() == 3
    with aside(spark, output):
        pending = write_pending(spark.range(5), output)
        check_output(spark, f"{database}.out", overwrite=True)  # another run leaves it alone
        commit(pending)
    assert spark.table(f"{database}.out").count() == 5
    spark.sql(f"DROP DATABASE {database} CASCADE")


def test_what_tasks_make_anew_after_an_error_is_deleted_again(tmp_path, monkeypatch):
    folder, writes = tmp_path / "run", iter(range(3))

    def sleep(_):
        if next(writes, None) is not None:
            (folder / "_temporary").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr("annspark.spark.leftovers.time.sleep", sleep)
    with pytest.raises(RuntimeError), working_in(str(folder), "scratch", "run", None):
        raise RuntimeError("cancelled")
    assert files_in(tmp_path) == []
    folder.mkdir()
    sweep()
    assert files_in(tmp_path) == []

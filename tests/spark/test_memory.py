import resource
from types import SimpleNamespace

import pytest

from annspark.spark import memory

GB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of four cores with 32 GB free, no container and no limit of the process."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {64 * GB >> 10} kB\nMemAvailable: {32 * GB >> 10} kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "vmstat").write_text("oom_kill 3\n")
    monkeypatch.setattr(memory, "_VMSTAT", tmp_path / "vmstat")
    (tmp_path / "own").write_text("4:memory:/outside\n0::/slice/job\n")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    (tmp_path / "status").write_text(f"VmPeak:\t{GB >> 10} kB\nVmSize:\t{GB // 4 >> 10} kB\n")
    monkeypatch.setattr(memory, "_OWN_STATUS", tmp_path / "status")
    version = memory._Version("", tmp_path / "group", "max", "current", "events")
    monkeypatch.setattr(memory, "_VERSIONS", (version,))
    monkeypatch.setattr(memory.os, "cpu_count", lambda: 4)
    limits = SimpleNamespace(own=resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits.own, limits.own))

    def put(group="", **files):
        folder = tmp_path / "group" / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("stat", "memory.stat")).write_text(text)

    return SimpleNamespace(put=put, limits=limits)


def test_a_core_has_its_share_of_what_is_free(machine):
    assert memory.bytes_free_for_worker() == 8 * GB


def test_a_container_allows_less(machine):
    machine.put(max=str(12 * GB), current=str(6 * GB), stat=f"anon 1\ninactive_file {2 * GB}\n")
    assert memory.bytes_free_for_worker() == 2 * GB


@pytest.mark.parametrize(("tasks", "share"), [(2, 3), (8, 1.5), (None, 1.5)])
def test_the_tasks_of_an_executor_share_its_container_and_the_cores_share_the_machine(machine, tasks, share):
    machine.put(max=str(6 * GB), current="0", stat="")
    assert memory.bytes_free_for_worker(tasks) == share * GB
    machine.put(max=str(100 * GB))
    assert memory.bytes_free_for_worker(tasks) == 8 * GB


@pytest.mark.parametrize("group", ["slice", "slice/job"])
def test_the_tightest_group_around_the_process_counts(machine, group):
    machine.put(max=str(12 * GB), current="0")
    machine.put(group, max=str(4 * GB), current="0")
    assert memory.bytes_free() == 4 * GB
    assert memory.bytes_free_for_worker() == GB


def test_kills_by_the_kernel_are_counted_on_the_machine_and_in_the_container(machine):
    before = memory.count_killed()
    machine.put("slice/job", events="oom 1\noom_kill 1\n")
    assert memory.count_killed() == before + 1


@pytest.mark.parametrize("limit", ["max", ""])
def test_a_container_without_a_limit_allows_all(machine, limit):
    machine.put(max=limit, current=str(6 * GB), stat="")
    assert memory.bytes_free_for_worker() == 8 * GB


def test_a_full_container_leaves_nothing(machine):
    machine.put(max=str(GB), current=str(2 * GB), stat="")
    assert memory.bytes_free_for_worker() == 0


@pytest.mark.parametrize(("limit", "left"), [(1, 0.75), (0.2, 0)])
def test_a_process_has_no_more_than_what_is_left_of_its_own_limit(machine, limit, left):
    machine.limits.own = int(limit * GB)
    assert memory.bytes_free_for_worker() == left * GB


def test_other_systems_do_not_tell(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert memory.bytes_free_for_worker() == 0

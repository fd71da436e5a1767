"""The arithmetic of the cost model."""

from dataclasses import replace

import pytest

from annspark.core.cost import (
    MOST_BROADCAST_BYTES,
    Kernels,
    Rates,
    Spent,
    Work,
    count_bytes,
    count_core_seconds,
    heap_to_hold,
)
from annspark.core.cost import find_limits as limits_of
from annspark.core.keeper import MAX_ROWS

STEPS = ("start", "read", "sample", "grow", "join", "audit", "publish")
WORK = Work(rows=1000, width=64, k=10, exact=2000, pairs=500, copies=1.5, route=2e-3, grow=7, limbs=0)
KERNELS = Kernels(reference=0.5, row=1e-3, pair=1e-6)
RATES = Rates(
    reference=0.5,
    fixed=dict(zip(STEPS, range(1, 8), strict=True)),
    read_row=0.01,
    read_byte=0.001,
    exact_number=1e-6,
    copy_byte=0.01,
    written_neighbor=0.03,
    audit_row=0.004,
)


def test_every_step_takes_what_its_work_takes():
    spent = count_core_seconds(WORK, KERNELS, RATES)
    assert tuple(spent) == STEPS
    assert {name: each.fixed for name, each in spent.items()} == RATES.fixed | {"grow": 4 + 7}
    grows = {name: each.grows for name, each in spent.items()}
    assert grows == pytest.approx(
        {
            "start": 0,
            "read": 1000 * 0.01 + 1000 * 256 * 0.001,
            "sample": 0,
            "grow": 1000 * 2000 * 64 * 1e-6,
            "join": 1500 * 256 * 0.01 + 1000 * 10 * 0.03 + 1000 * (2e-3 + 1e-3 + 500 * 1e-6),
            "audit": 4,
            "publish": 0,
        }
    )


def test_a_slower_core_takes_longer_but_what_was_measured_on_it_stays():
    spent, slow = (count_core_seconds(WORK, replace(KERNELS, reference=s), RATES) for s in (0.5, 1.0))
    assert slow["read"].core_seconds == 2 * spent["read"].core_seconds
    measured = 1000 * (2e-3 + 1e-3 + 500 * 1e-6)
    assert slow["join"].grows - measured == pytest.approx(2 * (spent["join"].grows - measured))
    assert slow["grow"].fixed == 2 * 4 + 7


def test_all_cores_grow_the_limbs_of_a_tree():
    driver, limbs = (count_core_seconds(replace(WORK, limbs=n), KERNELS, RATES)["grow"] for n in (0, 3))
    assert limbs.core_seconds == pytest.approx(driver.core_seconds)
    assert limbs.fixed == driver.fixed - 7


def test_cores_share_what_grows_and_two_of_them_the_rest():
    assert Spent(6, 40).core_seconds == 46
    assert [Spent(6, 40).seconds(cores) for cores in (1, 2, 20)] == [46, 23, 5]


def needed(**changed):
    settled = {"shuffled": 9, "task": 10**9, "sampled": 40_000, "leaves": 1000, "id_bytes": 8, "cores": 2}
    return count_bytes(WORK, **(settled | changed))


def test_bytes_follow_from_rows_leaves_and_cores():
    one = needed()
    assert one.shuffled == 9
    assert one.broadcast == 1000 * 64 * 4
    assert one.staged == 1000 * (256 + 16 + 8 + 8 + 10 * 12)
    assert one.worker == 10**8 + 10**9 + 3 * one.broadcast
    assert one.java == heap_to_hold(2 * 40_000 * 256 + 2 * one.broadcast)  # more than all rows take


def test_java_holds_a_row_group_for_each_core():
    work = replace(WORK, rows=10**7)
    told = [
        count_bytes(work, shuffled=0, task=0, sampled=0, leaves=1, id_bytes=8, cores=cores).java for cores in (2, 4, 64)
    ]
    assert told == [heap_to_hold(n * 256) for n in (2 << 20, 4 << 20, 10**7)]
    assert heap_to_hold(550 * 10**6 - (300 << 20)) == pytest.approx(10**9)


def find_limits(bytes_needed, **changed):
    settled = {"rows": 1000, "placed": 1000, "free": 0, "per_partition": 1000.0, "limbs": 0}
    return limits_of(bytes_needed, **(settled | changed))


def test_what_limits_a_run_is_told():
    assert find_limits(needed()) == ()
    assert find_limits(needed(), free=2 * 10**9) == ()
    (told,) = find_limits(needed(), free=10**9)
    assert "may need 1,101 MB, and 1,000 MB are free" in told
    (told,) = find_limits(needed(), rows=5000)
    assert "places the leaves of 1,000 rows" in told
    (told,) = find_limits(needed(), limbs=9)
    assert "in 9 limbs" in told
    (told,) = find_limits(needed(leaves=MOST_BROADCAST_BYTES // 256 + 1))
    assert "leaf_rows" in told
    (told,) = find_limits(needed(), per_partition=MAX_ROWS + 1.0)
    assert "67,108,865 rows" in told

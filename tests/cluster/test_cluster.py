"""The short form of the cluster suite: the job survives what kills its parts, or says so and leaves yesterday's table.

python -m tests.cluster tries every fault in every step, and prints a table.
"""

import random

import pytest

from tests.cluster.night import digest, pack_environment, running
from tests.cluster.standalone import standalone
from tests.cluster.trial import FAILED, SAME, TODAY, try_fault, undisturbed

pytestmark = pytest.mark.process  # a cluster of its own
ROWS, DIM = 6_000, 16


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with standalone(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def usual(cluster, tmp_path_factory):
    return undisturbed(cluster, tmp_path_factory.mktemp("nights"), ROWS, DIM)


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        ("executor killed", "join"),
        ("worker daemon killed", "calibrate"),
        ("Python worker killed", "read"),
        ("shuffle file deleted", "join"),
    ],
)
def test_what_dies_besides_the_driver_costs_time_and_changes_nothing(cluster, usual, fault, step):
    trial = try_fault(cluster, usual, fault, step, random.Random(f"{fault} {step}"))
    assert trial.outcome == SAME, trial
    assert trial.code == 0


def test_a_killed_driver_leaves_yesterdays_table_and_the_next_night_cleans_up(cluster, usual):
    trial = try_fault(cluster, usual, "driver killed", "join", random.Random(3))
    assert trial.outcome == FAILED, trial
    assert trial.code != 0


def test_a_packed_environment_gives_the_same_table(cluster, usual, tmp_path):
    packed = pack_environment(tmp_path)
    with running(cluster, usual.place, *TODAY, packed=packed) as night:
        pass
    assert night.code == 0, "\n".join(night.said)
    assert digest(usual.place / "out") == usual.today


def test_every_process_of_a_cluster_ends_with_it(tmp_path):
    with standalone(tmp_path) as cluster:
        kinds = [len(cluster.processes(kind)) for kind in ("worker", "executor", "driver")]
    assert kinds == [2, 0, 0]
    assert cluster.processes() == []

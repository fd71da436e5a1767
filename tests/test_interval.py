"""What is promised, audited and true: the audit's interval holds the true recall, for any recall asked for and seed."""

import numpy as np
import pytest

from annspark import RecallMissed, build_neighbors
from tests.helpers import clustered, lists_of, make_table
from tests.oracle import recall_of

ROWS, K = 1500, 10
TARGETS, SEEDS = (0.8, 0.9, 0.99), range(3)


@pytest.mark.slow
def test_the_true_recall_is_within_the_audits_interval_most_times(spark):
    vectors = clustered(ROWS, 24, clusters=30, inner=12)
    table = make_table(spark, vectors, partitions=2).cache()
    inside, below = [], []
    for target in TARGETS:
        for seed in SEEDS:
            try:
                result = build_neighbors(table, k=K, recall=target, seed=seed, leaf_rows=60, audit_users=200)
            except RecallMissed:  # that is a promise kept too: nothing is published
                continue
            recall, true = result.report.recall, recall_of(lists_of(result.table), vectors, K, "cosine")
            result.table.unpersist()
            inside.append(recall.low <= true <= recall.high)
            below.append(true < target - (recall.high - recall.low) / 2)
    table.unpersist()
    assert len(inside) >= 6
    assert np.mean(inside) > 0.6  # of 9 with 95 % each
    assert not any(below)

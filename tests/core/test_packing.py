import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.packing import EMPTY, merge_lists, pack, unpack


def test_packing_orders_by_distance_then_rank():
    tiny = np.finfo(np.float32).smallest_subnormal
    ordered = [(0, 0), (0, 5), (tiny, 0), (1e-3, 2**32 - 1), (1, 0), (1, 2**31), (3e38, 1), (np.inf, 0)]
    distances, ranks = (np.array(column) for column in zip(*ordered, strict=True))
    keys = pack(distances.astype(np.float32), ranks)
    assert (keys[1:] > keys[:-1]).all()
    assert keys[-1] < EMPTY


@given(st.lists(st.tuples(st.floats(0, width=32), st.integers(0, 2**32 - 1)), min_size=1))
def test_unpack_undoes_pack(candidates):
    distances = np.array([distance for distance, _ in candidates], np.float32) + np.float32(0)  # no -0
    ranks = np.array([rank for _, rank in candidates], np.int64)
    again, ranks_again = unpack(pack(distances, ranks))
    np.testing.assert_array_equal(again, distances)
    np.testing.assert_array_equal(ranks_again, ranks)


def test_an_empty_key_is_no_neighbor_infinitely_far():
    distances, ranks = unpack(np.append(pack(np.array([2], np.float32), np.array([3])), EMPTY))
    np.testing.assert_array_equal(distances, [2, np.inf])
    np.testing.assert_array_equal(ranks, [3, -1])


def naive_merge(owner, keys, k):
    merged = {}
    for who, candidates in zip(owner.tolist(), keys.tolist(), strict=True):
        merged.setdefault(who, set()).update(key for key in candidates if key != int(EMPTY))
    return {who: sorted(candidates)[:k] for who, candidates in merged.items()}


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 8), st.integers(1, 12))
def test_merging_equals_the_naive_merge(seed, n_lists, width, k):
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, 15, n_lists) * 1000
    rank = rng.integers(0, 12, (n_lists, width))
    keys = pack((rank * 7 % 5).astype(np.float32), rank)  # one distance per neighbor, many ties
    keys[rng.random(keys.shape) < 0.3] = EMPTY
    owners, best = merge_lists(owner, keys, k)
    expected = naive_merge(owner, keys, k)
    assert best.shape == (len(owners), k)
    assert owners.tolist() == sorted(expected)
    for who, row in zip(owners.tolist(), best.tolist(), strict=True):
        assert row == expected[who] + [int(EMPTY)] * (k - len(expected[who]))


def test_merging_does_not_change_its_input():
    keys = pack(np.array([[3, 1], [2, 1]], np.float32), np.array([[3, 1], [2, 1]]))
    before = keys.copy()
    merge_lists(np.array([5, 5]), keys, 2)
    np.testing.assert_array_equal(keys, before)

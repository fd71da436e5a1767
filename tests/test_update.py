"""Tonight's table, made from last night's index, is that of a join of all rows in the same forest, to the bit."""

import json
from shutil import copytree
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

import annspark
from annspark import InputError, SettingsError, fit, load
from annspark.cli import main
from annspark.saved.manifest import read_manifest
from annspark.saved.parts import read_part
from tests.helpers import clustered, files_in, lists_of, long_lists_of
from tests.oracle import assert_sound

K, QUICK = 4, {"k": 4, "leaf_rows": 40, "audit_users": 60}
SLOW = pytest.mark.slow
POOL = clustered(4000, 8)


def normal(rng):
    return POOL[rng.integers(len(POOL))].tolist()


def longer(rng):
    """Return a vector of any length: the longest ones are hubs of the inner product."""
    return (rng.normal(size=6) * rng.exponential()).tolist()


def tied(rng):
    """Return one of 81 points: most rows have twins, and most distances tie."""
    return rng.integers(1, 4, 4).astype(float).tolist()


def islands(rng):
    """Return a vector of one of 40 clusters that are far from each other."""
    centre = np.random.default_rng(rng.integers(40)).normal(size=8)
    return (1000 * centre + rng.normal(size=8)).tolist()


def bits(rng):
    return rng.integers(0, 2, 9).astype(float).tolist()


def far_away(rng):
    """Return numbers that float32 does not hold, far from the origin."""
    return (1e7 + rng.normal(size=6)).tolist()


def words(rng):
    columns = rng.choice(40, rng.integers(1, 7), replace=False)
    return {int(column): float(rng.integers(1, 5)) for column in columns}


def longer_words(rng):
    return {column: value * float(rng.choice([1, 1, 1, 9])) for column, value in words(rng).items()}


def members(rng):
    return sorted(rng.choice(30, rng.integers(0, 6), replace=False).tolist())


FLOATS, MAPS = "array<float>", "map<int,float>"
WORLDS = {
    "cosine": (normal, FLOATS, {"metric": "cosine", "recall": 0.9}),
    "ties": (tied, FLOATS, {"metric": "euclidean", "probes": 3}),
    "hubs": (longer, FLOATS, {"metric": "inner_product", "probes": 3}),
    "two trees": (normal, FLOATS, {"metric": "manhattan", "probes": 2, "trees": 2}),
    "bits": (bits, FLOATS, {"metric": "hamming", "probes": 3}),
    "float64": (far_away, "array<double>", {"metric": "euclidean", "probes": 3}),
    "sparse cosine": (words, MAPS, {"metric": "cosine", "recall": 0.9}),
    "sparse euclidean": (words, MAPS, {"metric": "euclidean", "probes": 2}),
    "sparse hubs": (longer_words, MAPS, {"metric": "inner_product", "recall": 0.9}),
    "sets": (members, "array<int>", {"metric": "jaccard", "probes": 2}),
    "groups": (normal, FLOATS, {"metric": "cosine", "recall": 0.9, "within": "city"}),
    "groups with hubs": (longer, FLOATS, {"metric": "inner_product", "probes": 3, "within": "city"}),
    "sparse groups": (words, MAPS, {"metric": "euclidean", "probes": 2, "within": "city"}),
    "sparse groups with hubs": (longer_words, MAPS, {"metric": "inner_product", "probes": 3, "within": "city"}),
    "candidates": (normal, FLOATS, {"metric": "cosine", "recall": 0.9, "candidate_col": "ok"}),
    "sparse candidates with hubs": (
        longer_words,
        MAPS,
        {"metric": "inner_product", "probes": 2, "within": "city", "candidate_col": "ok"},
    ),
    "groups of sets": (members, "array<int>", {"metric": "jaccard", "probes": 2, "within": "city"}),
}
# One large group, and some forty small ones; with its vector a row may change its group.
CITY = "nullif(if(pmod(hash(string(vector)), 100) < 60, 0, pmod(hash(string(vector)), 100)), 99) AS city"


class Nights:
    """Rows that change from night to night."""

    def __init__(self, spark, make, kind, rng, n):
        self.spark, self.make, self.rng = spark, make, rng
        self.schema = f"user_id bigint, vector {kind}"
        self.rows = {i: make(rng) for i in range(n)}
        self.next, self.night = n, 0
        self.pairs: set[tuple[int, int]] | None = None

    def table(self, partitions=3):
        order = self.rng.permutation(list(self.rows)).tolist()
        rows = self.spark.createDataFrame([(i, self.rows[i]) for i in order], self.schema)
        # Some rows may be neighbors on some nights only.
        ok = f"if(user_id % 4 = 0, null, user_id % 50 <> {self.night}) AS ok"
        return rows.selectExpr("*", CITY, ok).repartition(partitions)

    def exclude(self, n):
        """Exclude n more pairs, some of them of ids that are not there yet, or no longer those that were excluded."""
        some = self.rng.integers(self.next + 20, size=(n, 2)).tolist()
        self.pairs = set(map(tuple, some)) ^ (self.pairs or set())

    def excluded(self):
        """Return the named argument of an update: the pairs that are excluded, if there are any."""
        if self.pairs is None:
            return {}
        return {"exclude": self.spark.createDataFrame(sorted(self.pairs), "user_id bigint, neighbor_id bigint")}

    def change(self, new, changed, gone):
        """Change the rows; a row that is gone may come back another night, with another vector."""
        self.night += 1
        some = self.rng.permutation(list(self.rows)).tolist()
        for i in some[:gone]:
            del self.rows[i]
        for i in some[gone : gone + changed]:
            self.rows[i] = self.make(self.rng)
        for _ in range(new):
            self.rows[int(self.rng.integers(self.next + new))] = self.make(self.rng)
        self.next += new


def updated(index, table, folder, **named):
    """Return tonight's lists, the index and the report."""
    made = index.update(table, folder, **named)
    lists = lists_of(made.table)
    made.table.unpersist()
    return lists, made.index, made.report


def joined_anew(index, table, folder, **named):
    """Return the lists of a join of all rows in the forest of an index, with the same reach."""
    with patch("annspark.update._pays", lambda *_: False):
        return updated(index, table, folder, **named)[0]


def start(nights, tmp_path, **named):
    """Return the index of the first night, which keeps lists."""
    with fit(nights.table(), **QUICK | named) as fitted:
        return fitted.update(nights.table(), tmp_path / "night-0", **nights.excluded()).index


EXCLUDING = ("hubs", "sparse euclidean", "sparse groups with hubs", "candidates")  # and ties, in the everyday run


@pytest.mark.parametrize(
    ("world", "excludes"),
    [("ties", True), *(pytest.param(name, name in EXCLUDING, marks=SLOW) for name in WORLDS if name != "ties")],
)  # fmt: skip
def test_every_night_has_the_table_of_a_join_of_all_rows(spark, tmp_path, world, excludes):
    make, kind, named = WORLDS[world]
    nights = Nights(spark, make, kind, np.random.default_rng(0), 400)
    if excludes:
        nights.exclude(20_000)
    index = start(nights, tmp_path, **named)
    for night, change in enumerate([(5, 5, 5), (20, 10, 0)], 1):
        nights.change(*change)
        if excludes:
            nights.exclude(25)
        table, pairs, before = nights.table(night), nights.excluded(), index
        with patch("annspark.update._join_all", None):  # not all rows are joined
            lists, index, report = updated(before, table, tmp_path / f"night-{night}", **pairs)
        assert not (nights.pairs or set()) & {(row, other) for row, found in lists.items() for other, _ in found}
        assert lists.keys() == nights.rows.keys()
        if "within" in named:
            city = dict(table.select("user_id", "city").collect())
            assert all(city[row] == city[other] for row, found in lists.items() for other, _ in found)
        may = {row for row, ok in table.select("user_id", "ok").collect() if ok or "candidate_col" not in named}
        assert all(other in may for found in lists.values() for other, _ in found)
        assert (report.rows.written, len(index)) == (len(nights.rows), len(may))
    # Most lists are those of the night before, so that a wrong one of the first night would be seen here too.
    assert lists == joined_anew(before, table, tmp_path / "whole", **pairs)


@SLOW
@settings(max_examples=5, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(WORLDS)),
    st.integers(70, 300),
    st.lists(st.tuples(*3 * [st.integers(0, 20)]), min_size=1, max_size=3),
    st.booleans(),
)
def test_random_changes_leave_the_table_of_a_join_of_all_rows(
    spark, tmp_path_factory, seed, world, n, changes, excludes
):
    make, kind, named = WORLDS[world]
    tmp_path = tmp_path_factory.mktemp("nights")
    nights = Nights(spark, make, kind, np.random.default_rng(seed), n)
    index = start(nights, tmp_path, **named | {"probes": 2, "recall": None})
    for night, change in enumerate(changes):
        nights.change(*change)
        if excludes:
            nights.exclude(n)
        whole = joined_anew(index, nights.table(2), tmp_path / f"whole-{night}", **nights.excluded())
        with patch("annspark.update._MOST_CHANGED", 1):
            lists, index, _ = updated(index, nights.table(1), tmp_path / f"night-{night + 1}", **nights.excluded())
        assert lists == whole


@SLOW
def test_an_index_is_right_and_does_not_grow_through_many_nights(spark, tmp_path):
    nights = Nights(spark, normal, FLOATS, np.random.default_rng(2), 600)
    index, sizes = start(nights, tmp_path, recall=0.9), []
    for night in range(1, 9):
        nights.change(0, 20, 0)
        lists, index, report = updated(index, nights.table(), tmp_path / "night-0", overwrite=True)
        sizes.append(sum(file.stat().st_size for file in (tmp_path / "night-0").iterdir()))
        assert report.recall.high >= 0.9
        if night in (4, 8):
            assert lists == joined_anew(index, nights.table(), tmp_path / f"whole-{night}")
    assert max(sizes) < 1.1 * min(sizes)


def lose_a_part(nights, folder):
    """Delete all rows of the first part of an index, and return the other parts."""
    first, *parts = read_manifest(str(folder)).parts
    for i in read_part(f"{folder}/{first}", 8, sparse=False)[0].to_pylist():
        del nights.rows[i]
    return parts


def test_a_part_that_loses_all_its_rows_leaves_the_others_right(spark, tmp_path):
    nights = Nights(spark, normal, FLOATS, np.random.default_rng(3), 1100)
    index = start(nights, tmp_path, metric="euclidean", probes=3, trees=2)
    parts = lose_a_part(nights, tmp_path / "night-0")
    left = list(nights.rows.values())
    nights.make = lambda rng: left[rng.integers(len(left))]  # twins of these have their homes
    nights.change(20, 20, 0)
    whole = joined_anew(index, nights.table(), tmp_path / "whole")
    with patch("annspark.update._join_all", None), patch("annspark.update._MOST_CHANGED", 1):
        lists, index, _ = updated(index, nights.table(), tmp_path / "night-1")
    assert len(read_manifest(str(tmp_path / "night-1")).parts) == len(parts)
    assert lists == whole


def test_a_part_that_nobody_else_misses_is_gone(spark, tmp_path):
    nights = Nights(spark, islands, FLOATS, np.random.default_rng(3), 1100)
    index = start(nights, tmp_path, metric="euclidean", probes=1, trees=2)
    parts = lose_a_part(nights, tmp_path / "night-0")
    whole = joined_anew(index, nights.table(), tmp_path / "whole")
    with patch("annspark.update._join_all", None), patch("annspark.update._MOST_CHANGED", 1):
        lists, index, _ = updated(index, nights.table(), tmp_path / "night-1")
    assert len(read_manifest(str(tmp_path / "night-1")).parts) == len(parts)
    assert lists == whole


@SLOW
def test_an_index_is_queried_the_same_after_an_update_as_if_it_was_written_whole(spark, tmp_path):
    nights = Nights(spark, longer, FLOATS, np.random.default_rng(1), 600)
    index = start(nights, tmp_path, metric="inner_product", probes=3)
    nights.change(10, 10, 10)
    joined_anew(index, nights.table(), tmp_path / "whole")
    updated(index, nights.table(), tmp_path / "updated")
    asked = [longer(np.random.default_rng(seed)) for seed in range(30)]
    one, other = (annspark.open_index(str(tmp_path / name)) for name in ("whole", "updated"))
    for first, second in zip(one.search(asked), other.search(asked), strict=True):
        assert first.tolist() == second.tolist()


@SLOW
def test_rows_that_no_longer_fit_are_refused_with_what_to_do(spark, tmp_path):
    nights = Nights(spark, normal, FLOATS, np.random.default_rng(0), 120)
    index = start(nights, tmp_path, metric="euclidean", probes=2)
    huge = {**nights.rows, 7: [1e30] * 8}
    table = spark.createDataFrame(list(huge.items()), nights.schema)
    with pytest.raises(annspark.BuildNeeded, match="Build table and index anew"):
        index.update(table)
    strings = nights.table().selectExpr("string(user_id) user_id", "vector")
    with pytest.raises(InputError, match="ids are string, and bigint in the index"):
        index.update(strings)
    with pytest.raises(InputError, match="8 numbers"):
        index.update(spark.createDataFrame([(1, [1.0, 2.0]), (2, [0.0, 1.0])], nights.schema))
    with pytest.raises(SettingsError, match="'k' cannot be given to update"):
        index.update(nights.table(), k=9)
    with fit(nights.table(), **QUICK) as fitted, pytest.raises(SettingsError, match="'path' is not given"):
        fitted.update(nights.table())
    assert files_in(tmp_path) == ["night-0"]


@SLOW
def test_an_index_that_was_written_anew_has_to_be_loaded_again(spark, tmp_path):
    nights = Nights(spark, normal, FLOATS, np.random.default_rng(0), 200)
    held = start(nights, tmp_path, metric="euclidean", probes=2)
    nights.exclude(5)
    again = held.update(nights.table(), **nights.excluded()).index  # replaces the folder that both are of
    before = files_in(tmp_path / "night-0")
    for table in (nights.table(), nights.table().limit(100)):
        with pytest.raises(SettingsError, match=r"it was written anew since it was loaded.*Load it again"):
            held.update(table)
    assert files_in(tmp_path / "night-0") == before
    with pytest.raises(SettingsError, match="excluded pairs, and 'exclude' is not given"):
        again.update(nights.table())
    assert len(lists_of(again.update(nights.table(), **nights.excluded()).table)) == 200


@SLOW
def test_a_large_group_without_trees_needs_a_build(spark, tmp_path):
    nights = Nights(spark, normal, FLOATS, np.random.default_rng(0), 500)
    index = start(nights, tmp_path, metric="cosine", within="city", probes=2, leaf_rows=8, k=2)
    renamed = nights.table().withColumn("city", F.lit("one"))
    with patch("annspark.update._OUTGROWN", 5), pytest.raises(annspark.BuildNeeded, match="500 rows and no trees"):
        index.update(renamed)
    lists, _, report = updated(index, renamed, tmp_path / "small")
    assert len(lists) == 500
    assert report.recall.mean == 1


@SLOW
@pytest.mark.parametrize("other", ["array(0.5F, 1.5F)", "map(3, 0.5F, 7, 1.5F)"])
def test_vectors_of_another_model_need_a_build(spark, night, capsys, other):
    folder, _ = night
    vectors = spark.read.parquet(str(folder / "tonight")).selectExpr("user_id", f"{other} AS vector")
    vectors.write.parquet(str(folder / "others"))
    assert update(folder, rows="others") == 3
    said = capsys.readouterr().err
    assert "build table and index anew: annspark build --index, or --rebuild-if-missed" in said
    assert "drop" not in said
    assert update(folder, "--rebuild-if-missed", "--on-bad-row", "drop", rows="others") == 0
    assert load(spark, folder / "index").update(vectors).report.rows.written == vectors.count()


@pytest.fixture(scope="module")
def built(spark, tmp_path_factory):
    """Return a folder with the table and the index of a first night."""
    folder = tmp_path_factory.mktemp("built")
    nights = Nights(spark, normal, FLOATS, np.random.default_rng(0), 1500)
    nights.table().write.parquet(str(folder / "vectors"))
    places = ["--input", str(folder / "vectors"), "--output", str(folder / "out"), "--index", str(folder / "index")]
    assert main(["build", *places, "--k", "4", "--leaf-rows", "60", "--audit-users", "200", "--shape", "long"]) == 0
    return folder, nights


def update(folder, *more, rows="tonight"):
    places = ["--input", str(folder / rows), "--output", str(folder / "out"), "--index", str(folder / "index")]
    return main(["update", *places, *more])


@pytest.fixture
def night(built, tmp_path):
    """Return the folder of the first night, of one's own, and rows that have changed since."""
    folder, nights = built
    for name in ("out", "index"):
        copytree(folder / name, tmp_path / name)
    before, nights.next = dict(nights.rows), 1500
    nights.change(10, 10, 10)
    nights.table().write.parquet(str(tmp_path / "tonight"))
    yield tmp_path, dict(nights.rows)
    nights.rows = before


def test_table_report_and_index_are_of_tonight(spark, night, caplog):
    folder, rows = night
    assert update(folder) == 0
    assert "rows are new or changed" in caplog.text
    assert files_in(folder) == ["index", "out", "out.report", "tonight"]
    lists = long_lists_of(spark.read.parquet(str(folder / "out")))
    ids = sorted(rows)
    assert_sound(lists, np.array([rows[i] for i in ids], np.float32), ids, K, "cosine")
    report = json.loads((folder / "out.report" / "report.json").read_text())
    assert report["rows"]["written"] == len(rows)
    assert report["calibration"]["target"] == 0.95
    assert load(spark, folder / "index").settings.shape == "long"
    assert update(folder) == 0  # an update of an update, of nothing
    assert long_lists_of(spark.read.parquet(str(folder / "out"))) == lists


def test_an_output_that_the_index_does_not_go_with_is_refused(spark, night, capsys):
    folder, _ = night
    index = files_in(folder / "index")
    spark.range(3).write.mode("overwrite").parquet(str(folder / "out"))
    other = files_in(folder / "out")
    assert update(folder) == 2
    assert "is not the table that was published with the index" in capsys.readouterr().err
    assert (files_in(folder / "index"), files_in(folder / "out")) == (index, other)
    assert main(["update", "--input", "x", "--output", str(folder / "new"), "--index", str(folder / "index")]) == 2


def test_without_the_table_no_index_appears_either(night, monkeypatch):
    folder, _ = night
    before = files_in(folder / "index"), files_in(folder / "out")
    commits = []

    def commit(pending):
        commits.append(pending.output.role)
        if pending.output.role == "output":
            raise SettingsError("output: taken")
        return whole(pending)

    from annspark.output import publish

    whole = publish.commit
    monkeypatch.setattr(publish, "commit", commit)
    assert update(folder) == 2
    assert commits == ["index", "output"]
    assert (files_in(folder / "index"), files_in(folder / "out")) == before
    monkeypatch.undo()
    assert update(folder) == 0


@SLOW
def test_rows_that_drift_miss_the_recall_and_are_built_anew_where_that_is_asked_for(spark, night, capsys, caplog):
    folder, rows = night
    rng = np.random.default_rng(3)
    # Nearly all rows lie in few leaves now, and their neighbors in others.
    drifted = [(i, (np.sign(POOL[0]) + rng.normal(size=8)).tolist()) for i in rows]
    spark.createDataFrame(drifted, f"user_id bigint, vector {FLOATS}").write.parquet(str(folder / "drifted"))
    assert update(folder, rows="drifted") == 4
    assert "have drifted from the forest" in capsys.readouterr().err
    assert update(folder, "--rebuild-if-missed", rows="drifted") == 0
    assert "table and index are built anew" in caplog.text
    assert update(folder, rows="drifted") == 0


@SLOW
def test_an_index_of_candidates_has_no_table_to_update(spark, built, tmp_path, capsys):
    folder, _ = built
    places = ["--input", str(folder / "vectors"), "--candidates", str(folder / "vectors")]
    assert main(["build", *places, "--output", str(tmp_path / "out"), "--index", str(tmp_path / "index")]) == 0
    assert main(["update", *places[:2], "--output", str(tmp_path / "out"), "--index", str(tmp_path / "index")]) == 2
    assert "it holds candidates" in capsys.readouterr().err


@SLOW
def test_an_index_that_fit_has_made_is_joined_whole_once(spark, built, tmp_path, caplog):
    folder, _ = built
    places = ["--input", str(folder / "vectors"), "--index", str(tmp_path / "index")]
    assert main(["fit", *places, "--k", "4", "--leaf-rows", "60", "--audit-users", "200"]) == 0
    assert main(["update", *places, "--output", str(tmp_path / "out")]) == 0
    first = lists_of(spark.read.parquet(str(tmp_path / "out")))
    assert first == dict(long_lists_of(spark.read.parquet(str(folder / "out"))).items())
    assert "all 1,500 users" in caplog.text
    assert main(["update", *places, "--output", str(tmp_path / "out")]) == 0
    assert lists_of(spark.read.parquet(str(tmp_path / "out"))) == first

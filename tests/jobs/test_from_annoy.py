"""The calls in the tables for those who come from Annoy or PySparNN, run from top to bottom."""

import logging
import re

import numpy as np
import pytest

import annspark
from tests.helpers import REPOSITORY, clustered, make_table

TEXT = (REPOSITORY / "jobs" / "from_annoy.md").read_text()
ANNOY = {
    *("AnnoyIndex", "add_item", "build", "save", "load", "unload", "get_nns_by_item", "get_nns_by_vector"),
    *("get_item_vector", "get_distance", "get_n_items", "get_n_trees", "f", "on_disk_build", "set_seed", "verbose"),
}
PYSPARNN = {
    *("MultiClusterIndex", "ClusterIndex", "search", "insert", "get_feature_matrix", "get_records"),
    *("CosineDistance", "UnitCosineDistance", "SlowEuclideanDistance", "DenseCosineDistance"),
    "DenseUnitCosineDistance",
}


def rows_of(library):
    """Return the rows of a table: what the library calls it, and the code of this package, "" for none."""
    section = re.search(rf"^## {library}.*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return [(theirs, ours.strip().strip("`")) for theirs, ours in rows]


@pytest.mark.parametrize(("library", "calls"), [("Annoy", ANNOY), ("PySparNN", PYSPARNN)])
def test_every_call_of_the_library_has_a_row(library, calls):
    named = {name for theirs, _ in rows_of(library) for name in re.findall(r"`(\w+)", theirs)}
    assert named == calls


@pytest.mark.slow
@pytest.mark.parametrize("library", ["Annoy", "PySparNN"])
def test_the_calls_of_the_table_run_from_top_to_bottom(spark, tmp_path, library):
    drawn = clustered(800)
    names = {
        "spark": spark,
        "vectors": make_table(spark, drawn),
        "queries": make_table(spark, drawn[:20]),
        "path": str(tmp_path / "index"),
        "scratch": str(tmp_path / "scratch"),
        "v": drawn[3],
        "i": 3,
        "j": 4,
        "np": np,
        "logging": logging,
        "annspark": annspark,
    }
    for theirs, ours in rows_of(library):
        exec(ours, names)
        if "get_nns_by_item" in theirs:
            assert names["ids"][0] == 3
            assert len(names["ids"]) == 11
        elif "search(" in theirs:
            assert names["ids"].tolist() == [3]
    remarks = re.findall(r"`(index\.(?:neighbors|query)\([^`]*\))`", TEXT)
    assert len(remarks) == 2
    for call in remarks:
        exec(f"({call}).table.unpersist()", names)
    names["index"].close()
    logging.getLogger("annspark").setLevel(logging.NOTSET)

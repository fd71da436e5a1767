"""Names, paths and files of others can do no harm: nothing of them is run as SQL, unpickled, or put into packages."""

import ast
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import functions as F

from annspark import InputError, SettingsError, build_neighbors, load, open_index
from annspark.job import make_job
from annspark.nightly import publish_neighbors
from annspark.spark.files import LITERAL
from tests.helpers import REPOSITORY, clustered, lists_of, make_table, run_process, tables_in
from tests.test_house import MODULES, name_of

HOSTILE = "a`b'c\"d; DROP TABLE canary; --.e\\f\n\t*{[?é名\U0001f600"
NAMED = {"k": 4, "leaf_rows": 60, "audit_users": 40, "probes": 3}


def test_hostile_names_of_columns_ids_and_paths_are_names_and_nothing_else(spark, tmp_path):
    vectors = make_table(spark, clustered(300)).withColumn("user_id", F.concat(F.lit(HOSTILE), "user_id"))
    pairs = vectors.selectExpr("user_id", "user_id AS neighbor_id").limit(3)
    usual = build_neighbors(vectors.withColumn("one", F.lit("x")), within="one", exclude=pairs, **NAMED)
    user, vector, group = (f"{kind} {HOSTILE}" for kind in ("user", "vector", "group"))
    folder = tmp_path / HOSTILE.replace("\n", "").replace("\\", "")
    vectors.toDF(user, vector).withColumn(group, F.lit(HOSTILE)).write.parquet(str(folder / "input"))
    pairs.toDF(user, "neighbor_id").write.parquet(str(folder / "exclude"))
    places = {name: str(folder / name) for name in ("input", "exclude", "output", "report", "scratch")}
    publish_neighbors(spark, make_job(places | {"id_col": user, "vector_col": vector, "within": group} | NAMED))
    assert lists_of(spark.read.option(*LITERAL).parquet(places["output"]), user) == lists_of(usual.table)


@pytest.mark.parametrize(
    "name", ["canaries.x'; DROP TABLE canaries.canary; --", "canaries.`x`; DROP TABLE canaries.canary", "canaries.é\n"]
)
def test_hostile_names_of_tables_are_refused_and_nothing_is_dropped(spark, tmp_path, name):
    spark.sql("CREATE DATABASE IF NOT EXISTS canaries")
    spark.range(3).write.mode("overwrite").saveAsTable("canaries.canary")
    make_table(spark, clustered(30)).write.parquet(str(tmp_path / "in"))
    places = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "report": str(tmp_path / "report")}
    for role, error in (("output", SettingsError), ("input", InputError), ("exclude", InputError)):
        with pytest.raises(error):
            publish_neighbors(spark, make_job(places | {role: name} | NAMED))
    assert spark.read.table("canaries.canary").count() == 3
    assert tables_in(spark, "canaries") == ["canary"]
    spark.sql("DROP DATABASE canaries CASCADE")


PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_unpickled(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not PICKLES & {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in PICKLES
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "np.lib.npyio.NpzFile"):
            assert "allow_pickle=False" in [ast.unparse(keyword) for keyword in node.keywords]


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_the_folder_of_an_index_is_not_run(spark, tmp_path):
    make_table(spark, clustered(300)).write.parquet(str(tmp_path / "in"))
    places = {name: str(tmp_path / name) for name in ("output", "index")} | {"input": str(tmp_path / "in")}
    publish_neighbors(spark, make_job(places | NAMED))
    arrays = next((tmp_path / "index").rglob("*.npz"))
    with np.load(arrays) as file:
        names = file.files
    proof, harmful = tmp_path / "proof", io.BytesIO()
    np.savez(harmful, **{name: np.array([Harmful(proof)], dtype=object) for name in names})
    whole = arrays.read_bytes()
    for data in (harmful.getvalue(), harmful.getvalue().ljust(len(whole), b"\0")[: len(whole)]):
        arrays.write_bytes(data)
        for opened in (open_index, lambda folder: load(spark, folder)):
            with pytest.raises(InputError, match=arrays.name):
                opened(str(tmp_path / "index"))
    assert not proof.exists()


def test_wheel_and_sdist_hold_the_package_and_nothing_else(tmp_path):
    built = run_process(sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path), cwd=REPOSITORY)
    assert built.returncode == 0, built.stderr
    (archive,), (wheel,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    package = {str(path.relative_to(REPOSITORY)) for path in MODULES}
    package |= {"annspark/log4j2.properties", "annspark/report/page.html.j2"}
    about = {"METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "RECORD"}
    version = archive.name.removesuffix(".tar.gz")
    assert set(zipfile.ZipFile(wheel).namelist()) == package | {f"{version}.dist-info/{name}" for name in about}
    metadata = zipfile.ZipFile(wheel).read(f"{version}.dist-info/METADATA").decode()
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line]
    assert needed == ["Requires-Dist: numpy>=1.26", "Requires-Dist: pyarrow>=15"]  # no Spark but the cluster's
    beside = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    with tarfile.open(archive) as files:
        assert set(files.getnames()) == {f"{version}/{name}" for name in package | beside}

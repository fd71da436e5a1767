"""The shape of the code: imports go one way, and only through what every Spark session kind has."""

import ast
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

PACKAGE = REPOSITORY / "annspark"
MODULES = sorted(PACKAGE.rglob("*.py"))
RECORDS = {
    "annspark.tables",
    "annspark.allowed",
    "annspark.settings",
    "annspark.job",
    "annspark.errors",
    "annspark.hide",
    "annspark.uses.settings",
    "annspark.uses.jobs",
    "annspark",
}
LAYERS = (
    "annspark.core",
    "annspark.spark",
    "annspark.saved",
    "annspark.input",
    "annspark.output",
    "annspark.flow",
    "annspark.report",
    "annspark.start",
    "annspark.uses",
)


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Return the modules a file imports anywhere, those of `from package import module` in full."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            known = {name_of(module) for module in MODULES}
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in whole}
    return found


def layer_of(module: str) -> str:
    if module in RECORDS:
        return "records"
    for layer in LAYERS:
        if module == layer or module.startswith(layer + "."):
            return layer
    return module


BELOW = {"annspark.core", "annspark.filesystem", "annspark.listed", "annspark.spark", "records"}
SPARKLESS = BELOW - {"annspark.spark"} | {"annspark.saved"}  # what runs where Spark is absent
LINE = BELOW | {f"annspark.{name}" for name in ("input", "output", "flow", "report", "run", "tuned")}
SAVING = {
    "annspark.saved",
    *(f"annspark.index_{name}" for name in ("reader", "writer", "rows", "changes", "join", "ask")),
}
ALLOWED = {
    "annspark.core": {"annspark.core"},
    "records": {"annspark.core", "records"},
    "annspark.filesystem": set(),
    "annspark.listed": {"annspark.filesystem"},
    "annspark.saved": SPARKLESS,
    "annspark.local": SPARKLESS,
    "annspark.spark": BELOW,
    "annspark.input": BELOW | {"annspark.input"},
    "annspark.output": BELOW | {"annspark.output", "annspark.saved"},
    "annspark.flow": BELOW | {"annspark.input", "annspark.output", "annspark.flow"},
    "annspark.report": {"annspark.core", "annspark.spark", "annspark.report", "records"},
    "annspark.run": {"annspark.core", "annspark.spark"},
    "annspark.uses": BELOW | {"annspark.input", "annspark.output", "annspark.run", "annspark.flags", "annspark.uses"},
    "annspark.tuned": BELOW | {"annspark.output", "annspark.flow"},
    "annspark.advice": BELOW | {"annspark.flow", "annspark.tuned"},
    "annspark.pipeline": LINE | {"annspark.advice"},
    "annspark.query": LINE | {"annspark.advice", "annspark.pipeline"},
    "annspark.indexing": LINE | {"annspark.pipeline"},
    "annspark.neighbors": LINE | {f"annspark.{name}" for name in ("pipeline", "query", "indexing")},
    "annspark.index_rows": LINE | SAVING,
    "annspark.index_reader": LINE | SAVING,
    "annspark.index_writer": LINE | SAVING,
    "annspark.index": LINE | SAVING | {f"annspark.{name}" for name in ("pipeline", "query", "indexing", "update")},
    "annspark.index_changes": LINE | SAVING,
    "annspark.index_join": LINE | SAVING,
    "annspark.index_ask": LINE | SAVING,
    "annspark.update": LINE | SAVING | {"annspark.pipeline", "annspark.query"},
    "annspark.nightly": LINE
    | SAVING
    | {f"annspark.{name}" for name in ("pipeline", "query", "indexing", "neighbors", "index", "update", "rebuild")},
    "annspark.nightly_uses": LINE | {"annspark.nightly", "annspark.uses"},
    "annspark.foresee": LINE,
    "annspark.preview": LINE | {"annspark.pipeline", "annspark.nightly", "annspark.foresee"},
    "annspark.evaluate": LINE,
    "annspark.rebuild": SPARKLESS,
    "annspark.start": BELOW | {"annspark.start"},
    "annspark.flags": {"records"},
    "annspark.cli": {
        *("annspark.nightly", "annspark.nightly_uses", "annspark.preview", "annspark.evaluate", "annspark.report"),
        *("annspark.saved", "annspark.flags", "annspark.uses.commands", "annspark.spark", "annspark.start", "records"),
        "annspark.rebuild",
    },
    "annspark.__main__": {"annspark.cli"},
}
REPORT = {  # what the files of annspark.report may import of each other
    "annspark.report.record": set(),
    "annspark.report.text": {"annspark.report.record"},
    "annspark.report.page": set(),
    "annspark.report.store": {"annspark.report.record", "annspark.report.text", "annspark.report.page"},
    "annspark.report": {"annspark.report.record", "annspark.report.text", "annspark.report.page"},
}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path):
    module = name_of(path)
    ours = {name for name in imports_of(path) if name.split(".")[0] == "annspark"}
    allowed = ALLOWED[layer_of(module)]
    if module == "annspark":  # the package's front door, which loads on first use
        allowed = allowed | {f"annspark.{name}" for name in ("neighbors", "index", "listed", "local", "uses")}
    assert {name for name in ours if name not in allowed and layer_of(name) not in allowed} == set()


def test_the_files_of_the_report_import_each_other_one_way():
    found = {name_of(path): imports_of(path) for path in MODULES if layer_of(name_of(path)) == "annspark.report"}
    assert found.keys() == REPORT.keys()
    for module, imported in found.items():
        assert {name for name in imported if layer_of(name) == "annspark.report"} <= REPORT[module], module
    files_or_spark = {"annspark.spark", "annspark.spark.files", "pyspark", "pyarrow"}
    assert [module for module, imported in found.items() if imported & files_or_spark] == ["annspark.report.store"]


def test_jobs_call_the_package_and_nothing_in_the_package_calls_jobs():
    assert all(not name.startswith("jobs") for path in MODULES for name in imports_of(path))
    names = ("build_neighbors", "evaluate_neighbors", "fit_index", "query_index", "update_neighbors", "use_neighbors")
    for job in (f"{name}.py" for name in names):
        called = imports_of(REPOSITORY / "jobs" / job)
        assert {name for name in called if name.startswith("annspark")} == {"annspark.cli"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=name_of)
def test_the_core_knows_neither_spark_nor_files(path):
    roots = {name.split(".")[0] for name in imports_of(path)}
    if path.name == "vectors.py":  # sparse rows are scipy's
        roots -= {"scipy"}
    assert roots <= {"annspark", "numpy", "dataclasses", "hashlib", "functools", "math", "collections", "typing"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_way_around_the_dataframe_api_and_no_pandas(path):
    tree = ast.parse(path.read_text())
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {"sparkContext", "_sc", "rdd", "_jvm", "_jsc", "_jdf", "_jsparkSession", "toPandas"}
    assert not {"pandas", "py4j"} & {name.split(".")[0] for name in imports_of(path)}


def test_each_step_of_the_line_is_a_file_named_like_it():
    assert {"read", "sample", "exact", "grow", "calibrate", "route", "join", "merge", "complete", "audit"} <= {
        path.stem for path in (PACKAGE / "flow").glob("*.py")
    }

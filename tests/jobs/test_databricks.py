"""What is made for Databricks: the notebook and the bundle's task run on a local Connect session, with tables of three
parts; the bundle has the fields that Databricks' own model knows."""

import json
import sys

import pytest
import yaml
from databricks.bundles.jobs import Job

from annspark.filesystem import open_place
from tests.helpers import REPOSITORY, clustered, lists_of, make_table, read_report, run_process

NOTEBOOK = (REPOSITORY / "jobs" / "databricks_notebook.py").read_text()
BUNDLE = yaml.safe_load((REPOSITORY / "conf" / "databricks.yml").read_text())
SCRIPT = """
import json, sys
from types import SimpleNamespace
from pyspark.sql import SparkSession

named, notebook, parameters = json.loads(sys.argv[1])
spark = SparkSession.builder.remote("local[2]").config("spark.sql.shuffle.partitions", "2").getOrCreate()
spark.sql("CREATE DATABASE ml")
spark.read.parquet("vectors").write.saveAsTable("spark_catalog.ml.user_vectors")
shown = []
widgets = SimpleNamespace(text=lambda name, default, label: None, get=named.__getitem__)
for cell in notebook.split("# COMMAND ----------"):
    exec(cell, names := globals() | {"dbutils": SimpleNamespace(widgets=widgets), "display": shown.append})
    globals().update(names)
print("shown", shown[0].count(), shown[0].columns)
spark.table(named["output"]).write.parquet("of_notebook")

from annspark.cli import main

print("code", main(parameters))
spark.table("spark_catalog.ml.user_neighbors").write.parquet("of_task")
print("tables", sorted(table.name for table in spark.catalog.listTables("ml")))
spark.stop()
"""


def parameters(**values: str) -> list[str]:
    """Return the parameters of the bundle's task, with values for its variables."""
    (task,) = BUNDLE["resources"]["jobs"]["neighbors"]["tasks"]
    told = json.dumps(task["python_wheel_task"]["parameters"])
    for name, variable in BUNDLE["variables"].items():
        told = told.replace(f"${{var.{name}}}", values.get(name, variable["default"]))
    return json.loads(told)


@pytest.mark.process
def test_notebook_and_task_build_tables_of_three_parts_on_connect(spark, tmp_path):
    make_table(spark, clustered(400)).write.parquet(str(tmp_path / "vectors"))
    named = {"input": "spark_catalog.ml.user_vectors", "output": "spark_catalog.ml.of_notebook", "scratch": "scratch"}
    task = parameters(schema="spark_catalog.ml", volume=str(tmp_path / "volume"))
    told = json.dumps([named | {"scratch": str(tmp_path / "scratch")}, NOTEBOOK, task])
    done = run_process(sys.executable, "-c", SCRIPT, told, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "shown 100 ['user_id', 'neighbor_id', 'distance']" in done.stdout
    assert "code 0" in done.stdout
    assert "tables ['of_notebook', 'user_neighbors', 'user_vectors']" in done.stdout
    of_notebook, of_task = (lists_of(spark.read.parquet(str(tmp_path / name))) for name in ("of_notebook", "of_task"))
    assert len(of_notebook) == 400
    assert of_notebook == of_task
    assert read_report(tmp_path / "volume" / "report")["settings"]["output"] == "spark_catalog.ml.user_neighbors"


def test_the_notebook_is_in_databricks_source_format():
    cells = NOTEBOOK.split("\n\n# COMMAND ----------\n\n")
    assert NOTEBOOK.startswith("# Databricks notebook source\n")
    assert len(cells) == 1 + NOTEBOOK.count("COMMAND")
    assert any(cell.startswith("# MAGIC %pip install /Volumes/") for cell in cells)


def test_the_bundle_has_fields_that_databricks_knows_and_builds_our_wheel():
    told = BUNDLE["resources"]["jobs"]["neighbors"]
    job = Job.from_dict(told)  # raises for a field that the model does not have
    assert job.as_dict() == told
    (task,), (environment,) = job.tasks, job.environments
    assert task.environment_key == environment.environment_key
    assert environment.spec.dependencies == ["dist/*.whl"]
    assert (task.python_wheel_task.package_name, task.python_wheel_task.entry_point) == ("annspark", "annspark")
    with pytest.raises(ValueError, match="python_whl_task"):
        Job.from_dict(told | {"tasks": [{"task_key": "build", "python_whl_task": {}}]})


def test_what_spark_calls_a_volume_there_is_where_it_is_mounted():
    for name in ("/Volumes/main/ml/v/x", "dbfs:/Volumes/main/ml/v/x", "dbfs:///Volumes/main/ml/v/x"):
        system, inside = open_place(name)
        assert (system.type_name, inside) == ("local", "/Volumes/main/ml/v/x")

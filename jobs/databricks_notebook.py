# Databricks notebook source
# MAGIC %md
# MAGIC # Every user's nearest neighbors
# MAGIC It reads one table of Unity Catalog and writes another, on serverless or any other compute.
# MAGIC Put the wheel of annspark into a volume first. It brings no PySpark, which would stop the session.

# COMMAND ----------

# MAGIC %pip install /Volumes/main/ml/annspark/annspark-0.1.0-py3-none-any.whl

# COMMAND ----------

dbutils.widgets.text("input", "main.ml.user_vectors", "Table with user_id and vector")
dbutils.widgets.text("output", "main.ml.user_neighbors", "Table to write")
dbutils.widgets.text("scratch", "/Volumes/main/ml/annspark/scratch", "Folder for intermediate tables")
input, output, scratch = (dbutils.widgets.get(name) for name in ("input", "output", "scratch"))

# COMMAND ----------

import annspark

# Serverless compute cannot cache tables, so intermediate ones lie in scratch.
result = annspark.build_neighbors(spark.table(input), k=10, recall=0.95, scratch=scratch)
result.report  # the last value of a cell: a page on the recall, where Jinja2 and matplotlib are installed

# COMMAND ----------

# A recall that was missed has raised an error by now, and the table of yesterday stays.
result.table.write.mode("overwrite").saveAsTable(output)

# COMMAND ----------

display(spark.table(output).selectExpr("user_id", "inline(neighbors)").limit(100))

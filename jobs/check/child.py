"""A process of one build: INPUT OUTPUT SETTINGS; writes the table, and prints the report as JSON in its last line."""

import json
import sys

from pyspark.sql import SparkSession

from annspark import RecallMissed, build_neighbors


def main(source: str, output: str, settings: str) -> None:
    """Build once; a table that misses its recall is not written, but the report on it is printed."""
    spark = SparkSession.builder.appName("check").getOrCreate()
    try:
        result = build_neighbors(spark.read.parquet(source), **json.loads(settings))
        result.table.write.parquet(output)
        report = result.report
    except RecallMissed as missed:
        report = missed.report
    print(json.dumps(json.loads(report.as_json())))  # in one line


if __name__ == "__main__":
    main(*sys.argv[1:])

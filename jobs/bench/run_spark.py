"""A Spark system's process: SYSTEM INPUT OUTPUT METRIC SETTING; prints the seconds of its phases as JSON.

With SYSTEM alone it only starts Spark, which fetches the jars that the system needs.  Spark reads, computes and writes
in one go, so all of that is its phase compute.
"""

import importlib
import json
import sys

from bench.phases import timed


def main(code: str, *job: str) -> None:
    """Start Spark, then let the system search and write."""
    seconds: dict[str, float] = {}
    with timed(seconds, "session"):
        from pyspark.sql import SparkSession

        system = importlib.import_module(f"bench.systems.{code}")
        builder = SparkSession.builder.appName(f"benchmark {code}")
        for name, value in system.CONF.items():
            builder = builder.config(name, value)
        spark = builder.getOrCreate()
    if job:
        source, output, metric, words = job
        with timed(seconds, "compute"):
            system.search(spark.read.parquet(source), output, metric, json.loads(words))
    spark.stop()
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])

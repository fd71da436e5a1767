"""What tests of the command line share: a small build, and an input that is broken."""

from pathlib import Path

from annspark.cli import main

ROWS = 400
QUICK = ["--k", "4", "--leaf-rows", "60", "--audit-users", "40"]


def build(source: Path | str, output: Path | str, *more: str) -> int:
    return main(["build", "--input", str(source), "--output", str(output), *QUICK, *more])


def damaged(spark, inputs, folder):
    """Write the good table and, as z.parquet beside its files, half of one."""
    spark.read.parquet(str(inputs / "good")).write.parquet(str(folder / "in"))
    whole = next((folder / "in").glob("*.parquet")).read_bytes()
    (folder / "in" / "z.parquet").write_bytes(whole[: len(whole) // 2])
    return folder / "in"

"""A night: one run of the job by spark-submit on a cluster, whose log tells which step it is in."""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import threading
import time
import venv
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.cluster.standalone import BIN, Cluster, wait_for
from tests.helpers import JAVA_OPTIONS, REPOSITORY, clustered, files_in

STEPS = ("read", "sample", "grow", "calibrate", "join", "audit", "publish")
QUICK = ("--k", "5", "--leaf-rows", "100", "--audit-users", "200", "--overwrite")
_LONGEST = 600.0  # seconds
_ENDED = re.compile(r"(\w+) +([\d.]+) s  ")
# So that a lost executor is noticed within seconds.
_SOON = {
    "spark.network.timeout": "20s",
    "spark.network.timeoutInterval": "5s",
    "spark.executor.heartbeatInterval": "2s",
}
_SMALL = {
    "spark.executor.memory": "512m",
    "spark.driver.memory": "512m",
    "spark.ui.enabled": "false",
    "spark.executor.extraJavaOptions": JAVA_OPTIONS,
    "spark.port.maxRetries": "100",
}


@dataclass
class Night:
    """A running or ended job.

    ended : seconds of each step that has ended, by its name
    said  : lines of its output so far
    code  : exit code of spark-submit; None while it runs
    """

    cluster: Cluster
    ended: dict[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    code: int | None = None
    seconds: float = 0.0

    @property
    def step(self) -> str:
        """The step it is in: the first that has not ended; "" when all have."""
        return next((step for step in STEPS if step not in self.ended), "")

    @property
    def is_over(self) -> bool:
        """Whether spark-submit has ended."""
        return self.code is not None

    @property
    def sentence(self) -> str:
        """What the job said about its failure; "" where it said nothing."""
        return next((line for line in self.said if line.startswith("annspark: ")), "")

    def reaches(self, step: str) -> bool:
        """Wait until a step has begun, and return True; False when the job ended before."""
        before = STEPS[: STEPS.index(step)]

        def began() -> bool:
            done = all(earlier in self.ended for earlier in before)
            # Nothing is logged when the first step begins: it has begun when a Python worker runs.
            return self.is_over or (done and (bool(before) or bool(self.cluster.processes("Python worker"))))

        wait_for(began, f"the job reaches {step}", seconds=_LONGEST)
        return not self.is_over

    def wait(self) -> None:
        """Wait until it is over; TimeoutError where it takes much longer than any night."""
        wait_for(lambda: self.is_over, "the job ends", seconds=_LONGEST)

    def hear(self, line: str) -> None:
        """Take in a line of the job's output."""
        self.said.append(line.rstrip())
        if told := _ENDED.match(line):
            self.ended[told[1]] = float(told[2])


@contextmanager
def running(
    cluster: Cluster, place: Path, *more: str, conf: dict[str, str] | None = None, packed: Path | None = None
) -> Iterator[Night]:
    """Start a job that reads place/in and publishes place/out; when the block ends, wait until it is over.

    more   : further arguments of the job
    conf   : further settings of Spark
    packed : archive of a Python environment that executors run; None for this Python and a zip of annspark
    """
    settings = _SMALL | _SOON | (conf or {})
    options = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    package = cluster.folder / "annspark.zip"
    if packed:
        python = "spark.pyspark.python=./environment/bin/python"
        shipped = ["--archives", f"{packed}#environment", "--conf", python]
    else:
        if not package.exists():
            zip_package(package)
        shipped = ["--py-files", str(package)]
    command = [
        *(str(BIN / "spark-submit"), "--master", cluster.url, *options, *shipped),
        str(REPOSITORY / "jobs" / "build_neighbors.py"),
        *("--input", str(place / "in"), "--output", str(place / "out"), *QUICK, *more),
    ]
    night, start = Night(cluster), time.perf_counter()
    process = subprocess.Popen(
        command, cwd=place, env=cluster.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )

    def listen() -> None:
        for line in process.stdout or ():
            night.hear(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()

    def watch() -> None:
        process.wait()
        night.seconds = time.perf_counter() - start
        night.code = process.returncode

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield night
    night.wait()
    kinds = ("driver", "driver's Python", "executor")
    wait_for(lambda: not any(cluster.processes(kind) for kind in kinds), "all processes of the job end")
    listener.join()
    if process.stdout:
        process.stdout.close()


def zip_package(path: Path) -> None:
    """Write annspark into a zip, as `python -m zipfile -c annspark.zip annspark` does."""
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted((REPOSITORY / "annspark").rglob("*")):
            if "__pycache__" not in file.parts and file.is_file():
                packed.write(file, file.relative_to(REPOSITORY))


def pack_environment(folder: Path) -> Path:
    """Pack a Python with annspark and what its workers need, copied from this one; return the archive.

    As with venv-pack, the machine that unpacks it must have the Python it was made with at the same path.
    """
    made, packed = folder / "packed", folder / "environment.tar.gz"
    venv.create(made, symlinks=False)
    inside = next(made.glob("lib/python*/site-packages"))
    needed = [Path(np.__file__).parent.parent / name for name in ("numpy.libs", "pandas.libs")]
    for name in ("numpy", "pyarrow", "pandas", "dateutil", "pytz", "tzdata", "six", "annspark"):
        found = find_spec(name)  # pandas does not need all of them in all its versions
        needed += (
            [Path(found.origin).parent if found.submodule_search_locations else Path(found.origin)] if found else []
        )
    for source in needed:
        if source.is_dir():
            ignored = shutil.ignore_patterns("tests", "include", "__pycache__")
            shutil.copytree(source, inside / source.name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, inside)
    with tarfile.open(packed, "w:gz", compresslevel=1) as archive:
        archive.add(made, ".")
    return packed


def write_input(folder: Path, rows: int, dim: int, seed: int = 0, parts: int = 4) -> None:
    """Write seeded vectors as Parquet files: user_id, vector."""
    vectors = clustered(rows, dim, seed=seed)
    folder.mkdir(parents=True)
    for part, ids in enumerate(np.array_split(np.arange(rows), parts)):
        column = pa.FixedSizeListArray.from_arrays(vectors[ids].ravel(), dim).cast(pa.list_(pa.float32()))
        pq.write_table(pa.table({"user_id": ids, "vector": column}), folder / f"part-{part}.parquet")


def digest(folder: Path) -> str:
    """Return a digest of a nested neighbor table: all ids, neighbors and bits of distances, in the order of the ids."""
    table = pq.read_table(folder).sort_by("user_id").combine_chunks()
    lists = table["neighbors"].combine_chunks()
    pairs = lists.flatten()
    columns = [table["user_id"], lists.value_lengths(), pairs.field("neighbor_id"), pairs.field("distance")]
    found = hashlib.sha256()
    for column in columns:
        found.update(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes())
    return found.hexdigest()[:16]


def left_in(place: Path, *expected: str) -> list[str]:
    """Return the names in a folder, its scratch folder and the report's that a job leaves when it does not clean up."""
    inside = [f"scratch/{path.name}" for path in place.glob("scratch/*")]
    inside += [f"out.report/{path.name}" for path in place.glob("out.report/.*")]
    return [*sorted({*files_in(place)} - {"in", "out", "out.report", "scratch", *expected}), *inside]


def size_of(places: Sequence[Path]) -> tuple[int, int]:
    """Return the bytes and the number of the files below some folders."""
    sizes = [
        (Path(folder) / name).lstat().st_size
        for place in places
        for folder, _, names in os.walk(place)
        for name in names
    ]
    return sum(sizes), len(sizes)

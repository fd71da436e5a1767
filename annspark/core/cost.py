"""Cost: what a build takes, as core-seconds and seconds of each step, bytes and memory, from measured rates."""

from dataclasses import dataclass

from annspark.core.keeper import MAX_ROWS
from annspark.core.plan import count_staged_bytes

MODEL_ERROR = 0.2  # of the seconds, beside that of the probes: twice as far as the README's predictions are off
MOST_BROADCAST_BYTES = (1 << 31) - 1  # Java holds the forest in one array of bytes
_LIBRARY_BYTES = 100_000_000  # of a Python worker: the interpreter, NumPy and PyArrow
_FOREST_COPIES = 3  # in a Python worker: the forest, and its groups of leaves, which are twice as large
# Java holds a row group whole for each core.  With conf/spark-local.conf 55 % of the heap are free for them: a fifth is
# for young objects, a quarter for cached vectors.  Decoding long vectors, and Spark itself, take some more.
_FREE_SHARE, _BESIDE = 0.55, 300 << 20
_ROW_GROUP = 1 << 20  # rows of a row group as PyArrow writes them
_FIXED_CORES = 2  # that the fixed part of a step keeps busy: Spark's planning and Java's compilers


@dataclass(frozen=True)
class Kernels:
    """Seconds that one core of this machine takes for what depends most on the vectors, as measured in a worker.

    reference : for a fixed piece of work, which tells how fast the core is
    row       : to join a vector, besides its pairs
    pair      : to compare a pair of vectors
    """

    reference: float
    row: float
    pair: float


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Core-seconds, those of Python and of Java together, for what a short run cannot tell apart.

    reference        : what Kernels.reference was on the machine on which the rates were measured
    fixed            : of each step, however few the rows
    read_row         : to read and check a row
    read_byte        : to read, check and store a byte of a vector in float32
    exact_number     : to compare a number of a row with one of a user whose exact neighbors are found
    copy_byte        : to ship a byte of a copy of a vector, with its list
    written_neighbor : to write a neighbor of the table
    audit_row        : to pass over a row of the table
    """

    reference: float
    fixed: dict[str, float]
    read_row: float
    read_byte: float
    exact_number: float
    copy_byte: float
    written_neighbor: float
    audit_row: float


# Fitted by python -m jobs.benchmark.rates on 2026-11-29: five builds on two cores of an AMD EPYC, with Java 17 and
# PySpark 4.3.0.  The core-seconds of the join come out within 12 % of those measured, and of all other steps together
# within 15 %.
RATES = Rates(
    reference=0.0336,
    fixed={"start": 6.3, "read": 4.4, "sample": 0.6, "grow": 0.6, "join": 2.3, "audit": 0.2, "publish": 0.4},
    read_row=1.6e-6,
    read_byte=1.2e-8,
    exact_number=4.9e-11,
    copy_byte=2.2e-8,
    written_neighbor=8.7e-7,
    audit_row=2.2e-6,
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a build has to do.

    rows   : of the table
    width  : numbers of 4 bytes that a vector takes, on average
    k      : neighbors of a user
    exact  : users whose exact neighbors are found
    pairs  : pairs compared for a user
    copies : partitions that a vector is shipped to, on average
    route  : seconds of a core to find the leaves that a vector goes to
    grow   : seconds of a core to grow the forest
    limbs  : limbs of a tree that executors grow; 0 where the driver grows it whole
    """

    rows: int
    width: float
    k: int
    exact: int
    pairs: float
    copies: float
    route: float
    grow: float
    limbs: int


@dataclass(frozen=True)
class Spent:
    """Core-seconds of a step.

    fixed : however few the rows are
    grows : with the rows; all cores share them
    """

    fixed: float
    grows: float

    @property
    def core_seconds(self) -> float:
        """All of them."""
        return self.fixed + self.grows

    def seconds(self, cores: int) -> float:
        """Return the seconds on so many cores that have nothing else to do."""
        return self.fixed / min(cores, _FIXED_CORES) + self.grows / cores


def count_core_seconds(work: Work, kernels: Kernels, rates: Rates) -> dict[str, Spent]:
    """Return the core-seconds of each step of a build, in the order of the steps."""
    speed, rows = kernels.reference / rates.reference, work.rows
    grows = {
        "start": 0.0,
        "read": rows * (rates.read_row + 4 * work.width * rates.read_byte),
        "sample": 0.0,
        "grow": rows * work.exact * work.width * rates.exact_number,
        "join": rows * (4 * work.width * work.copies * rates.copy_byte + work.k * rates.written_neighbor),
        "audit": rows * rates.audit_row,
        "publish": 0.0,
    }
    spent = {name: Spent(speed * rates.fixed[name], speed * each) for name, each in grows.items()}
    measured = rows * (work.route + kernels.row + work.pairs * kernels.pair)
    spent["join"] = Spent(spent["join"].fixed, spent["join"].grows + measured)
    # One thread of the driver grows the forest while the others find exact neighbors, or tasks grow its limbs.
    exact = spent["grow"]
    alone, shared = (0.0, work.grow) if work.limbs else (work.grow, 0.0)
    spent["grow"] = Spent(exact.fixed + alone, exact.grows + shared)
    return spent


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """What a build holds and moves, in bytes.

    shuffled  : between partitions, which local disks hold until the build ends
    staged    : of the table of vectors, and of the finished table
    broadcast : of the forest, to every executor
    worker    : of memory in a Python worker, at most
    java      : of Java's heap, for all cores together, where row groups are as PyArrow writes them; staged tables for
                which it has no room besides go to local disks
    """

    shuffled: int
    staged: int
    broadcast: int
    worker: int
    java: int


def count_bytes(
    work: Work, *, shuffled: int, task: int, sampled: int, leaves: int, id_bytes: float, cores: int
) -> Bytes:
    """Return what a build holds and moves.

    shuffled : bytes between partitions
    task     : bytes that a worker holds while it joins or merges, besides its libraries and the forest
    sampled  : vectors that the driver grows the forest from
    leaves   : of all trees
    """
    vector, neighbor = 4 * work.width, 4 + id_bytes
    forest = round(leaves * vector)
    groups = min(cores * _ROW_GROUP, work.rows) * vector
    return Bytes(
        shuffled=shuffled,
        staged=round(count_staged_bytes(work.rows, work.width) + work.rows * (2 * id_bytes + work.k * neighbor)),
        broadcast=forest,
        worker=_LIBRARY_BYTES + task + _FOREST_COPIES * forest,
        # The driver's Java holds what it collects and what it sends twice, as parts and as a whole.
        java=heap_to_hold(max(groups, 2 * sampled * vector + 2 * forest)),
    )


def heap_to_hold(n_bytes: float) -> int:
    """Return the bytes of heap with which Java can hold so many bytes, as it reads row groups for example."""
    return int((n_bytes + _BESIDE) / _FREE_SHARE)


def find_limits(
    needed: Bytes, *, rows: int, placed: int, free: int, per_partition: float, limbs: int
) -> tuple[str, ...]:
    """Return a sentence for everything that limits a build or its plan; none for most builds.

    rows          : of the table
    placed        : rows of the largest table whose leaves the sample could place
    free          : bytes that are free for a worker, 0 where that is not known
    per_partition : copies of vectors in a partition, on average
    limbs         : limbs of a tree that executors grow; 0 where the driver grows it whole
    """
    told = []
    if rows > placed:
        told.append(
            f"The sample places the leaves of {placed:,} rows. Beyond that, probes and copies are extrapolated: give a "
            "larger sample."
        )
    if limbs:
        told.append(
            f"The driver's sample is too small for the leaves of a tree: executors grow them in {limbs:,} limbs, which "
            "costs recall (0.954 became 0.924 in 6 limbs) or more probes than told here."
        )
    if needed.broadcast > MOST_BROADCAST_BYTES:
        told.append(
            f"The forest has {needed.broadcast:,} bytes, and Spark broadcasts {MOST_BROADCAST_BYTES:,} at most. Set "
            "leaf_rows higher, or build parts of the table."
        )
    if per_partition > MAX_ROWS:
        told.append(f"A partition would have {per_partition:,.0f} rows, and may have {MAX_ROWS:,}.")
    if 0 < free < needed.worker:
        told.append(
            f"A Python worker may need {needed.worker / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free for each core "
            "here. Give executors fewer cores or more memory outside of Java's heap."
        )
    return tuple(told)

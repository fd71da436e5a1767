"""How fast one vector is answered: one thread, warm, at a recall@10 of 0.95; the systems take turns in one process.

    python -m jobs.benchmark.latency --prepare --sets synthetic:1000000x64 path/to/NAME.npz
    annspark fit ...                      # as --prepare prints it, for each set
    python -m jobs.benchmark.latency --out results --sets synthetic:1000000x64 path/to/NAME.npz \\
        --index synthetic:1000000x64=DIR NAME=DIR

The sets are those of `python -m jobs.benchmark`.  The vectors asked are 2,000 that no index holds: of a synthetic set
the rows that follow, of an .npz rows drawn with a fixed seed, which are left out.  Each system goes up its ladder of
efforts to the first that finds 0.95 of the exact neighbors, and is timed with that one: in each round, in turn, it
answers some vectors untimed and then --asks of them, one by one.  latency.json and latency.md are written after every
set.  Indexes of the libraries are built on two cores and kept in --cache.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

from jobs.benchmark import kernels  # first: it sees to one thread of linear algebra

import numpy as np  # isort: skip

from jobs.benchmark.askers import ASKERS, Ask, Asker
from jobs.benchmark.runs import machine, versions
from jobs.benchmark.sets import load, metric_of, name_of, shape_of, write_vectors
from jobs.benchmark.systems import K, Setting, as_text
from tests.oracle import between, recall_by_row

QUERIES = 2_000
TARGET = 0.95
WARM = 20  # untimed answers at the start of a turn: the others have filled the processor's caches
GROWTH = tuple(f"synthetic:{rows}x64" for rows in (100_000, 300_000, 1_000_000, 3_000_000))
UNDISTURBED = 0.95  # of a core, and more
BLOCK = 10_000  # rows compared at once
RIVALS = ("annoy", "hnswlib")  # that the tables divide by
HEAD = """# One vector at a time, {date}

{cpu} ({vectors}), one thread, {memory_gb} GB; {versions}.

Microseconds that one vector takes, which no index holds, at the first setting of each ladder that finds {target} of
the 10 nearest; {queries:,} vectors, of which the systems answered {asks} in turn in each of {rounds} rounds.  A vector
takes the median of its answers; "all p99" is that of all answers, with what else the machine did.  "x" is the p50, and
the p99, over the least that an index of the system named takes.  Build seconds are on two cores, bytes those of the
files.
"""


@dataclass(frozen=True)
class Held:
    """A set: its folder holds vectors.parquet with the rows indexed, and what is needed to ask and to score.

    rows   : float32 (n, dim), as in the input: first those indexed, row number = id, then those asked
    radius : float64, of each row asked, distance of its exact K-th neighbor among those indexed
    """

    name: str
    folder: Path
    metric: str
    rows: np.ndarray
    radius: np.ndarray

    @property
    def vectors(self) -> np.ndarray:
        """Return the rows that are indexed."""
        return self.rows[: -len(self.radius)]

    @property
    def queries(self) -> np.ndarray:
        """Return the rows that are asked."""
        return self.rows[-len(self.radius) :]


@dataclass(frozen=True)
class Ready:
    """A system's index, open, at the effort that is timed."""

    system: str
    setting: str
    recall: float
    ask: Ask
    queries: list[Any]
    build_seconds: float | None
    index_bytes: int
    spent: list[np.ndarray] = field(default_factory=list)  # nanoseconds of the answers of each round
    cores: list[float] = field(default_factory=list)  # busy in each round


@dataclass(frozen=True)
class Timed:
    """What latency.json tells of a system on a set, or why there is nothing to tell.

    p50, p99  : microseconds of the vectors, of each the median of its answers
    all_p99   : microseconds of all answers
    round_p50 : the p50 of each round
    cores     : processor seconds a second while it was timed; above 1 it does not answer on one thread
    """

    set: str
    system: str
    setting: str
    skipped: str = ""
    recall: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    all_p99: float = 0.0
    round_p50: tuple[float, ...] = ()
    cores: float = 0.0
    build_seconds: float | None = None
    index_bytes: int = 0


def main(arguments: list[str] | None = None) -> None:
    """Prepare the sets, or time the systems on each."""
    parser = _parser()
    args = parser.parse_args(arguments)
    sources = [*args.sets, *(GROWTH if args.grow else ())]
    given: dict[str, list[Path]] = {}
    for name, _, folder in (one.partition("=") for one in args.index):
        given.setdefault(name, []).append(Path(folder))
    unknown = set(given) - {name_of(source) for source in sources}
    if not sources or unknown or (args.out is None and not args.prepare):
        parser.error(f"no set is called {', '.join(unknown)}" if unknown else "give --sets or --grow, and --out")
    if args.prepare:
        for source in sources:
            print(told(hold_out(source, args.cache)), flush=True)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if (args.out / "latency.json").exists():
        sys.exit(f"{args.out / 'latency.json'} exists: another --out starts anew.")
    results: list[Timed] = []
    for source in sources:
        data = hold_out(source, args.cache)
        results += time_set(data, args.systems, given.get(data.name, []), args.rounds, args.asks)
        write(args.out, results, args.rounds, args.asks)


def hold_out(source: str, cache: Path) -> Held:
    """Return a set by its name, without the rows that are asked."""
    name = name_of(source)
    folder = cache / "latency" / name.replace(":", "-")
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        vectors, queries = split(source)
        metric = metric_of(source)
        np.save(part / "vectors.npy", vectors)
        write_vectors(part / "vectors.parquet", vectors)
        np.savez(part / "asked.npz", queries=queries, radius=radius_of(vectors, queries, metric), metric=metric)
        part.rename(folder)
    asked = np.load(folder / "asked.npz")
    rows = np.concatenate([np.load(folder / "vectors.npy", mmap_mode="r"), asked["queries"]])
    return Held(name, folder, str(asked["metric"]), rows, asked["radius"])


def split(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to index and those to ask: beyond a synthetic set, or drawn with a fixed seed."""
    shape = shape_of(source)
    if shape:
        kind, rows, dim = shape
        vectors = load(f"{kind}:{rows + QUERIES}x{dim}")
        return vectors[:rows], vectors[rows:]
    vectors = load(source)
    asked = np.zeros(len(vectors), bool)
    asked[np.random.default_rng(2).permutation(len(vectors))[-QUERIES:]] = True
    return vectors[~asked], vectors[asked]


def radius_of(vectors: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    """Return each query's exact distance to its K-th nearest: float64 (n,).

    A float32 product finds some more than K of them, the plain definition of the distance measures these.
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"The metric is {metric}, and the systems are compared under cosine and euclidean only.")
    some, wanted = (kernels.unit(queries) if metric == "cosine" else queries), 4 * K
    best, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        block = kernels.unit(block) if metric == "cosine" else block
        far = np.einsum("ij,ij->i", block, block) - 2 * (some @ block.T)
        near = np.argpartition(far, min(wanted, len(block)) - 1, axis=1)[:, :wanted]
        best, rows = np.hstack([best, np.take_along_axis(far, near, axis=1)]), np.hstack([rows, start + near])
        kept = np.argsort(best, axis=1)[:, :wanted]
        best, rows = np.take_along_axis(best, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
    measured = [between(query[None], vectors[near], metric)[0] for query, near in zip(queries, rows, strict=True)]
    return np.sort(measured, axis=1)[:, K - 1]


def told(data: Held) -> str:
    """Return what --prepare says of a set."""
    rows, dim = data.vectors.shape
    return (
        f"{data.name}: {rows:,} x {dim}, {data.metric}; {len(data.queries):,} others to ask in {data.folder}\n"
        f"annspark fit --input {data.folder / 'vectors.parquet'} --metric {data.metric} --recall {TARGET} "
        f"--index {data.folder / 'annspark'}"
    )


def time_set(data: Held, systems: Sequence[str], indexes: list[Path], rounds: int, asks: int) -> list[Timed]:
    """Return what each system takes on a set: all are opened, then they take turns.

    indexes : annspark's
    """
    ready: list[Ready] = []
    results: list[Timed] = []
    for system in systems:
        asker = ASKERS[system]
        builds: list[Setting | Path | None] = list(asker.builds) if asker.build else [*indexes] or [None]
        for build in builds:
            setting = as_text(build) if isinstance(build, dict) else ""
            print(f"{data.name}, {system}, {setting or build}: ", end="", flush=True)
            try:
                one = get_ready(data, system, build)
            except Skipped as reason:
                print(f"skipped: {reason}", flush=True)
                results.append(Timed(data.name, system, setting, str(reason)))
            else:
                print(f"{one.setting}, recall {one.recall:.4f}", flush=True)
                ready.append(one)
    take_turns(ready, rounds, asks)
    return [timed_of(data.name, one) for one in ready] + results


class Skipped(Exception):
    """Says why a system takes no part."""


def get_ready(data: Held, system: str, build: Setting | Path | None) -> Ready:
    """Return a system at the first effort of its ladder that finds enough, or raise Skipped.

    build : how a library's index is built, or the folder of annspark's, None where there is none
    """
    asker = ASKERS[system]
    try:
        module = import_module(asker.module)
    except ImportError as error:
        raise Skipped(f"not installed ({error})") from error
    if isinstance(build, dict):
        path, seconds = built(data, asker, module, system, build)
    else:
        path, seconds = _checked(data, build), None
        build = {"leaf_rows": json.loads((path / "index.json").read_text())["settings"]["leaf_rows"]}
    opened = asker.open(module, path, data.vectors.shape[1], data.metric)
    given = data.queries if asker.raw or data.metric != "cosine" else kernels.unit(data.queries)
    queries = [asker.form(query) for query in given]
    numbers = np.arange(len(data.vectors), len(data.rows))

    def recall_at(effort: Any) -> float:
        ask = opened(effort)
        near = [np.ravel(ask(query)[0]) for query in queries]
        found = recall_by_row(
            data.rows, data.metric, K, numbers, [some[some >= 0] for some in near], radius=data.radius
        )
        return float(found.mean())

    effort, recall = climb(asker.ladder, recall_at)
    if recall < TARGET:
        raise Skipped(f"finds {recall:.4f} at {asker.effort}={effort}")
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    setting = as_text(build | {asker.effort: "calibrated" if effort is None else effort})
    return Ready(system, setting, recall, opened(effort), queries, seconds, size)


def climb(ladder: Sequence[Any], recall_at: Callable[[Any], float], stride: int = 4) -> tuple[Any, float]:
    """Return the first effort that finds TARGET and what it finds, or the last.

    Every fourth is tried, then those below it.
    """
    recall = 0.0
    for first in range(0, len(ladder), stride):
        *below, top = ladder[first : first + stride]
        recall = recall_at(top)
        if recall >= TARGET:
            lower = ((effort, found) for effort in below if (found := recall_at(effort)) >= TARGET)
            return next(lower, (top, recall))
    return ladder[-1], recall


def built(data: Held, asker: Asker, module: Any, system: str, setting: Setting) -> tuple[Path, float]:
    """Return the file of a library's index and the seconds its build took, this time or earlier."""
    path = data.folder / f"{system} {as_text(setting)}.index"
    seconds = path.with_suffix(".seconds")
    if not seconds.exists():
        vectors = kernels.unit(data.vectors) if data.metric == "cosine" else data.vectors
        start = time.perf_counter()
        index = asker.build(module, vectors, data.metric, setting)
        took = time.perf_counter() - start
        asker.save(module, index, path)
        seconds.write_text(f"{took:.1f}\n")
    return path, float(seconds.read_text())


def _checked(data: Held, index: Path | None) -> Path:
    """Return the folder of annspark's index, which has to be one of this set."""
    if index is None:
        raise Skipped(f"no index: make one with annspark fit (--prepare says how), then --index {data.name}=DIR")
    manifest = index / "index.json"
    if not manifest.exists():
        raise Skipped(f"{index} is no index: it has no index.json")
    said = json.loads(manifest.read_text())
    shape = (said.get("rows"), said.get("dim"))
    if shape != data.vectors.shape:
        raise Skipped(f"{index} has {shape[0]} x {shape[1]} numbers, the set {data.vectors.shape}")
    return index


def take_turns(ready: list[Ready], rounds: int, asks: int) -> None:
    """Note what each answer takes: in each round all systems get the same queries, starting with another system.

    Before the first round each answers all queries once: others' indexes were built since its own was in memory.
    """
    for one in ready:
        nanoseconds(one.ask, one.queries)
    for number in range(rounds):
        first = number * asks
        for turn in range(len(ready)):
            one = ready[(number + turn) % len(ready)]
            for query in _part(one.queries, first - WARM, first):
                one.ask(query)
            queries = _part(one.queries, first, first + asks)
            start, busy = time.perf_counter(), time.process_time()
            one.spent.append(nanoseconds(one.ask, queries))
            one.cores.append((time.process_time() - busy) / (time.perf_counter() - start))


def _part(queries: list[Any], first: int, last: int) -> list[Any]:
    """Return those from first to last, again and again from the beginning."""
    return [queries[number % len(queries)] for number in range(first, last)]


def nanoseconds(ask: Ask, queries: list[Any]) -> np.ndarray:
    """Return what each answer takes."""
    spent = np.empty(len(queries), np.int64)
    for number, query in enumerate(queries):
        start = time.perf_counter_ns()
        ask(query)
        spent[number] = time.perf_counter_ns() - start
    return spent


def timed_of(name: str, one: Ready) -> Timed:
    """Return what a system took."""
    answers = np.concatenate(one.spent) / 1000
    asked = np.arange(len(answers)) % len(one.queries)
    p50, p99 = np.percentile([np.median(answers[asked == query]) for query in np.unique(asked)], [50, 99])
    return Timed(
        name,
        one.system,
        one.setting,
        recall=round(one.recall, 4),
        p50=round(float(p50), 1),
        p99=round(float(p99), 1),
        all_p99=round(float(np.percentile(answers, 99)), 1),
        round_p50=tuple(round(float(np.median(spent)) / 1000, 1) for spent in one.spent),
        cores=round(float(np.mean(one.cores)), 2),
        build_seconds=one.build_seconds,
        index_bytes=one.index_bytes,
    )


def write(out: Path, results: list[Timed], rounds: int, asks: int) -> None:
    """Write latency.json and latency.md."""
    text = {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
    text |= {"target": TARGET, "queries": QUERIES, "rounds": rounds, "asks": asks}
    (out / "latency.json").write_text(json.dumps(text | {"results": [asdict(one) for one in results]}, indent=1) + "\n")
    (out / "latency.md").write_text(as_markdown(text, results))


def as_markdown(text: dict[str, Any], results: list[Timed]) -> str:
    """Return the table of all systems on all sets, what was skipped, and growth where there are several sizes."""
    said = ", ".join(f"{name} {number}" for name, number in text["versions"].items() if number != "not installed")
    columns = ["set", "system", "setting", "recall", "p50 us", "p99 us", "all p99", *(f"x {rival}" for rival in RIVALS)]
    lines = [HEAD.format(**text["machine"], **(text | {"versions": said}))]
    lines += ["| " + " | ".join([*columns, "build s", "index bytes"]) + " |", "|---" * (len(columns) + 2) + "|"]
    for one in results:
        if not one.skipped:
            build = "-" if one.build_seconds is None else f"{one.build_seconds:.1f}"
            numbers = [f"{one.recall:.4f}", f"{one.p50:,.0f}", f"{one.p99:,.0f}", f"{one.all_p99:,.0f}"]
            numbers += [_ratio(one, results, rival) for rival in RIVALS] + [build, f"{one.index_bytes:,}"]
            lines.append("| " + " | ".join([one.set, _name(one.system), one.setting, *numbers]) + " |")
    skipped = [one for one in results if one.skipped]
    lines += ["" for _ in skipped[:1]]
    lines += [f"- {one.set}, {f'{one.system} {one.setting}'.strip()}: {one.skipped}" for one in skipped]
    return "\n".join([*lines, *_shared(results), *_growth(results)]).rstrip() + "\n"


def _shared(results: list[Timed]) -> list[str]:
    """Return a warning where others had the processor too: then the p99 of all answers tells of them."""
    cores = [one.cores for one in results if not one.skipped]
    if not cores or min(cores) > UNDISTURBED:
        return []
    return ["", f"The machine was shared: the systems had {min(cores):.2f} to {max(cores):.2f} of a core."]


def _ratio(one: Timed, results: list[Timed], rival: str) -> str:
    """Return the p50, and the p99, over the least that an index of the rival takes."""
    others = [other for other in results if (other.set, other.system) == (one.set, rival) and not other.skipped]
    if not others:
        return "-"
    return f"{one.p50 / min(other.p50 for other in others):.2f}, {one.p99 / min(other.p99 for other in others):.2f}"


def fastest(results: list[Timed], name: str, system: str) -> Timed | None:
    """Return the result of a system's fastest index on a set, None where there is none."""
    own = [one for one in results if (one.set, one.system) == (name, system) and not one.skipped]
    return min(own, key=lambda one: one.p50, default=None)


def _growth(results: list[Timed]) -> list[str]:
    sets = [name for name in dict.fromkeys(one.set for one in results) if name in GROWTH]
    if len(sets) < 2:
        return []
    lines = ["", "p50 (p99), microseconds, of each system's fastest index:", ""]
    lines += ["| system | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for system in dict.fromkeys(one.system for one in results):
        best = [fastest(results, name, system) for name in sets]
        cells = [f"{one.p50:,.0f} ({one.p99:,.0f})" if one else "-" for one in best]
        lines.append(f"| {_name(system)} | " + " | ".join(cells) + " |")
    return lines


def _name(system: str) -> str:
    return f"**{system}**" if system == "annspark" else system


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, help="folder of latency.json and latency.md")
    add("--sets", nargs="+", default=[], metavar="SET", help="sets of vectors, see above")
    add("--grow", action="store_true", help=f"these sets too: {' '.join(GROWTH)}")
    add("--systems", nargs="+", choices=ASKERS, default=list(ASKERS), metavar="NAME", help=", ".join(ASKERS))
    what = "annspark's indexes, by the names of the sets; a set may have several, as of several leaf_rows"
    add("--index", nargs="+", default=[], metavar="SET=DIR", help=what)
    add("--prepare", action="store_true", help="only write the sets, and say how annspark makes an index of each")
    add("--rounds", type=int, default=50, help="turns of each system (50: five answers of each vector)")
    add("--asks", type=int, default=200, help="vectors answered in a turn (200)")
    cache = Path(tempfile.gettempdir()) / "annspark-bench"
    add("--cache", type=Path, default=cache, help=f"folder that keeps the sets and the indexes of others ({cache})")
    return parser


if __name__ == "__main__":
    main()

"""Where the time of a build goes: seconds and core-seconds by step, and what spent them. Linux only.

    python jobs/check_cpu.py --set synthetic:1000000x64 --probes 2

Prints a Markdown table. A set is named as the benchmark names it, and configured as there.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from bench.commands import command
from bench.environment import environment
from bench.sets import prepare
from check.cpu import profile
from check.threads import KINDS


def main() -> None:
    """Run once and print the table."""
    args = _parser().parse_args()
    data = prepare(args.set, args.cache)
    with tempfile.TemporaryDirectory(prefix="annspark-check-") as folder:
        line = command("annspark", {"probes": args.probes}, data, Path(folder) / "neighbors", sys.executable)
        steps = profile(line, environment("annspark", Path(folder), sys.executable))
    print(f"| step | seconds | core-seconds | {' | '.join(KINDS)} |\n|{'---|' * (3 + len(KINDS))}")
    totals = {kind: sum(spent[kind] for _, _, spent in steps) for kind in KINDS}
    for name, seconds, spent in [*steps, ("all", sum(seconds for _, seconds, _ in steps), totals)]:
        numbers = [seconds, sum(spent.values()), *spent.values()]
        print(f"| {name} | {' | '.join(f'{number:.1f}' for number in numbers)} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", required=True)
    parser.add_argument("--probes", type=float, default=2)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "annspark-bench")
    return parser


if __name__ == "__main__":
    main()

"""Row groups: how much memory Java needs to read an input, as the Parquet files tell."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from annspark.core.cost import heap_to_hold
from annspark.filesystem import open_place, scheme_of

_LARGE = 32 << 20  # bytes of a file that is worth looking into


def heap_to_read(places: Iterable[str], cores: int) -> int:
    """Return the bytes of heap that Java needs to read tables; 0 where their files are small or do not tell.

    Only files that this machine has are looked at: of each table the largest one, and of that its footer.
    """
    held = max((_bytes_held(place, cores) for place in places), default=0)
    return heap_to_hold(held) if held else 0


def _bytes_held(place: str, cores: int) -> int:
    """Return the bytes of the row groups of a table that all cores together hold."""
    if scheme_of(place) not in ("", "file"):
        return 0
    with suppress(Exception):  # a pattern, a catalog table, or files of another format
        path = Path(open_place(place)[1])
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        largest = max(files, key=lambda file: file.stat().st_size)
        if largest.stat().st_size >= _LARGE:
            sizes = _sizes_of_groups(largest)
            return max(sizes) * min(cores, len(files) + len(sizes) - 1)
    return 0


def _sizes_of_groups(file: Path) -> list[int]:
    """Return the bytes of each row group of a Parquet file, as they are stored."""
    from pyarrow.parquet import read_metadata

    footer = read_metadata(file)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    return [sum(group.column(i).total_compressed_size for i in range(group.num_columns)) for group in groups]

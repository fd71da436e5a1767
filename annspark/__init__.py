"""Approximate k nearest neighbors of every user at once, on Apache Spark: a table in, a table out."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AnnsparkError",
    "ClusterError",
    "InputError",
    "RecallMissed",
    "SettingsError",
    "build_neighbors",
    "open_index",
]

if TYPE_CHECKING:
    from annspark.errors import AnnsparkError, ClusterError, InputError, RecallMissed, SettingsError
    from annspark.local import open_index
    from annspark.pipeline import build_neighbors


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that importing annspark.core never imports Spark.
    if name == "build_neighbors":
        from annspark.pipeline import build_neighbors

        return build_neighbors
    if name == "open_index":
        from annspark.local import open_index

        return open_index
    if name in __all__:
        from annspark import errors

        return getattr(errors, name)
    raise AttributeError(f"module 'annspark' has no attribute {name!r}")

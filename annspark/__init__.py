"""Approximate k nearest neighbors of every user at once, on Apache Spark: a table in, a table out."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from annspark.hide import hide_in_record

__version__ = "0.1.0"
__all__ = [
    "AnnsparkError",
    "BuildNeeded",
    "ClusterError",
    "Index",
    "InputError",
    "LocalIndex",
    "RecallMissed",
    "SettingsError",
    "build_neighbors",
    "files_of",
    "fit",
    "load",
    "open_index",
    "uses",
]

if TYPE_CHECKING:
    from annspark import uses
    from annspark.errors import AnnsparkError, BuildNeeded, ClusterError, InputError, RecallMissed, SettingsError
    from annspark.index import Index, fit, load
    from annspark.listed import files_of
    from annspark.local import LocalIndex, open_index
    from annspark.neighbors import build_neighbors

logging.getLogger("annspark").addFilter(hide_in_record)  # every module logs to it
_HOMES = {
    "build_neighbors": "neighbors",
    **dict.fromkeys(("Index", "fit", "load"), "index"),
    **dict.fromkeys(("LocalIndex", "open_index"), "local"),
    "files_of": "listed",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: annspark.core and a local index never import Spark.
    if name == "uses":
        return import_module("annspark.uses")
    if name in __all__:
        return getattr(import_module(f"annspark.{_HOMES.get(name, 'errors')}"), name)
    raise AttributeError(f"module 'annspark' has no attribute {name!r}")

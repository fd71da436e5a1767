"""What a neighbor table is for: a table in, a table out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "duplicates",
    "from_arrays",
    "from_table",
    "outliers",
    "recommend",
    "to_arrays",
    "to_csr",
    "to_edges",
    "vote",
]

if TYPE_CHECKING:
    from annspark.uses.arrays import to_arrays, to_csr
    from annspark.uses.edges import to_edges
    from annspark.uses.foreign import from_arrays, from_table
    from annspark.uses.groups import duplicates
    from annspark.uses.items import recommend
    from annspark.uses.scores import outliers
    from annspark.uses.votes import vote

_HOMES = {
    **{"duplicates": "groups", "outliers": "scores", "recommend": "items", "vote": "votes"},
    **{"from_arrays": "foreign", "from_table": "foreign"},
    **{"to_arrays": "arrays", "to_csr": "arrays", "to_edges": "edges"},
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: the command line reads settings of uses before it needs Spark.
    if name in _HOMES:
        return getattr(import_module(f"annspark.uses.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'annspark.uses' has no attribute {name!r}")

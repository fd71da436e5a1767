"""Column names, the contract between steps, and the schemas of what is published."""

USER_ID = "user_id"
VECTOR = "vector"
NEIGHBORS = "neighbors"
NEIGHBOR_ID = "neighbor_id"
DISTANCE = "distance"
RANK = "rank"


def quoted(column: str) -> str:
    """Quote a column name, so that one with dots or spaces means itself."""
    return "`" + column.replace("`", "``") + "`"

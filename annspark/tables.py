"""Column names, the contract between steps."""

USER_ID = "user_id"
VECTOR = "vector"
NEIGHBORS = "neighbors"
NEIGHBOR_ID = "neighbor_id"
DISTANCE = "distance"
RANK = "rank"

# Of vectors on their way to the join: key of the partition, home leaf, leaves visited.
TARGET, HOME, VISITS = "target", "home", "visits"
# Of what a partition found: neighbors and distances of a user, pairs compared, residents of its largest leaf.
IDS, DISTANCES, PAIRS, MAX_ROWS = "ids", "distances", "pairs", "max_rows"


def quoted(column: str) -> str:
    """Quote a column name, so that one with dots or spaces means itself."""
    return "`" + column.replace("`", "``") + "`"

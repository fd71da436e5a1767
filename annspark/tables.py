"""Column names, the contract between steps."""

USER_ID = "user_id"
VECTOR = "vector"
NEIGHBORS = "neighbors"
NEIGHBOR_ID = "neighbor_id"
DISTANCE = "distance"
INNER_PRODUCT = "inner_product"  # published in place of the distance, where it is the metric
RANK = "rank"

# Users travel in blocks, some to a row: ids (array), seeded hashes of the ids (binary int64), vectors (binary float32;
# of sparse rows the values, with their columns and the number of each row's, binary int32).
IDS, HASHES, VECTORS, COLUMNS, N_VALUES = "ids", "hashes", "vectors", "columns", "n_values"
# Smallest hash of a staged block.
LOWEST = "lowest"
# Of blocks on their way to the join: key of the partition, home leaves (binary int32), other leaves visited (binary
# int32, user after user) and how many each (binary int32).
TARGET, HOMES, VISITS, N_VISITS = "target", "homes", "visits", "n_visits"
# Of what a partition found, blocks of users' lists: neighbors (array), distances (binary float32), how many each
# (binary int32); pairs compared, residents of the partition's largest leaf.
NEIGHBOR_IDS, DISTANCES, COUNTS, PAIRS, MAX_ROWS = "neighbor_ids", "distances", "counts", "pairs", "max_rows"


def quoted(column: str) -> str:
    """Quote a column name, so that one with dots or spaces means itself."""
    return "`" + column.replace("`", "``") + "`"

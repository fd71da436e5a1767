"""The names of columns, on which all steps agree."""

USER_ID = "user_id"
VECTOR = "vector"
NEIGHBORS = "neighbors"
NEIGHBOR_ID = "neighbor_id"
DISTANCE = "distance"
INNER_PRODUCT = "inner_product"  # published instead of the distance where it is the metric
RANK = "rank"

# Blocks of users, several users to a row: ids (array), seeded hashes of the ids (binary int64), vectors (binary float32
# or float64).  Sparse rows have their values in vectors, and the columns of the values and the number of values of each
# row in two more (binary int32).
IDS, HASHES, VECTORS, COLUMNS, N_VALUES = "ids", "hashes", "vectors", "columns", "n_values"
# Where neighbors are looked for within groups, blocks have one more column, the hash of each group (binary int64).
GROUPS = "groups"
# The smallest hash of a staged block.
LOWEST = "lowest"
# Blocks shipped to the join also have the key of the partition, the users' home leaves (binary int32), the other leaves
# that they probe (binary int32, user after user) and how many each user probes (binary int32).
PARTITION_KEY, HOMES, VISITS, N_VISITS = "partition_key", "homes", "visits", "n_visits"
# Where pairs are excluded, blocks have two more columns: the hashes of the ids that users must not be given (binary
# int64, user after user) and how many each user excludes (binary int32).  Blocks of pairs that are on the way to their
# users have the hash of the user of each, too (binary int64).
EXCLUDED, N_EXCLUDED, EXCLUDING = "excluded", "n_excluded", "excluding"
# Where queries are shipped to the users they are compared with, the ids of queries have a column of their own.
QUERY_IDS = "query_ids"
# Blocks of users' lists, which a partition of the join returns: neighbors (array), distances (binary float32), the
# length of each list (binary int32), the number of pairs compared, and the residents of the partition's largest leaf.
NEIGHBOR_IDS, DISTANCES, COUNTS, PAIRS, MAX_ROWS = "neighbor_ids", "distances", "counts", "pairs", "max_rows"

# Blocks of rows of an index, and of an update's input, also have the hashes of their vectors (binary int64), by which
# changed rows are found.
CONTENTS = "contents"
# Where pairs are excluded: the digests of what users exclude (binary int64), by which it is found who excludes others
# than before.
DIGESTS = "digests"
# Up to which distance the list of a row is known (binary float32).
BARS = "bars"


def quoted(column: str) -> str:
    """Return a column name in backquotes, as Spark needs for names with dots or spaces."""
    return "`" + column.replace("`", "``") + "`"

"""The job that makes another table of a neighbor table, for spark-submit; takes the name and the arguments of a use.

spark-submit jobs/use_neighbors.py duplicates --neighbors TABLE --output TABLE --max-distance 0.05
"""

import sys

from annspark.cli import main

if __name__ == "__main__":
    sys.exit(main())

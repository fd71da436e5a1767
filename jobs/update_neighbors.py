"""The job that updates a neighbor table and its index for spark-submit; takes the arguments of `annspark update`."""

import sys

from annspark.cli import main

if __name__ == "__main__":
    sys.exit(main(["update", *sys.argv[1:]]))

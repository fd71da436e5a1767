"""The job that asks an index for spark-submit; takes the arguments of `annspark query`."""

import sys

from annspark.cli import main

if __name__ == "__main__":
    sys.exit(main(["query", *sys.argv[1:]]))

"""The audit of a finished table for spark-submit; takes the arguments of `annspark evaluate`."""

import sys

from annspark.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))

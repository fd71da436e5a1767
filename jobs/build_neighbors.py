"""The nightly job for spark-submit; takes the arguments of `annspark build`."""

import sys

from annspark.cli import main

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))

"""The job that makes an index for spark-submit; takes the arguments of `annspark fit`."""

import sys

from annspark.cli import main

if __name__ == "__main__":
    sys.exit(main(["fit", *sys.argv[1:]]))

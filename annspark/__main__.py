"""`python -m annspark` is the console script `annspark`."""

import sys

from annspark.cli import main

if __name__ == "__main__":
    sys.exit(main())

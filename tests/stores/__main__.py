"""Publish from Spark to an S3 server on this machine: python -m tests.stores [arguments of pytest].

It needs the extra test.  The first time Spark downloads hadoop-aws with Amazon's SDK, some 700 MB.
"""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main([str(Path(__file__).with_name("trial.py")), *sys.argv[1:]]))

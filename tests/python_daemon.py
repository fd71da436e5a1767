"""Spark's daemon of Python workers, which has imported annspark before it forks them.

After every task a worker collects garbage, which takes longer than most tasks of tests do: it looks at all that was
ever imported. What is frozen it does not look at.
"""

import gc

import pyspark.daemon

import annspark.pipeline  # noqa: F401

if __name__ == "__main__":
    gc.freeze()
    pyspark.daemon.manager()

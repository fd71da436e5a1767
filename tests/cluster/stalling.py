"""Spark's daemon of Python workers, whose workers stall at SIGUSR1: they stay alive, and neither read nor write.

SIGSTOP does not show that: Spark ends a silent worker by SIGTERM, which a stopped process takes only when it goes on.
"""

import signal
import time

import pyspark.daemon


def _stall(*_: object) -> None:
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _stall)
    pyspark.daemon.manager()

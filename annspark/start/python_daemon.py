"""Spark's daemon of Python workers, without the trace that a worker prints when Spark has closed its socket.

Spark ends workers that were idle for a minute, as while the driver grows a large forest.  Over Unix sockets such a
worker then fails to say good-bye, and its trace looks like a failure of the job.
"""

import socket

from pyspark import daemon

_worker = daemon.worker


def worker(sock: socket.socket, authenticated: bool) -> int:
    """Serve Spark's tasks until it closes the socket; return the exit code."""
    try:
        return _worker(sock, authenticated)
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    daemon.worker = worker
    daemon.manager()

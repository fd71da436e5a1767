import socket

from annspark.start import python_daemon


def test_a_worker_whose_socket_spark_has_closed_ends_without_a_trace(monkeypatch, capfd):
    monkeypatch.setenv("PYTHON_DAEMON_KILL_WORKER_ON_FLUSH_FAILURE", "1")  # Spark sets it
    ours, theirs = socket.socketpair()
    theirs.close()
    assert python_daemon.worker(ours, authenticated=True) == 1
    assert "BrokenPipe" not in capfd.readouterr().err

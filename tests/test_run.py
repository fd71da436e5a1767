"""The clock of a run: it warns of a step that takes long."""

import logging
import threading

from annspark.run import Clock


def test_a_step_that_takes_long_is_told_of_again_and_again_until_it_ends(monkeypatch):
    monkeypatch.setattr("annspark.run._LONG", 0.001)
    told, twice = [], threading.Event()

    class Listener(logging.Handler):
        def emit(self, record):
            told.append(record)
            if len(told) == 2:
                twice.set()

    listener = Listener(logging.WARNING)
    logger = logging.getLogger("annspark")
    logger.addHandler(listener)
    try:
        with Clock().step("join"):
            assert twice.wait(60)
    finally:
        logger.removeHandler(listener)
    assert all(record.getMessage().startswith("join ") for record in told)
    assert "still running after" in told[0].getMessage()
    assert "annspark join" not in {thread.name for thread in threading.enumerate() if not thread.daemon}

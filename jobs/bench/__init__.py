"""The benchmark: what it runs on, what it runs, how it watches, scores, sums up and draws (jobs/benchmark.py)."""

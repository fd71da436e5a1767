"""Which sessions can be read what Spark counts."""

import pytest

from annspark import SettingsError
from annspark.spark.meter import require_observations


def test_a_connect_client_that_cannot_read_observations_is_refused(monkeypatch):
    monkeypatch.setattr("annspark.spark.meter.find_spec", lambda _: None)  # as in PySpark 3.5
    require_observations(type("SparkSession", (), {"__module__": "pyspark.sql.session"})())
    with pytest.raises(SettingsError, match=r"PySpark 4\.0 or newer"):
        require_observations(type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})())

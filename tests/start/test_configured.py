import pytest

from annspark.start.configured import java_options_of_user, settings_of_user


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    names = ("PYSPARK_SUBMIT_ARGS", "SPARK_CONF_DIR", "SPARK_REMOTE", "SPARK_DRIVER_MEMORY", "MASTER")
    for name in (*names, "SPARK_SUBMIT_OPTS", "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "conf").mkdir()
    return tmp_path


def test_where_nothing_is_set_nothing_is_found(home):
    assert settings_of_user(home) == {}
    assert java_options_of_user({}).split() == []


@pytest.mark.parametrize(
    "arguments",
    ["--driver-memory 8g", "--driver-memory=8g", "--conf spark.driver.memory=8g", "-c 'spark.driver.memory = 8g'",
     "--conf=spark.driver.memory=8g", "--conf spark.driver.memory=1g --conf spark.driver.memory=8g"],
)  # fmt: skip
def test_arguments_are_found_however_they_are_written(home, monkeypatch, arguments):
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"--name x {arguments} pyspark-shell")
    assert settings_of_user(home) == {"spark.driver.memory": "8g"}


@pytest.mark.parametrize("line", ["spark.driver.memory 8g", "spark.driver.memory=8g", "  spark.driver.memory : 8g  "])
def test_a_file_is_found_however_it_is_written(home, line):
    text = f"# spark.ui.enabled false\n! no\n\n{line}\nspark.a.b  -Dx=1 -Dy=2\n"
    (home / "conf" / "spark-defaults.conf").write_text(text)
    assert settings_of_user(home) == {"spark.driver.memory": "8g", "spark.a.b": "-Dx=1 -Dy=2"}


def test_arguments_win_over_the_file_and_that_over_the_environment(home, monkeypatch):
    (home / "conf" / "spark-defaults.conf").write_text("spark.driver.memory 2g\nspark.master local[2]\n")
    monkeypatch.setenv("SPARK_DRIVER_MEMORY", "1g")
    monkeypatch.setenv("MASTER", "yarn")
    assert settings_of_user(home) == {"spark.driver.memory": "2g", "spark.master": "local[2]"}
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--master local[3] pyspark-shell")
    assert settings_of_user(home) == {"spark.driver.memory": "2g", "spark.master": "local[3]"}


def test_a_named_file_takes_the_place_of_the_default_one(home, monkeypatch, tmp_path):
    (home / "conf" / "spark-defaults.conf").write_text("spark.driver.memory 2g\n")
    (tmp_path / "my.conf").write_text("spark.ui.enabled true\n")
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"--properties-file {tmp_path / 'my.conf'} pyspark-shell")
    assert settings_of_user(home) == {"spark.ui.enabled": "true"}


def test_options_of_java_come_from_everywhere(monkeypatch):
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Da")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Db")
    settings = {"spark.driver.extraJavaOptions": "-Dc", "spark.driver.defaultJavaOptions": "-Dd"}
    assert set(java_options_of_user(settings).split()) == {"-Da", "-Db", "-Dc", "-Dd"}

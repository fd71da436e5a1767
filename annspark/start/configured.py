"""Configured: what the user has set for a Spark that this process starts, by arguments, files and the environment."""

import os
import re
import shlex
from itertools import pairwise
from pathlib import Path

_FLAGS = {
    "--master": "spark.master",
    "--driver-memory": "spark.driver.memory",
    "--driver-java-options": "spark.driver.extraJavaOptions",
    "--remote": "spark.remote",
}
_VARIABLES = {"SPARK_REMOTE": "spark.remote", "SPARK_DRIVER_MEMORY": "spark.driver.memory", "MASTER": "spark.master"}
_OF_JAVA = ("SPARK_SUBMIT_OPTS", "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")
_LINE = re.compile(r"\s*([^#!\s:=][^\s:=]*)(?:\s*[:=]\s*|\s+)(.*?)\s*$")  # of a properties file


def settings_of_user(spark_home: Path) -> dict[str, str]:
    """Return Spark's settings that PYSPARK_SUBMIT_ARGS, the properties file and the environment hold."""
    given, file = _arguments()
    environment = {name: os.environ[variable] for variable, name in _VARIABLES.items() if os.environ.get(variable)}
    folder = Path(os.environ.get("SPARK_CONF_DIR") or spark_home / "conf")
    return environment | _properties(Path(file) if file else folder / "spark-defaults.conf") | given


def java_options_of_user(settings: dict[str, str]) -> str:
    """Return all options that the user gives Java, in Spark's settings and in the environment."""
    options = [settings.get(f"spark.driver.{kind}JavaOptions", "") for kind in ("default", "extra")]
    return " ".join([*options, *(os.environ.get(name, "") for name in _OF_JAVA)])


def _arguments() -> tuple[dict[str, str], str]:
    """Return the settings that PYSPARK_SUBMIT_ARGS gives, and the name of the properties file, "" where it has none."""
    words = [part for word in shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", "")) for part in _parts(word)]
    settings, file = {}, ""
    for flag, value in pairwise(words):
        if flag in ("--conf", "-c"):
            name, _, text = value.partition("=")
            settings[name.strip()] = text.strip()
        elif flag in _FLAGS:
            settings[_FLAGS[flag]] = value
        elif flag == "--properties-file":
            file = value
    return settings, file


def _parts(word: str) -> list[str]:
    """Return a flag and its value, where they are written --flag=value, or the word itself."""
    return word.split("=", 1) if word.startswith("--") and "=" in word else [word]


def _properties(file: Path) -> dict[str, str]:
    try:
        found = map(_LINE.match, file.read_text(errors="replace").splitlines())
    except OSError:  # there is none, or Spark will say that it cannot be read
        return {}
    return {line[1]: line[2] for line in found if line}

import os
import time

import pytest

from annspark.start.archive import archive_options, delete_archive

COMPLETE = bytes.fromhex("a8ab0bf0") + b"the rest"  # what a Java of little-endian machines begins an archive with


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A Java 17, a Spark, and an empty cache; JAVA_HOME and XDG_CACHE_HOME name them."""
    (tmp_path / "java" / "bin").mkdir(parents=True)
    (tmp_path / "java" / "bin" / "java").touch(0o755)
    (tmp_path / "java" / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="17.0.15"\n')
    (tmp_path / "spark" / "jars").mkdir(parents=True)
    (tmp_path / "spark" / "jars" / "core.jar").write_text("1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ANNSPARK_JAVA_ARCHIVE", raising=False)
    return tmp_path


def file_in(options, flag="-XX:ArchiveClassesAtExit="):
    return next(option.removeprefix(flag) for option in options if option.startswith(flag))


def options_on(machine, of_user=""):
    return archive_options(machine / "spark", of_user)


def write_archive(machine, content=COMPLETE):
    file = file_in(options_on(machine))
    with open(file, "wb") as opened:
        opened.write(content)
    return file


def test_the_first_run_writes_the_archive_and_the_next_use_it(machine):
    file = write_archive(machine)
    assert os.path.dirname(file) == str(machine / "cache" / "annspark")
    assert file_in(options_on(machine), "-XX:SharedArchiveFile=") == file


@pytest.mark.parametrize("content", [b"", COMPLETE[:3], b"\0" * 100])
def test_a_part_of_an_archive_is_written_anew(machine, content):
    file = write_archive(machine, content)
    assert file_in(options_on(machine)) == file


def test_another_java_and_another_spark_have_archives_of_their_own(machine):
    files = [file_in(options_on(machine))]
    (machine / "spark" / "jars" / "core.jar").write_text("22")
    files.append(file_in(options_on(machine)))
    (machine / "java" / "release").write_text('JAVA_VERSION="17.0.16"\n')
    files.append(file_in(options_on(machine)))
    assert len(set(files)) == 3


@pytest.mark.parametrize("release", ['JAVA_VERSION="11.0.2"\n', "", None])
def test_a_java_that_is_old_or_not_known_has_none(machine, release):
    (machine / "java" / "release").unlink()
    if release is not None:
        (machine / "java" / "release").write_text(release)
    assert options_on(machine) == []


def test_a_user_who_wants_none_or_another_gets_none(machine, monkeypatch):
    for own in ("-XX:SharedArchiveFile=mine.jsa", "-XX:ArchiveClassesAtExit=mine.jsa", "-Xshare:off"):
        assert options_on(machine, own) == []
    monkeypatch.setenv("ANNSPARK_JAVA_ARCHIVE", "off")
    assert options_on(machine) == []


def test_a_cache_that_cannot_be_written_to_is_left_out(machine):
    (machine / "cache").write_text("a file")
    assert options_on(machine) == []


def test_an_archive_that_nobody_used_for_a_month_is_deleted_when_another_is_written(machine):
    old, new = write_archive(machine), machine / "cache" / "annspark" / "java-new.jsa"
    new.write_bytes(COMPLETE)
    os.utime(old, (time.time() - 31 * 24 * 3600,) * 2)
    (machine / "spark" / "jars" / "core.jar").write_text("22")
    assert options_on(machine) != []
    assert not os.path.exists(old)
    assert new.exists()


def test_the_archive_of_a_java_that_crashed_is_deleted_and_no_other(machine, tmp_path):
    file, mine = write_archive(machine), tmp_path / "mine.jsa"
    mine.write_bytes(COMPLETE)
    assert not delete_archive(f"--conf spark.x='-XX:SharedArchiveFile={mine}' pyspark-shell")
    assert not delete_archive(f"--conf spark.x='-XX:ArchiveClassesAtExit={file}' pyspark-shell")
    assert delete_archive(f"--conf 'spark.x={' '.join(options_on(machine))}' pyspark-shell")
    assert not os.path.exists(file)
    assert mine.exists()

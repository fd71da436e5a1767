"""Archive: Java starts sooner from an archive of the classes that Spark loads, which the first run writes.

Source: Java's application class-data sharing, JEP 350.
"""

import hashlib
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

_SWITCH = "ANNSPARK_JAVA_ARCHIVE"  # set to off, no archive is written or used
_BEGIN = 0xF00BABA8.to_bytes(4, "little")  # of an archive; Java writes it last, so that a part of one does not have it
_USES = "-XX:SharedArchiveFile="
_ROOM = 1 << 30  # bytes that must be free to write an archive, of some 200 MB
_KEPT_DAYS = 30  # an archive that was not used for so long is deleted when another is written
_FIRST_JAVA = 17  # older ones do not run Spark 4, and were not tried


def archive_options(spark_home: Path, options_of_user: str) -> list[str]:
    """Return the options with which Java uses its archive of classes, or writes it when it ends.

    There is an archive for each Java and Spark, in a cache folder.  Java checks that it fits and that its bytes are
    those once written, and ignores it where that is not so.  Two runs that write one at the same time do not harm each
    other: the last one's stays.

    returns : [] where the user has options for archives, has switched them off, or the cache cannot be written to
    """
    java = _java_home()
    unwanted = os.environ.get(_SWITCH, "").lower() in ("off", "0", "false", "no")
    if unwanted or java is None or re.search("-Xshare|SharedArchive|ArchiveClasses|AOT", options_of_user):
        return []
    safe = ["-Xlog:cds=off", "-Xlog:cds*=off", "-Xshare:auto", "-XX:+VerifySharedSpaces"]
    try:
        file = _folder() / f"java-{_fingerprint(java, spark_home)}.jsa"
        if _is_complete(file):
            os.utime(file)
            return [f"{_USES}{file}", *safe]
        file.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(file.parent, os.W_OK) or shutil.disk_usage(file.parent).free < _ROOM:
            return []
        _clean(file.parent)
        return [f"-XX:ArchiveClassesAtExit={file}", *safe]
    except OSError:  # an archive only saves time
        return []


def delete_archive(arguments: str) -> bool:
    """Delete the archive that a Java that crashed used; say whether there was one.

    Java crashes at once where an archive has lost its end, as after a power failure.

    arguments : that PySpark started Java with
    """
    found = re.search(f"{_USES}({re.escape(str(_folder()))}[^'\" ]*)", arguments)
    with suppress(OSError):
        if found:
            Path(found[1]).unlink()
            return True
    return False


def _java_home() -> Path | None:
    """Return the folder of the Java that Spark's script starts; None where it is too old or not known."""
    runner = shutil.which("java", path=_bin_of(os.environ.get("JAVA_HOME")))
    if runner is None:
        return None
    home = Path(runner).resolve().parent.parent
    with suppress(OSError):
        found = re.search(r'^JAVA_VERSION="(\d+)', (home / "release").read_text(), re.MULTILINE)
        return home if found and int(found[1]) >= _FIRST_JAVA else None
    return None


def _bin_of(home: str | None) -> str | None:
    return str(Path(home) / "bin") if home else None


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "annspark"


def _fingerprint(java: Path, spark_home: Path) -> str:
    """Return what changes with Java and with Spark's jars, whose names, sizes and times Java compares."""
    jars = sorted((jar.name, jar.stat().st_size, jar.stat().st_mtime_ns) for jar in (spark_home / "jars").iterdir())
    known = [str(java), (java / "release").read_text(), str(spark_home), str(jars)]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


def _is_complete(file: Path) -> bool:
    with suppress(FileNotFoundError), file.open("rb") as opened:
        return opened.read(len(_BEGIN)) == _BEGIN
    return False


def _clean(folder: Path) -> None:
    oldest = time.time() - _KEPT_DAYS * 24 * 3600
    for file in folder.glob("java-*.jsa"):
        if file.stat().st_mtime < oldest:
            file.unlink(missing_ok=True)

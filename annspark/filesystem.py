"""The file system of a path, as PyArrow opens it.  Spark is not needed."""

import os
import posixpath
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from pyarrow import fs

_STORES = ("s3", "s3a", "s3n")  # one store under three names: PyArrow knows the first, Hadoop the second
# What Spark's confs spark.hadoop.fs.s3a.* may say of a store; those of a single bucket come before those of all.
_NAMES = (
    *("access.key", "secret.key", "session.token", "aws.credentials.provider"),
    *("endpoint", "endpoint.region", "connection.ssl.enabled", "path.style.access"),
)
_TOLD: dict[str, dict[str, str]] = {}  # by bucket: what a session of this process says of it


def scheme_of(path: str) -> str:
    """Return the scheme of a path, without the colon; "" for a plain path."""
    found = re.match("([A-Za-z][A-Za-z0-9+.-]*):", path)
    return found[1].lower() if found else ""


def is_on_store(path: str) -> bool:
    """Say whether a path is on an object store, which has no folders: they are the beginnings of names."""
    return scheme_of(path) in _STORES


def open_place(path: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a path, and the path inside it."""
    path = re.sub("^dbfs:(//)?(?=/Volumes/)", "", path)  # Spark's name on Databricks for what is mounted there
    scheme = scheme_of(path)
    if scheme in ("", "file"):
        return fs.LocalFileSystem(), posixpath.abspath(re.sub("^file:(//)?", "", path))
    head, there, inside = path.partition("://")
    if there and scheme in _STORES:
        bucket = inside.partition("/")[0]
        told = _TOLD.get(bucket) or _told_to_task(bucket)
        return _connect(bucket, **_arguments(told)), re.sub("/+", "/", inside).rstrip("/")
    # PyArrow takes a URI, in which blanks and brackets are escaped (%20); Spark takes the plain path.
    return fs.FileSystem.from_uri(head + there + quote(inside, safe="/:@") if there else path)


def learn_store(path: str, conf: Callable[[str], str | None]) -> None:
    """Remember how Spark reaches the object store of a path, so that PyArrow reaches it in the same way.

    conf : returns the value of a conf of Spark, None where it is not set
    """
    if is_on_store(path):
        bucket = path.partition("://")[2].partition("/")[0]
        _TOLD[bucket] = _told_by(bucket, conf)


def _told_by(bucket: str, conf: Callable[[str], str | None]) -> dict[str, str]:
    told = {}
    for name in _NAMES:
        value = conf(f"spark.hadoop.fs.s3a.bucket.{bucket}.{name}") or conf(f"spark.hadoop.fs.s3a.{name}")
        if value:
            told[name] = value
    return told


def _told_to_task(bucket: str) -> dict[str, str]:
    """Return what Spark's confs say of a bucket in one of its tasks, which has the confs of its session."""
    known = sys.modules.get("pyspark.taskcontext")
    task = known.TaskContext.get() if known else None
    return _told_by(bucket, task.getLocalProperty) if task else {}


def _arguments(told: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of PyArrow's S3FileSystem; what Spark does not say, the environment may.

    Credentials that neither says are looked for by Amazon's library, in profiles and in the machine's role.
    """
    endpoint = told.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = told.get("endpoint.region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    scheme, there, host = endpoint.rpartition("://")
    if not there:
        scheme = "http" if told.get("connection.ssl.enabled") == "false" else "https"
    host = "" if host == "s3.amazonaws.com" else host.rstrip("/")  # Hadoop's name for all regions of AWS
    arguments = {
        "access_key": told.get("access.key"),
        "secret_key": told.get("secret.key"),
        "session_token": told.get("session.token"),
        "anonymous": "Anonymous" in told.get("aws.credentials.provider", ""),
        "region": region or ("us-east-1" if host else None),
        "scheme": scheme,
        "endpoint_override": host,
        "force_virtual_addressing": bool(host) and told.get("path.style.access") == "false",
    }
    return {name: value for name, value in arguments.items() if value}


@lru_cache(maxsize=16)
def _connect(bucket: str, **arguments: Any) -> fs.FileSystem:
    """Return the file system of a bucket; AWS is asked for the region where it is not known."""
    if "region" not in arguments:
        arguments["region"] = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(**arguments)

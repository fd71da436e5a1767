"""An S3 server on this machine, and what PyArrow and Spark have to be told to reach it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark
from moto.server import ThreadedMotoServer
from pyarrow import fs

BUCKET, REGION = "lake", "us-east-1"
KEY, SECRET = "annspark-key-of-tests", "annspark-secret-of-tests"


@contextmanager
def served() -> Iterator[str]:
    """Yield the endpoint of an S3 server with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of every request
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        reach(endpoint).create_dir(BUCKET)
        yield endpoint
    finally:
        server.stop()


def reach(endpoint: str) -> fs.S3FileSystem:
    """Return the file system of the server, made without annspark."""
    return fs.S3FileSystem(
        access_key=KEY, secret_key=SECRET, region=REGION, endpoint_override=endpoint, allow_bucket_creation=True
    )


def confs_of(endpoint: str) -> dict[str, str]:
    """Return the confs with which Spark reaches the server."""
    return {
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": REGION,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.access.key": KEY,
        "spark.hadoop.fs.s3a.secret.key": SECRET,
    }


def s3a_jar() -> str:
    """Return the package with which the installed Spark reaches S3: hadoop-aws of the version of its Hadoop."""
    (jar,) = (Path(pyspark.__file__).parent / "jars").glob("hadoop-client-api-*.jar")
    return f"org.apache.hadoop:hadoop-aws:{jar.stem.removeprefix('hadoop-client-api-')}"

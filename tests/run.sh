#!/bin/sh
# Runs the tests on this checkout: sh tests/run.sh [arguments of pytest; paths as seen from the repository's folder]
# A process per core, at most four, each with a Spark of its own, of 2 GB: -n 0 runs everything in one, for a debugger.
# Needs Java 17 or newer and Python 3.11 or newer; everything else goes into .venv. See .ci/environment.sh for its variables.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
case ${ANNSPARK_PYSPARK:-} in
    *=3.*) extras=test ;; # its pip package has no Connect server
    *) extras=test,connect ;;
esac
. "$root/.ci/environment.sh"
cd "$root"
# Files stay whole, as tests of a file share tables.
exec "$python" -m pytest -n logical --maxprocesses 4 --dist loadfile "$@"

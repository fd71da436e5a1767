#!/bin/sh
# Runs the tests on this checkout: sh tests/run.sh [arguments of pytest; paths as seen from the repository's folder]
# Needs Java 17 or newer and Python 3.11 or newer; everything else goes into .venv. See jobs/environment.sh for its variables.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
case ${ANNSPARK_PYSPARK:-} in
    *=3.*) extras=test ;; # its pip package has no Connect server
    *) extras=test,connect ;;
esac
. "$root/jobs/environment.sh"
cd "$root"
exec "$python" -m pytest "$@"

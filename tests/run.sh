#!/bin/sh
# Runs the tests on this checkout: sh tests/run.sh [--all] [arguments of pytest; paths as seen from the repository's folder]
#   --all   the slow tests too: processes of their own, Connect, the README's commands, repeats with other settings
# One process more than there are cores, as each often waits; at most four, each with a Spark of its own, of 2 GB. With
# -n 0 everything runs in one, for a debugger.
# Needs Java 17 or newer and Python 3.11 or newer; everything else goes into .venv: see .ci/environment.sh.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

# All arguments but --all go to pytest as they are.
chosen='not slow' left=$#
while [ "$left" -gt 0 ]; do
    argument=$1 left=$((left - 1))
    shift
    case $argument in
        --all) chosen='' && export ANNSPARK_TESTS=all ;;
        *) set -- "$@" "$argument" ;;
    esac
done

case ${ANNSPARK_PYSPARK:-} in
    *=3.*) extras=test ;; # its pip package has no Connect server
    *) extras=test,connect ;;
esac
[ -n "$chosen" ] || extras=$extras,uses
. "$root/.ci/environment.sh"
cd "$root"
processes=$(($(getconf _NPROCESSORS_ONLN) + 1))
[ "$processes" -le 4 ] || processes=4
# A process that is done takes tests of the others; a -m or -n among the arguments wins over the one here.
exec "$python" -m pytest -n "$processes" --dist worksteal -m "$chosen" "$@"

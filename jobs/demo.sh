#!/bin/sh
# Finds the neighbors of 20,000 words and groups of them with the command line, and shows some: sh jobs/demo.sh
# Needs Java 17 or newer and Python 3.11 or newer; everything else goes into .venv. See .ci/environment.sh for its variables.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
extras=
. "$root/.ci/environment.sh"
cd "$root"

echo "Starting Spark on this machine."
"$python" -m annspark build --input jobs/demo/words.parquet --output .demo/neighbors --k 10 --overwrite
"$python" -m annspark duplicates --neighbors .demo/neighbors --output .demo/groups --max-distance 0.1 --overwrite
"$python" jobs/demo/show.py .demo/neighbors .demo/groups

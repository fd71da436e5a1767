# Sourced by jobs/demo.sh, tests/run.sh and .ci/run: checks Java, and makes the virtual environment they run in.
#
# The sourcing script sets
#   root               the repository's folder
#   extras             extras of pyproject.toml to install, such as test,connect; may be empty
# The caller's environment may set
#   PYTHON             the Python to make the virtual environment with
#   ANNSPARK_VENV      the folder of the virtual environment (.venv in the repository)
#   ANNSPARK_PYSPARK   the PySpark to install, such as "pyspark[sql]==3.5.*" (the newest)
# Sets python, the virtual environment's Python.

fail() {
    echo "annspark: $*" >&2
    exit 1
}

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
# A stub that only asks to install Java, as macOS has, prints no version.
java_version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9][0-9]*\).*/\1/p' | head -n 1) || true
if [ "${java_version:-0}" -lt 17 ]; then
    where=${JAVA_HOME:+in JAVA_HOME ($JAVA_HOME)}
    case ${java_version:-none} in
        none) found="there is none ${where:-on the PATH}" ;;
        1) found="there is Java 8 or older ${where:-on the PATH}" ;;
        *) found="there is Java $java_version ${where:-on the PATH}" ;;
    esac
    # shellcheck disable=SC2016  # for the person's shell to expand
    fail "Spark needs Java 17 or newer and $found: install it with" \
        '"apt-get install openjdk-17-jre-headless" (Debian, Ubuntu)' \
        'or "brew install openjdk@17 && export JAVA_HOME=$(brew --prefix openjdk@17)" (macOS).'
fi

venv=${ANNSPARK_VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
python=$venv/bin/python

if ! "$python" -m pip --version >/dev/null 2>&1; then
    maker=
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3.14 python3; do
        # Debian ships Python without ensurepip, and so without virtual environments.
        if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            maker=$candidate
            break
        fi
        [ "$candidate" != "${PYTHON:-}" ] || fail "PYTHON is '$PYTHON', which is not Python 3.11 or newer with venv."
    done
    [ -n "$maker" ] || fail "there is no Python 3.11 or newer with venv: install it with" \
        "'apt-get install python3 python3-venv' (Debian, Ubuntu) or 'brew install python@3.12' (macOS)."
    "$maker" -m venv "$venv" || fail "no virtual environment could be made in $venv; see above."
fi

# The install is editable, so changed code needs no second one. The stamp has a line for each set of extras installed.
stamp=$venv/annspark-installed
base="$root ${ANNSPARK_PYSPARK:-newest} $(cksum <"$root/pyproject.toml")"
if ! grep -qxF "$base [$extras]" "$stamp" 2>/dev/null; then
    echo "Installing annspark and Spark into $venv. The first time this downloads some 500 MB." >&2
    before=$(grep -F "$base [" "$stamp" 2>/dev/null) || true
    rm -f "$stamp"
    # PySpark 3 wants NumPy 1, which PyArrow 26 no longer loads with, though neither's metadata says so to pip.
    case ${ANNSPARK_PYSPARK:-} in *=3.*) arrow='pyarrow<26' ;; *) arrow= ;; esac
    # PySpark is named so that pip changes its version when ANNSPARK_PYSPARK changes.
    "$python" -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy only-if-needed \
        --editable "$root[spark${extras:+,$extras}]" "${ANNSPARK_PYSPARK:-pyspark[sql]}" ${arrow:+"$arrow"} ||
        fail "the install into $venv failed; see above."
    printf '%s\n' "$before" "$base []" "$base [$extras]" >"$stamp"
fi

# The Spark just installed, and no other on this machine.
unset SPARK_HOME
export PYSPARK_PYTHON="$python" PYSPARK_DRIVER_PYTHON="$python"
# Laptops change networks and resolve their own names badly; local Spark needs neither.
export SPARK_LOCAL_IP="${SPARK_LOCAL_IP:-127.0.0.1}"

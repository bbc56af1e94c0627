#!/bin/sh
# Installs what is missing, lints, checks types and layers, and runs every test on real servers.
#
#   sh tests/run.sh [ARGUMENTS FOR PYTEST]
#   sh tests/run.sh soak [--minutes 30] [--seed SEED]
#   sh tests/run.sh bench [NAME ...] [--rounds 5]
#
# The second runs six lanes of chaos instead (tests/chaos), and prints a table.  The third measures what durability
# costs (tests/benchmarks), beside plain Dramatiq and other queues.
# PYTHON is the interpreter, by default python3.  Root on Debian gets the packages of tests/packages.txt; others bring them.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
# Hundreds of processes import the same modules; none is to compile them anew.
unset PYTHONDONTWRITEBYTECODE

step() { printf '\n== %s\n' "$*"; }

missing_packages() {
    while read -r package; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || echo "$package"
    done <tests/packages.txt
}

# make_venv FOLDER PYTHON REQUIREMENT ...
make_venv() {
    "$2" -m venv --clear "$1"
    venv=$1
    shift 2
    "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-compile "$@"
}

# The declared Pythons that are installed, but for the main one.
other_pythons() {
    main=$("$python" -c 'import sys; print(sys.version_info[1])')
    for minor in 10 11 12 13 14; do
        [ "$minor" != "$main" ] && "python3.$minor" -c '' 2>/dev/null && echo "3.$minor"
    done
    true
}

if command -v dpkg-query >/dev/null && [ "$(id -u)" = 0 ]; then
    missing=$(missing_packages)
    if [ -n "$missing" ]; then
        step "apt-get install" $missing
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $missing >/dev/null
    fi
fi

if [ "${1:-}" = bench ]; then
    step "install"
    make_venv .venv-bench "$python" -e '.[tests]' -r tests/benchmarks/requirements.txt
    step "bench"
    shift
    exec .venv-bench/bin/python -m tests.benchmarks "$@"
fi

step "install"
make_venv .venv-tests "$python" -e '.[tests]'
bin=$PWD/.venv-tests/bin

if [ "${1:-}" = soak ]; then
    step "soak"
    exec "$bin/python" -m tests.chaos "$@"
fi

if command -v pyenv >/dev/null; then
    PYENV_VERSION=$("$python" -c 'import platform; print(platform.python_version())'):$(
        pyenv versions --bare | grep -x '3\.1[0-4]\.[0-9]*' | tr '\n' ':')
    export PYENV_VERSION
fi
others=$(other_pythons)

step "lint, types, layers"
"$bin/ruff" format --check --quiet
"$bin/ruff" check --quiet
"$bin/mypy"
"$bin/lint-imports" --no-logo

export DRAMATIQ_DURABLE_REQUIRE_SERVERS=1
other_suites() {
    for version in $others; do
        make_venv ".venv-$version" "python$version" -e '.[tests]' || return 1
        step "Python $version: what needs no server"
        nice ".venv-$version/bin/python" -m pytest -q -n 3 -k "not redis and not rabbitmq and not postgres and not mariadb" \
            tests/declaring tests/sending/test_send_contract.py tests/sending/test_send_compositions.py \
            tests/sending/test_send_async.py tests/sending/test_send_async_in_actors.py tests/sending/test_send_async_transactions.py \
            tests/working/test_current_audit.py tests/working/test_hooks.py tests/working/test_lease_lost.py \
            tests/working/test_requeue.py tests/working/test_transaction.py || return 1
        nice ".venv-$version/bin/python" -m pytest -q -n 3 -k sqlite \
            tests/adopting/test_sqlalchemy_connections.py tests/adopting/test_sqlalchemy_sessions.py tests/adopting/test_django.py || return 1
    done
    if [ "$1" = 0 ]; then
        make_venv .venv-psycopg2 "$python" -e '.[tests]' psycopg2-binary || return 1
        step "psycopg2, which Peewee prefers where it is installed"
        nice .venv-psycopg2/bin/python -m pytest -q -n 2 -k "psycopg2 or peewee-postgres" tests/adopting || return 1
    fi
}
computing_suites() {
    step "model, simulation"
    [ "$1" != 0 ] || nice "$bin/python" -m pytest -q -n 2 tests/model tests/simulation
}
# These run beside the chaos, which mostly waits; what they say is shown after that.
other_suites $# >.venv-tests/others.log 2>&1 &
others_pid=$!
computing_suites $# >.venv-tests/computing.log 2>&1 &
computing_pid=$!

failed=0
the_wheel() {
    rm -rf dist
    "$bin/python" -m build --outdir dist >/dev/null &&
        make_venv .venv-wheel "$python" dist/*.whl &&
        (wheel=$PWD/.venv-wheel/bin && cd / && "$wheel/dramatiq-durable" --version)
}
step "the built wheel in a clean venv"
the_wheel || failed=1

if [ $# -eq 0 ]; then
    # Its lanes are several processes each, and share the machine with little else.
    step "chaos"
    "$bin/python" -m pytest -q tests/chaos || failed=1
    set -- --ignore tests/chaos --ignore tests/model --ignore tests/simulation
fi
wait $others_pid || failed=1
wait $computing_pid || failed=1
cat .venv-tests/others.log .venv-tests/computing.log
step "tests"
# Nothing of theirs has to outlive the machine: where there is room, servers and files are in memory.
room=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
if [ "${room:-0}" -gt 4000000 ]; then
    TMPDIR=$(mktemp -d /dev/shm/durable-tests.XXXXXX)
    export TMPDIR
    chmod 755 "$TMPDIR" # for the accounts of servers
    trap 'rm -rf "$TMPDIR"' EXIT
    trap 'exit 1' HUP INT TERM
fi
"$bin/python" -m pytest -n 6 "$@" || failed=1
[ $failed = 0 ] || echo "Something above has failed."
exit $failed

#!/bin/sh
# Kill the worker and wipe the broker half-way, with dramatiq-durable and without: see demo/README.md.
# DEMO_PYTHON: an interpreter that has the `demo` extra already; without it a venv is made.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

if [ -z "${DEMO_PYTHON:-}" ]; then
    venv=$root/examples/.venv-demo
    DEMO_PYTHON=$venv/bin/python
    echo "installing into examples/.venv-demo" >&2
    if python3 -c "import ensurepip" 2>/dev/null; then
        python3 -m venv --clear "$venv"
        "$DEMO_PYTHON" -m pip install --quiet --quiet --disable-pip-version-check "${root}[demo]"
    else  # Debian without python3-venv
        python3 -m venv --clear --without-pip "$venv"
        python3 -m pip --python "$DEMO_PYTHON" install --quiet --quiet --disable-pip-version-check "${root}[demo]"
    fi
fi

exec "$DEMO_PYTHON" "$root/examples/demo/run.py"

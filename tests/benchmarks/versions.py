"""What is measured, and on what."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from importlib.metadata import PackageNotFoundError, version

from tests.support.programs import find

_PROGRAMS = {"Redis": "redis-server", "PostgreSQL": "postgres", "MariaDB": "mariadbd"}
_PACKAGES = [
    "dramatiq", "peewee", "redis", "psycopg", "PyMySQL",
    "procrastinate", "pgqueuer", "asyncpg", "dramatiq-postgres", "dbos", "celery", "django_dramatiq", "Django",
]  # fmt: skip


def versions() -> str:
    servers = [f"{name} {_of_program(program)}" for name, program in _PROGRAMS.items()]
    packages = [f"{name} {_of_package(name)}" for name in _PACKAGES]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"
    python = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"{machine}, {python}, {', '.join(servers)}; {', '.join(packages)}."


def _of_program(program: str) -> str:
    done = subprocess.run([find(program), "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found.group() if found else "?"


def _of_package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"

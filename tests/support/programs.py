"""Where installed programs are, and how they are started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

import pytest

# Debian keeps these out of PATH, or puts a wrapper there that changes the user.
_FOLDERS = [
    "/usr/lib/rabbitmq/bin",
    *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
    *os.environ.get("PATH", os.defpath).split(os.pathsep),
    "/usr/local/sbin",
    "/usr/sbin",
]


def find(*names: str) -> str:
    """The path of the first of *names* that is installed; else the test is skipped, in CI it fails."""
    paths = (shutil.which(name, path=os.pathsep.join(_FOLDERS)) for name in names)
    found = next(filter(None, paths), None)
    if found is None:
        missing(f"{' or '.join(names)} is not installed")
    return found


def missing(what: str) -> NoReturn:
    """Skip the test for *what* is missing; where everything must be there, fail."""
    if os.environ.get("DRAMATIQ_DURABLE_REQUIRE_SERVERS") == "1" or os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def start(
    command: Sequence[str],
    *,
    folder: Path,
    output: IO[bytes],
    environment: Mapping[str, str] | None = None,
    account: str | None = None,
    last_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start *command* in *folder*, in a process group of its own.

    It gets *last_signal* when this process ends without stopping it.  Root
    becomes *account* for it.
    """
    user = account if os.geteuid() == 0 else None
    guard = shutil.which("setpriv")
    leash = [guard, "--pdeathsig", last_signal.name.removeprefix("SIG")] if guard else []
    return subprocess.Popen(
        [*leash, *command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        start_new_session=True,
    )

"""The examples do what their READMEs say."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import App, Process

EXAMPLES = Path(__file__).parent.parent / "examples"
DEMO = ["sh", str(EXAMPLES / "demo.sh")]
SAMPLE = re.compile(r"^    \$ python (examples/\S+)\n((?:    .*\n)+)", re.MULTILINE)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Like tmp_path, but short: the path of a unix socket has 107 characters at most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def samples() -> Iterator[tuple[str, str]]:
    """The programs that the READMEs run, each with the output they show."""
    for readme in sorted(EXAMPLES.glob("*/README.md")):
        for program, output in SAMPLE.findall(readme.read_text()):
            yield program, re.sub("^    ", "", output, flags=re.MULTILINE)


def test_each_program_has_a_sample_of_its_output() -> None:
    assert {program for program, _ in samples()} == {
        "examples/exactly_once/accounts.py",
        "examples/requeue/exports.py",
        "examples/transaction/orders.py",
    }


@pytest.mark.parametrize(("program", "output"), list(samples()))
def test_a_program_prints_what_its_readme_shows(program: str, output: str, folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, program],
        cwd=EXAMPLES.parent,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.stdout == output, ended.stderr
    assert ended.returncode == 0


def test_the_demo_loses_no_durable_job_where_plain_dramatiq_does(folder: Path) -> None:
    ended = subprocess.run(
        DEMO, env=environment(folder), capture_output=True, text=True, timeout=120
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    header, *rows = (line.split() for line in ended.stdout.split("\n\n")[1].splitlines())
    assert header == ["plain", "durable"]
    counts = {" ".join(name): (plain, durable) for *name, plain, durable in rows}
    sent, lost = counts["sent"], counts["lost"]
    assert int(sent[0]) == int(sent[1]) == int(counts["done"][1]) >= 500
    assert int(lost[0]) > 100
    assert int(lost[1]) == 0
    assert int(counts["recovered"][1]) > 100
    assert int(counts["done"][0]) == int(sent[0]) - int(lost[0])
    assert f"{sent[1]} of {sent[1]} durable jobs are done, with the right digest" in ended.stdout
    assert left_behind(folder) == []


def test_the_demo_fails_when_its_monitor_sends_nothing(folder: Path) -> None:
    copy = folder / "demo"
    shutil.copytree(EXAMPLES / "demo", copy)
    change(copy / "side.py", '"--interval=0.5"', '"--interval=0.5", "--dry-run"')
    change(copy / "run.py", "DEADLINE = 90", "DEADLINE = 10")

    ended = subprocess.run(
        [sys.executable, str(copy / "run.py")],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert ended.returncode == 1, ended.stdout + ended.stderr
    done = re.search(r"^(\d+) of (\d+) durable jobs are done", ended.stdout, re.MULTILINE)
    assert done is not None
    assert 0 < int(done[1]) < int(done[2])


@pytest.mark.parametrize("spawn", ["", " --use-spawn"])
def test_one_command_runs_workers_and_monitor(
    app: Callable[..., App], redis_url: str, eventually: Callable[..., Any], spawn: str
) -> None:
    folder = EXAMPLES / "one_command"
    steps = re.findall(r"^ +\$ (.+)$", (folder / "README.md").read_text(), re.MULTILINE)
    create, start, send, kill, status = steps
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shop = app((folder / "app.py").read_text(), REDIS_URL=redis_url, PATH=path)

    def do(step: str) -> Process:
        return shop.process(f"import os; os.execvp('sh', ['sh', '-c', {f'exec {step}'!r}])")

    def started() -> Process:
        process = do(start + spawn)
        process.wait_for("Fork process 'app:run_monitor' is ready for action.")
        return process

    assert do(create).wait() == 0
    first = started()
    assert do(send).wait() == 0
    begins = "process (.+) begins to count to 5"
    killed = eventually(lambda: re.search(begins, first.output()))[1]
    assert do(kill.replace("PID", killed)).wait() == 0
    assert first.wait() == 1

    second = started()
    second.wait_for("Recovered 1")
    second.wait_for("has counted to 5")
    assert killed not in re.findall(begins, second.output())
    second.signal(signal.SIGINT)  # as Ctrl-C does, to all of them
    assert second.wait() == 0
    counts = do(status)
    assert counts.wait() == 0
    assert re.search(r"completed +1\b", counts.output()), counts.output()


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def test_ctrl_c_stops_every_process_of_the_demo(folder: Path) -> None:
    demo = subprocess.Popen(
        DEMO, env=environment(folder), stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert demo.stdout is not None
    assert any("durable ." in line for line in demo.stdout)  # the bar: the workers have started
    assert (
        len(left_behind(folder)) >= 4
    )  # servers, workers, a monitor, a folder; some may just be starting

    os.killpg(demo.pid, signal.SIGINT)

    assert demo.wait(timeout=30) == 130
    demo.stdout.close()
    deadline = time.monotonic() + 10
    while left := left_behind(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def environment(folder: Path) -> dict[str, str]:
    """For a program that runs with this interpreter on this source, and makes its files in *folder*."""
    return {
        **os.environ,
        "DEMO_PYTHON": sys.executable,
        "PYTHONPATH": str(EXAMPLES.parent),
        "TMPDIR": str(folder),
    }


def left_behind(folder: Path) -> list[str]:
    """What is in *folder*, and the processes that were started with it as TMPDIR."""
    wanted = f"TMPDIR={folder}".encode()
    left = [path.name for path in folder.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                left.append((process / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it ended while we looked, or is nobody's of ours
    return left

"""examples/observability does what its README says, and its dashboard and alerts name what is shown."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.metrics import Scrape, scrape
from tests.support.servers import free_port

FOLDER = Path(__file__).parent.parent / "examples" / "observability"
README = (FOLDER / "README.md").read_text()
ALERTS = (FOLDER / "alerts.yml").read_text()
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())

METRIC = re.compile(r"\bdramatiq_[a-z_]+")


def of_dashboard():
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return {name for expression in expressions for name in METRIC.findall(expression)}


@pytest.fixture
def shown(app, redis_url, tmp_path, eventually):
    """The names of all metrics that worker and monitor show when the steps of the README were taken."""
    steps = re.findall(r"^ +\$ (.+)$", README, re.MULTILINE)
    _install, create, work, monitor, send, look, _prometheus = steps
    worker_port, monitor_port = free_port(), free_port()
    shop = app(
        (FOLDER / "app.py").read_text(),
        REDIS_URL=redis_url,
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        dramatiq_prom_port=str(worker_port),
        dramatiq_prom_db=str(tmp_path / "counts"),
    )

    def do(step):
        return shop.process(f"import os; os.execvp('sh', ['sh', '-c', {f'exec {step}'!r}])")

    assert do(create).wait() == 0
    assert monitor.count("9192") == 1
    do(monitor.replace("9192", str(monitor_port)))
    worker = do(work)
    worker.wait_for("ready for action")
    assert do(send).wait() == 0
    worker.wait_for("order 1 is charged")
    for port, place in ((worker_port, "127.0.0.1:9191/"), (monitor_port, "127.0.0.1:9192/metrics")):
        assert place in look
        scrape(port)
    charge = {"queue_name": "default", "actor_name": "charge"}
    eventually(lambda: Scrape(worker_port)("dramatiq_messages_total", **charge) == 1)
    state = {"state": "completed", **charge}
    eventually(lambda: Scrape(monitor_port)("dramatiq_durable_audits", **state) == 1)
    return Scrape(worker_port).names | Scrape(monitor_port).names


def test_dashboard_and_alerts_name_what_is_shown_once_the_steps_are_taken(shown):
    named = of_dashboard(), set(METRIC.findall(ALERTS))
    assert [sorted(names - shown) for names in named] == [[], []]
    # What nobody looks at need not be shown.
    ours = {name for name in shown if name.startswith("dramatiq_durable_")}
    unused = ours - of_dashboard() - set(METRIC.findall(ALERTS))
    assert {name for name in unused if not name.endswith(("_created", "_sum", "_count"))} == set()


def test_each_alert_is_in_the_readme():
    assert re.findall(r"^\| `(\w+)`", README, re.MULTILINE) == re.findall(r"- alert: (\w+)", ALERTS)


def test_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "words", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"]
)
def test_promtool_finds_nothing_wrong(words):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, *words.split()], cwd=FOLDER, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr

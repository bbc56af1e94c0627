"""What a Prometheus would read."""

from __future__ import annotations

import urllib.request
from urllib.error import URLError

from prometheus_client.parser import text_string_to_metric_families

from .waiting import eventually


class Scrape:
    """The samples that a port shows at one moment."""

    def __init__(self, port: int, timeout: float = 30) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout) as answer:
            self.text = answer.read().decode()
        families = text_string_to_metric_families(self.text)
        self.samples = [sample for family in families for sample in family.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of the sample with exactly these labels; None where there is none."""
        found = [each.value for each in self.samples if (each.name, each.labels) == (name, labels)]
        assert len(found) <= 1, f"{name}{labels} is there {len(found)} times"
        return found[0] if found else None


def scrape(port: int) -> Scrape:
    """What is shown there, as soon as somebody listens."""

    def look() -> Scrape | None:
        try:
            return Scrape(port)
        except URLError:
            return None

    made = eventually(look, message=f"a server on port {port}")
    assert made is not None
    return made

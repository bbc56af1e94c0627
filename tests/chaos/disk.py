"""A small disk that can be full."""

from __future__ import annotations

import subprocess
from pathlib import Path

SIZE = 64 << 20

MOUNT, UNMOUNT = "/usr/bin/mount", "/usr/bin/umount"


class Disk:
    """A file system in memory, if this process may mount one; else a folder, which is never full."""

    def __init__(self, parent: Path) -> None:
        self.folder = parent / "disk"
        self.folder.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self.folder)]
        self.can_be_full = subprocess.run([MOUNT, *options], capture_output=True).returncode == 0
        self._filler = self.folder / "filler"

    def fill(self) -> None:
        try:
            with open(self._filler, "ab", buffering=0) as filler:
                while True:
                    filler.write(bytes(1 << 12))
        except OSError:
            return  # it is full

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        if self.can_be_full:
            subprocess.run([UNMOUNT, "--lazy", str(self.folder)], check=True)

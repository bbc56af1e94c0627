"""A private RabbitMQ node, with an Erlang port mapper of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika

from .programs import find
from .servers import STARTS_WITHIN, Server, free_port

BATCH = 32  # virtual hosts made at a time, because rabbitmqctl takes a second to start

_ADD = """
lists:foreach(fun(Number) ->
    Name = iolist_to_binary(["{user}-", integer_to_binary(Number)]),
    rabbit_vhost:add(Name, <<"tests">>),
    rabbit_auth_backend_internal:set_permissions(
        <<"guest">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
end, lists:seq({first}, {last})).
"""


class RabbitmqServer(Server):
    """*settings* are lines of its rabbitmq.conf."""

    def __init__(self, *settings: str) -> None:
        self._program, self._control = find("rabbitmq-server"), find("rabbitmqctl")
        self._mapper_program = find("epmd")
        super().__init__()
        self._distribution_port, self._mapper_port = free_port(), free_port()
        self._mapper: subprocess.Popen[bytes] | None = None
        self._used, self._made = 0, 0
        (self.folder / "plugins").write_text("[].\n")
        lines = [f"listeners.tcp.1 = 127.0.0.1:{self.port}", *settings]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        return self._url("%2F")

    @contextmanager
    def fresh(self) -> Iterator[str]:
        self._used += 1
        if self._used > self._made:
            self._make_virtual_hosts()
        yield self._url(f"{_user()}-{self._used}")

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_mapper": None}

    def start(self) -> None:
        if self._mapper is None:
            # Otherwise Erlang starts one that nobody stops.
            arguments = ["-port", str(self._mapper_port), "-address", "127.0.0.1"]
            self._mapper = self._run([self._mapper_program, *arguments])
        super().start()

    def close(self) -> None:
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
        super().close()

    def control(self, *arguments: str) -> None:
        """Have rabbitmqctl do it."""
        subprocess.run(
            [self._control, *arguments],
            env=self._environment(),
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=STARTS_WITHIN,
        )

    def _url(self, virtual_host: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{virtual_host}"

    def _command(self) -> list[str]:
        return [self._program]

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": folder,  # of the cookie
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/config",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the server, so that we know its pid
        }

    def _make_virtual_hosts(self) -> None:
        first, last = self._made + 1, self._made + BATCH
        self.control("eval", _ADD.format(user=_user(), first=first, last=last))
        self._made = last

    def _answers(self) -> bool:
        try:
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
        except pika.exceptions.AMQPError:
            return False
        return True


def _user() -> str:
    """Who makes virtual hosts, for they share the server."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")

"""``python -m dramatiq_durable``: the dramatiq-durable command."""

from .cli import main

main(prog_name="dramatiq-durable")

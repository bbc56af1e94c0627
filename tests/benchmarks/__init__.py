"""What durability costs, beside plain Dramatiq and other queues: ``sh tests/run.sh bench``."""

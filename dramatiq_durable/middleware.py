"""Dramatiq's hooks, each a call or two into the store, the keeper or a run."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import dramatiq
import peewee
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger
from dramatiq.middleware import Middleware, MiddlewareError

from .asynchronous import Asynchronous
from .bulk import Bulk, Progress
from .claiming import claim
from .counters import begin
from .edge import with_edge
from .errors import DatabaseUnreachable, DurableError, OptionError
from .groups import send_groups_together
from .messages import epoch_of
from .options import ACTOR_DEFAULTS, check_name, check_together, checked, resolve
from .overrides import Overrides
from .pipelining import pipelining_of
from .redaction import redact_actor_logs, redact_worker_logs
from .registry import AnyActor
from .sending import Enqueue, following_up, forget_enqueued_again, note_delayed, was_enqueued_again
from .serving import Serving
from .transactions import Transactions, forget_blocks
from .underway import before_push
from .working import Run, set_current, skip_unclaimed

#: Seconds that a worker waits at its shutdown for completions to be written.
FLUSH_SECONDS = 10.0


class DurableMiddleware(Overrides, Asynchronous, Transactions, Middleware):
    """Makes the messages of durable actors survive the loss of the broker.

    Parameters:
      database: A Peewee Database, or a URL such as ``postgresql://user:pass@host/name``
        (percent-encoded where necessary).  Default: the environment
        variable ``DRAMATIQ_DURABLE_DATABASE_URL``.
      namespace: Whose audits these are, in a table that several applications
        share.  Default: the broker's namespace, else ``"dramatiq"``.
      expiration: How long past its start an open audit is given up, if it
        has been sent again at least once: it becomes dead.  Milliseconds or timedelta; default 3 days.
      retention: How long completed and cancelled audits are kept; default 1 day.
      dead_retention: The same for dead audits; default 14 days, -1 keeps them for ever.
      signing_key: A secret, or a list of them, with which audits are signed, so that who
        can write the table cannot make up jobs: the first signs, each verifies.  Text or bytes, at
        least 16; default: the environment variable ``DRAMATIQ_DURABLE_SIGNING_KEY``, else none.
      options: Defaults for the options of actors: ``durable``, ``job_timeout``,
        ``heartbeat_interval``, ``backoff``, ``audit_model``, ``max_crashes``, ``max_payload_size``,
        ``requeue_on_shutdown``.

    Raises:
      OptionError: An option makes no sense, or there is no database.
    """

    def __init__(
        self,
        database: peewee.Database | str | None = None,
        *,
        namespace: str | None = None,
        **options: Any,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        super().__init__(database, namespace, options)
        self._serving = Serving()
        self._runs: dict[int, Run] = {}
        self._stopping = threading.Event()

    @property
    def actor_options(self) -> set[str]:
        return set(ACTOR_DEFAULTS)

    # For the application

    def create_tables(self) -> None:
        """Create the tables of audits and their indexes where they are missing."""
        for table in self.tables():
            table.create()

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Wait at most *timeout* seconds until this process has written its completions.

        They are written a few milliseconds after the job is done; a test that
        reads audits calls this first.  False when the time was not enough.
        """
        return self._serving.flush(timeout)

    def send_many(
        self,
        messages: Iterable[dramatiq.Message[Any]],
        *,
        delay: int | timedelta | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Send messages of durable actors together: all of their audits in one transaction, then all to the broker.

        When it returns all audits are committed, and all jobs will run; when it raises there is
        none, and none will.  In a transaction of the same Peewee database they are part of it, and
        pushed after its commit.  From an iterator it takes any number of messages in little
        memory, for what does not fit there waits in an anonymous temporary file.

        Parameters:
          messages: As ``actor.message()`` makes them; their audits are in one table.
          delay: Until they are meant to start, milliseconds or timedelta.  Default: none.
          progress: Called as ``progress(taken, sent)`` for every few of them, with how many were taken
            from *messages*, and how many are with the broker,
            or left to a monitor.  What it raises is logged once the audits are committed.

        Returns:
          How many there were.

        Raises:
          OptionError: A message is not that of a durable actor, has another ``audit_model`` or a
            ``unique_key``, or was sent before.
          AuditWriteFailed: The audits could not be written.
        """
        if self.broker is None:
            raise DurableError("this DurableMiddleware has no broker; declare an actor on it first")
        if isinstance(delay, timedelta):
            delay = delay // timedelta(milliseconds=1)
        bulk = Bulk(self, self.broker, progress)
        with following_up():
            for message in messages:
                bulk.add(message, delay)
            return bulk.send()

    # Declaration

    def before_declare_actor(self, broker: dramatiq.Broker, actor: AnyActor) -> None:
        whose = f"actor {actor.actor_name!r}"
        actor.options.update(checked(actor.options, whose))
        policy = resolve(actor.options, self.options)
        if policy.durable:
            check_together(policy, whose)
            check_name(actor.actor_name, "the actor's name")
            check_name(actor.queue_name, "the queue's name")
        self.bind(broker)

    def after_declare_actor(self, broker: dramatiq.Broker, actor: AnyActor) -> None:
        self.bind(broker)
        policy = resolve(actor.options, self.options)
        if policy.durable and policy.requeue_on_shutdown:
            actor.options.setdefault("notify_shutdown", True)
        if policy.durable:
            redact_actor_logs(actor)
        actor.fn = with_edge(actor)

    def after_declare_queue(self, broker: dramatiq.Broker, queue_name: str) -> None:
        self.bind(broker)
        redact_worker_logs(queue_name)

    after_declare_delay_queue = after_declare_queue

    def bind(self, broker: dramatiq.Broker) -> None:
        """Make *broker* the one whose messages these are; its first queue or actor does that."""
        if self.broker is broker:
            return
        if self.broker is not None:
            raise OptionError("a DurableMiddleware belongs to one broker; make one for each")
        if sum(isinstance(each, DurableMiddleware) for each in broker.middleware) > 1:
            raise OptionError("the broker has two DurableMiddleware; add one")
        super().bind(broker)
        self.pipelining = pipelining_of(broker)
        broker.enqueue = Enqueue(self, broker)  # type: ignore[method-assign]
        send_groups_together()
        # Only RabbitMQ's has it.
        if getattr(broker, "confirm_delivery", None) is False:
            self.logger.warning(
                "This RabbitmqBroker does not ask for confirmations: nobody learns that a message was "
                "dropped, and its job starts job_timeout and backoff too late. Make the broker with "
                "confirm_delivery=True."
            )

    # Sending

    def before_enqueue(
        self, broker: dramatiq.Broker, message: dramatiq.Message[Any], delay: int | None
    ) -> None:
        if before_push(message) or epoch_of(message) is not None:
            return
        if self.policy(message).durable:
            self.bind(broker)
            raise DurableError(
                f"message {message.message_id} was enqueued before its broker had an actor or a queue, "
                "so it has no audit and is not sent; declare its queue first, and enqueue it again"
            )

    # Working

    def before_delay_message(self, broker: dramatiq.Broker, message: MessageProxy) -> None:
        note_delayed(message)

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self._stopping.clear()
        begin(broker, self.durable_actors())
        for store in self.stores():
            self._serving.keeper(store)
            try:
                store.check_table()
            except DatabaseUnreachable as error:
                self.logger.warning("%s. Durable jobs wait until it does.", error)

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self._stopping.set()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        if not self.flush():
            self.logger.warning(
                "The database did not take the last completions; those jobs will run again."
            )

    def before_process_message(self, broker: dramatiq.Broker, message: MessageProxy) -> None:
        set_current(None)
        forget_blocks()
        try:
            policy = self.policy(message)
            if epoch_of(message) is None and not policy.durable:
                return
            store = self.store_for(policy)
            keeper, claimer = self._serving.keeper(store), self._serving.claimer(store)
            run = Run(broker, message, store, policy, keeper, claimer)
            self._runs[id(message)] = run
            set_current(run)
            claim(run, self.options["retention"], self._stopping)
        except MiddlewareError:
            raise
        except Exception as error:
            # Dramatiq would log any other kind and run the body unclaimed.
            raise DurableError(f"could not claim message {message.message_id}") from error

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        forget_blocks()
        run = self._runs.get(id(message))
        if run is not None:
            run.ended(exception)

    def after_skip_message(self, broker: dramatiq.Broker, message: MessageProxy) -> None:
        run = self._runs.get(id(message))
        if run is not None:
            run.skipped()
            return
        policy, epoch = self.policy(message), epoch_of(message)
        if was_enqueued_again(message):
            return
        if epoch is not None or policy.durable:
            skip_unclaimed(self.store_for(policy), message, epoch or 0)

    def before_ack(self, broker: dramatiq.Broker, message: MessageProxy) -> None:
        forget_enqueued_again()
        run = self._runs.pop(id(message), None)
        if run is None:
            return
        set_current(None)
        try:
            run.settle()
        except Exception:
            # Whatever is raised here, Dramatiq acks; the lease runs out and the monitor recovers the job.
            self.logger.exception("Could not settle message %s.", message.message_id)

    before_nack = before_ack


def find_middleware(broker: dramatiq.Broker) -> DurableMiddleware:
    """The DurableMiddleware of *broker*, bound to it.

    Raises:
      DurableError: It has none.
    """
    for middleware in broker.middleware:
        if isinstance(middleware, DurableMiddleware):
            middleware.bind(broker)
            return middleware
    raise DurableError(
        "the broker has no DurableMiddleware; add one with broker.add_middleware(DurableMiddleware(...))"
    )

"""What the worker threads, the keepers of their processes and the broker that serves them do next."""

from __future__ import annotations

from collections.abc import Callable

from .state import (
    BODY,
    ENDINGS,
    EXHAUSTED,
    FAILED,
    FETCHED,
    FINAL,
    IDLE,
    IDLE_WORKER,
    MISSING,
    NOW,
    REQUEUED,
    RETRY_FAILED,
    RETRYING,
    SETTLED,
    SKIPPED,
    TRANSACTION,
    Copy,
    Owed,
    Process,
    Worker,
)
from .step import Step
from .turn import Changes, Turn

#: Budgets, and what the worker has to write when they end a body.
ENDS = {
    "raises": FAILED,
    "exhausted": EXHAUSTED,
    "requeues": REQUEUED,
    "throws": FINAL,
    "skips": SKIPPED,
}


def steps(turn: Turn) -> None:
    processes = turn.world.processes
    for p, process in enumerate(processes):
        if p and process == processes[p - 1]:
            continue
        for i, worker in enumerate(process.workers):
            if not i or worker != process.workers[i - 1]:
                OneWorker(turn, p, i, worker).steps()
        for owed in dict.fromkeys(process.owed):
            _pays(turn, p, process, owed)
        _dies(turn, p, process)


class OneWorker:
    def __init__(self, turn: Turn, p: int, i: int, worker: Worker) -> None:
        self.turn = turn
        self.protocol = turn.protocol
        self.process = turn.world.processes[p]
        self.p = p
        self.i = i
        self.worker = worker

    def steps(self) -> None:
        if self.worker.phase in ENDINGS:
            self.settle()
        else:
            RULES[self.worker.phase](self)

    def at(self, phase: str) -> tuple[int, int, Worker]:
        return self.p, self.i, self.worker._replace(phase=phase)

    def step(self, what: str, spend: str = "") -> Step:
        copy = self.worker.copy if self.worker.phase == FETCHED else None
        return Step("worker", what, self.worker.claim_id, copy, spend=spend)

    def fetch(self) -> None:
        broker = self.turn.broker
        for n, copy in enumerate(broker):
            if n and copy == broker[n - 1]:
                continue
            rest = broker[:n] + broker[n + 1 :]
            fetched = (self.p, self.i, Worker(FETCHED, copy))
            self.turn.add(Step("worker", "fetch", copy=copy), worker=fetched, broker=rest)

    def claim(self) -> None:
        turn, copy = self.turn, self.worker.copy
        claim_id = turn.past.claims + 1
        after = self.protocol.claim(turn.audit, copy, claim_id)
        skipped: Changes = {"worker": (self.p, self.i, IDLE_WORKER)}
        if after is not None:
            body = Worker(BODY, copy, self.protocol.token(copy, after), claim_id)
            taken = {"worker": (self.p, self.i, body)}
            step = self.step("claim")._replace(claim_id=claim_id)
            turn.statement(step, after, taken=taken, refused={})
        elif turn.audit == MISSING and self.protocol.adopts(turn.past, copy):
            adopted = self.protocol.adopt(turn.audit, copy)
            turn.statement(self.step("adopt"), adopted, taken={}, refused=skipped)
        else:
            skipped = skipped | {"owe": self.protocol.owed_after_skip(self.process)}
            turn.statement(self.step("claim"), None, taken={}, refused=skipped)
        if turn.budget.skips:
            for end in ("dead", "abort"):
                after = getattr(self.protocol, end)(turn.audit, copy)
                step = self.step(end, spend="skips")
                turn.statement(step, after, taken=skipped, refused=skipped)

    def body(self) -> None:
        turn, worker = self.turn, self.worker
        owed = Owed("complete", worker.token, worker.claim_id)
        turn.add(self.step("effect"), worker=self.at(SETTLED), owe=owed)
        for budget, phase in ENDS.items():
            if getattr(turn.budget, budget):
                turn.add(self.step(f"body ends ({budget})", spend=budget), worker=self.at(phase))
        if turn.budget.transactions and not turn.locked:
            ours = self.protocol.complete(turn.audit, worker) is not None
            begins = ours or not self.protocol.checks_transaction
            step = self.step("transaction()", spend="transactions")
            turn.add(step, worker=self.at(TRANSACTION if begins else SETTLED))
        after = self.protocol.heartbeat(turn.audit, worker)
        if after is None or turn.audit.due == NOW:
            lost = {"worker": self.at(SETTLED)}
            turn.statement(self.step("heartbeat"), after, taken={}, refused=lost)

    def transaction(self) -> None:
        turn = self.turn
        completed = self.protocol.complete(turn.audit, self.worker)
        audit = turn.audit if completed is None else completed
        written = audit._replace(effects=min(audit.effects + 1, 2))
        turn.add(self.step("commit"), write=written, worker=self.at(SETTLED))
        if turn.budget.database_fails:
            lost = self.step("commit", spend="database_fails")
            turn.add(lost, write=written, worker=self.at(FAILED))
        if turn.budget.raises:
            turn.add(self.step("rollback", spend="raises"), worker=self.at(FAILED))

    def settle(self) -> None:
        turn, worker = self.turn, self.worker
        what = ENDINGS[worker.phase]
        after = getattr(self.protocol, what)(turn.audit, worker)
        settled: Changes = {"worker": self.at(RETRYING if worker.phase == FAILED else SETTLED)}
        turn.statement(self.step(what), after, taken=settled, refused=settled)
        if turn.budget.database_fails:
            owed = settled | {"owe": Owed(what, worker.token, worker.claim_id)}
            turn.add(self.step(f"cannot write its {what}", spend="database_fails"), **owed)
            if after is not None:
                lost = self.step(what, spend="database_fails")
                turn.statement(lost, after, taken=owed, refused={})

    def retry(self) -> None:
        copy = self.protocol.retry_copy(self.worker)
        if self.protocol.renews_stamps:
            copy = copy._replace(renewed=True)
        self.turn.add(self.step("push its retry"), worker=self.at(SETTLED), push=copy)
        if self.turn.budget.push_refused:
            refused = self.step("push of its retry refused", spend="push_refused")
            self.turn.add(refused, worker=self.at(RETRY_FAILED))
            lost = self.step("push of its retry done, its answer lost", spend="push_refused")
            self.turn.add(lost, worker=self.at(RETRY_FAILED), push=copy)

    def refuse_retry(self) -> None:
        copy = self.protocol.retry_copy(self.worker)
        after = self.protocol.retry_refused(self.turn.audit, copy)
        settled = {"worker": self.at(SETTLED)}
        self.turn.statement(self.step("retry_refused"), after, taken=settled, refused=settled)

    def ack(self) -> None:
        self.turn.add(self.step("ack"), worker=(self.p, self.i, IDLE_WORKER))


RULES: dict[str, Callable[[OneWorker], None]] = {
    IDLE: OneWorker.fetch,
    FETCHED: OneWorker.claim,
    BODY: OneWorker.body,
    TRANSACTION: OneWorker.transaction,
    RETRYING: OneWorker.retry,
    RETRY_FAILED: OneWorker.refuse_retry,
    SETTLED: OneWorker.ack,
}


def _pays(turn: Turn, p: int, process: Process, owed: Owed) -> None:
    left = list(process.owed)
    left.remove(owed)
    paid: Changes = {"process": (p, Process(process.workers, tuple(left)))}
    after = getattr(turn.protocol, owed.write)(turn.audit, owed)
    turn.statement(Step("keeper", owed.write, owed.claim_id), after, taken=paid, refused=paid)
    if owed.write in {"release", "requeue"} and turn.audit.due == NOW:
        turn.add(Step("keeper", f"gives up the {owed.write}", owed.claim_id), **paid)


def _dies(turn: Turn, p: int, process: Process) -> None:
    unacked: list[Copy] = [w.copy for w in process.workers if w.phase != IDLE]
    if turn.budget.worker_dies and (unacked or process.owed):
        turn.add(
            Step("worker", "dies", max(w.claim_id for w in process.workers), spend="worker_dies"),
            process=(p, Process((IDLE_WORKER,) * len(process.workers))),
            broker=tuple(sorted((*turn.broker, *unacked))),
        )

"""A transaction that an actor begins and does not end is rolled back, and swallows nothing of ours."""

import contextlib
import logging

import peewee
import pytest

from dramatiq_durable import durable_actor

from .conftest import Note

pytestmark = pytest.mark.failure(23)

LEFT_OPEN = "left a transaction open"


@pytest.fixture
def durable(durable_beside):
    return durable_beside


def warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and LEFT_OPEN in record.getMessage()
    ]


def atomic(db):
    db.atomic().__enter__()
    Note.create(text="lost")


def nested_atomics(db):
    db.atomic().__enter__()
    Note.create(text="lost")
    db.atomic().__enter__()
    Note.create(text="lost too")


def manual_commit(db):
    db.connect(reuse_if_open=True)
    db.manual_commit().__enter__()
    db.begin()
    Note.create(text="lost")


def raw_begin(db):
    db.execute_sql("BEGIN")
    Note.create(text="lost")


def only_read(db):
    db.execute_sql("BEGIN")
    list(Note.select())


def in_an_error(db):
    db.atomic().__enter__()
    Note.create(text="lost")
    with contextlib.suppress(peewee.PeeweeException):
        db.execute_sql("SELECT * FROM no_such_table")


LEAVE_OPEN = [atomic, nested_atomics, manual_commit, raw_begin, only_read, in_an_error]


def test_it_is_rolled_back_with_a_warning_and_the_next_job_of_the_thread_is_unaffected(
    durable, db, work, audit_of, notes, caplog
):
    @durable_actor(max_retries=0)
    def leave_open(index):
        LEAVE_OPEN[index](db)

    @durable_actor(max_retries=0)
    def write(index):
        Note.create(text=LEAVE_OPEN[index].__name__)

    left, written = [], []
    for index in range(len(LEAVE_OPEN)):
        left.append(leave_open.send(index))
        written.append(write.send(index))
    work()
    assert notes() == sorted(body.__name__ for body in LEAVE_OPEN)
    assert {audit_of(message).state for message in left + written} == {"completed"}
    texts = warnings(caplog)
    assert len(texts) == len(left)
    assert all(message.message_id in text for message, text in zip(left, texts, strict=True))


@pytest.mark.parametrize("body", [atomic, raw_begin])
def test_after_a_failure_it_is_rolled_back_and_the_failure_counts(
    durable, db, work, audit_of, notes, body, caplog
):
    runs = []

    @durable_actor(max_retries=1, min_backoff=1)
    def fail():
        runs.append(1)
        if len(runs) == 1:
            body(db)
            raise ValueError
        Note.create(text="kept")

    message = fail.send()
    work()
    assert notes() == ["kept"]
    audit = audit_of(message)
    assert (audit.state, audit.failure_count, audit.start_count) == ("completed", 1, 2)
    assert len(warnings(caplog)) == 1


def test_one_that_ends_in_time_gives_no_warning(durable, db, work, notes, caplog):
    @durable_actor
    def write():
        with db.atomic():
            Note.create(text="kept")
        with db.atomic() as transaction:
            Note.create(text="lost")
            transaction.rollback()
        db.execute_sql("BEGIN")
        Note.create(text="kept too")
        db.execute_sql("COMMIT")

    write.send()
    work()
    assert notes() == ["kept", "kept too"]
    assert warnings(caplog) == []


def test_what_was_to_happen_after_its_commit_never_happens(durable, db, work):
    happened = []

    @durable_actor(max_retries=0)
    def leave_open():
        db.atomic().__enter__()
        db.after_commit(lambda: happened.append("of the one left open"))

    @durable_actor(max_retries=0)
    def write():
        with db.atomic():
            db.after_commit(lambda: happened.append("of the one committed"))

    leave_open.send()
    write.send()
    work()
    assert happened == ["of the one committed"]


@pytest.fixture
def ran():
    return []


@pytest.fixture
def charge(durable, ran):
    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    return charge


def test_a_send_in_it_never_runs_and_the_next_send_of_the_thread_does(
    durable, charge, ran, db, work, audits, clock, monitor
):
    @durable_actor(max_retries=0)
    def leave_open():
        db.atomic().__enter__()
        charge.send("rolled back")

    @durable_actor(max_retries=0)
    def send():
        charge.send("sent")

    leave_open.send()
    send.send()
    work()
    clock.move(hours=1)
    monitor.run_once()
    work()
    assert ran == ["sent"]
    assert [audit.state for audit in audits(durable)] == ["completed"] * 3

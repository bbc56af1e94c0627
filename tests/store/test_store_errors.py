"""The text of an error, and what repeated crashes do to a lease."""

from datetime import timedelta

import pytest

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("error", "stored"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError: "),
        ("as it is", "as it is"),
        ("tab\tline\r\nescape\x1b[31m", "tab line  escape [31m"),
        ("nul\x00 and bell\x07", "nul  and bell "),
        ("right-to-left\u202e and a lone \ud800", "right-to-left  and a lone  "),
        ("漢字 🐘 ß", "漢字 🐘 ß"),
    ],
)
def test_the_text_of_an_error_is_one_line_without_control_characters(store, rows, error, stored):
    held = rows.claim()
    assert store.release(held, error)
    assert rows.of(held.message_id)["last_error"] == stored


@pytest.mark.parametrize("character", ["a", "🐘"])
def test_the_text_of_an_error_is_cut(store, rows, character):
    for length in (1_999, 2_000, 2_001, 1_000_000):
        held = rows.claim()
        assert store.dead(held, character * length)
        assert rows.of(held.message_id)["last_error"] == character * min(length, 2_000)


def crash(store, rows, clock, held, backoff=MINUTE):
    """The worker dies, the lease runs out, a monitor sends the message and another worker starts."""
    clock.move(hours=1)
    assert store.mark(rows.stale(held.message_id), backoff)
    return rows.claim(held.message_id, held.token)


def test_the_first_crash_does_not_slow_a_job_down(store, rows, clock):
    held = rows.claim()
    row = rows.of(held.message_id)
    assert row["due_at"] - row["started_at"] == timedelta(microseconds=row["lease"])
    clock.move(microseconds=row["lease"])
    assert rows.stale(held.message_id).crash_count == 0  # at the end of the lease, no later


def test_after_a_crash_the_backoff_is_added_to_the_lease(store, rows, clock):
    held = crash(store, rows, clock, rows.claim(), backoff=7 * MINUTE)
    row = rows.of(held.message_id)
    lease = timedelta(microseconds=row["lease"])
    assert row["crash_count"] == 1
    assert row["due_at"] - row["started_at"] == lease + 7 * MINUTE

    before = rows.clock()
    assert store.heartbeat([held]) == set()
    assert before <= rows.of(held.message_id)["due_at"] - lease - 7 * MINUTE <= rows.clock()


def test_each_crash_counts_and_a_lost_message_does_not(store, rows, clock):
    held = rows.claim()
    for crashes in (1, 2, 3):
        held = crash(store, rows, clock, held)
        assert rows.of(held.message_id)["crash_count"] == crashes
    lost = rows.enqueue()
    clock.move(hours=1)
    assert store.mark(rows.stale(lost.message_id), MINUTE)
    assert rows.of(lost.message_id)["crash_count"] == 0


def test_a_failure_is_no_crash(store, rows, clock):
    held = rows.claim()
    assert store.release(held, "boom")
    again = rows.claim(held.message_id, 2)
    row = rows.of(again.message_id)
    assert (row["crash_count"], row["failure_count"]) == (0, 1)
    assert row["due_at"] - row["started_at"] == timedelta(microseconds=row["lease"])

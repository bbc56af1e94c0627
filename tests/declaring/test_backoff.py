"""The schedule of resque-durable, computed."""

import itertools
from datetime import timedelta

import pytest

from dramatiq_durable import cubic_backoff

TIMEOUT = timedelta(minutes=10)
DAY = timedelta(days=1)


def re_sends_within(duration):
    """How often a message that is lost every time is sent again within *duration*."""
    passed = timedelta(0)
    for enqueue_count in itertools.count(1):
        passed += TIMEOUT + cubic_backoff(enqueue_count)
        if passed > duration:
            return enqueue_count - 1
    raise AssertionError


@pytest.mark.parity(26)
def test_the_backoff_is_the_cube_of_the_enqueue_count_in_minutes():
    minutes = [cubic_backoff(enqueue_count) / timedelta(minutes=1) for enqueue_count in range(1, 9)]
    assert minutes == [1, 8, 27, 64, 125, 216, 343, 512]


@pytest.mark.parity(31)
@pytest.mark.parametrize(("days", "re_sends"), [(1, 8), (3, 10), (7, 13), (30, 19)])
def test_a_message_that_is_lost_every_time_is_sent_again_so_often(days, re_sends):
    assert re_sends_within(days * DAY) == re_sends


@pytest.mark.parity(26)
@pytest.mark.parametrize("enqueue_count", [0, -1])
def test_what_was_never_sent_has_no_backoff(enqueue_count):
    with pytest.raises(ValueError, match=f"not {enqueue_count}"):
        cubic_backoff(enqueue_count)

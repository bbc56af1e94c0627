"""Threads that Python did not start, as those of a web server, use our connections like any other."""

import _thread
import queue

SLOW = {"postgresql": "SELECT pg_sleep(0.5)", "mysql": "SELECT SLEEP(0.5)"}
THREADS = 12


def test_nobody_takes_away_the_connection_that_such_a_thread_is_using(
    stub_broker, server_url, make_durable
):
    durable = make_durable(stub_broker, server_url)
    slow = SLOW[server_url.partition(":")[0]]
    used: queue.SimpleQueue = queue.SimpleQueue()

    def statement(lane):
        connection = lane.connection()
        lane.execute_sql(slow).close()
        assert lane.connection() is connection
        return id(connection)

    def run():
        try:
            used.put(durable.store.connections.run(statement))
        except BaseException as error:  # noqa: BLE001 - for the test to see
            used.put(error)

    for _ in range(THREADS):
        _thread.start_new_thread(run, ())
    results = [used.get(timeout=20) for _ in range(THREADS)]
    assert all(isinstance(result, int) for result in results), results
    assert len(set(results)) <= 4

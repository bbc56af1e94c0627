"""What a ``unique_key`` says is as secret as the arguments: it is in the payload, and a digest of it in its column."""

import pytest

from dramatiq_durable import AuditWriteFailed, Monitor, durable_actor
from dramatiq_durable.errors import OptionError

SECRET = "ann@example.org"

pytestmark = pytest.mark.failure(49)


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def charge(durable):
    @durable_actor(max_retries=1, min_backoff=1)
    def charge():
        raise RuntimeError("refused")

    return charge


def test_no_log_tells_it_and_no_column_but_the_payload(
    stub_broker, durable, charge, db, work, clock, logged
):
    message = charge.send_with_options(unique_key=SECRET)
    assert charge.send_with_options(unique_key=SECRET).message_id == message.message_id
    with db.atomic():
        charge.send_with_options(unique_key=SECRET)
    work()
    clock.move(hours=1)
    assert Monitor(stub_broker).run_once().recovered == 1
    audit = durable.store.get(message.message_id)
    assert SECRET in bytes(audit.payload).decode()
    columns = {name: value for name, value in audit.__data__.items() if name != "payload"}
    assert SECRET not in str(columns)
    assert len(audit.unique_key) == 64
    assert message.message_id in logged()
    assert SECRET not in logged()


def test_no_error_tells_it(stub_broker, durable, charge, db, shown):
    charge.send_with_options(unique_key=SECRET)
    with pytest.raises(OptionError) as refused:
        durable.send_many([charge.message_with_options(unique_key=SECRET)])
    assert SECRET not in shown(refused.value)
    with pytest.raises(OptionError) as refused:
        charge.send_with_options(unique_key=[SECRET])
    assert SECRET not in shown(refused.value)
    with db.connection_context():
        db.execute_sql("DROP TABLE durable_audits")
    with pytest.raises(AuditWriteFailed) as failed:
        charge.send_with_options(unique_key=SECRET)
    assert SECRET not in shown(failed.value)


def test_the_command_shows_it_when_asked_for_arguments_and_options_alone(
    stub_broker, durable, charge, command_on
):
    message = charge.send_with_options(unique_key=SECRET)
    command = command_on(stub_broker)
    for words in (["list"], ["list", "--json"], ["status"], ["show", message.message_id]):
        done = command(*words)
        assert done.exit_code == 0
        assert SECRET not in done.output
    assert SECRET in command("show", message.message_id, "--arguments").output

"""What a client sets follows it, and nobody else: parameters that PostgreSQL 15 does not report
(search_path, customs), and what lives in a server's session, on links that clients share."""
import pytest

import activity
import bank
from ledger import USERS
from transcript import SYNC, Client, run

# one of the server's own, one that exists only because it was set
PARAMETERS = [("search_path", "app", '"$user", public'), ("myapp.tenant", "1", "")]
MEMBERS = ["primary", "secondary", "analytics"]


@pytest.fixture(scope="module")
def door(module_proxy, made):
    """One link a member, so that whoever comes next gets the same one."""
    return module_proxy(made, sections=bank.sections(made), default_pool_size=1,
                        pool_mode="transaction")


@pytest.fixture
def a(door, made):
    with Client(door.port) as a:
        yield a
    activity.await_rest(made)


@pytest.fixture
def b(door):
    with Client(door.port) as b:
        yield b


def at(member, name):
    return f"/* pgweave: database={member} */ select current_setting('{name}', true)"


def everywhere(c, name):
    """What the parameter is on every member; '' when it is not there."""
    found = {c.value(at(m, name)) or "" for m in MEMBERS}
    assert len(found) == 1, found
    return found.pop()


@pytest.mark.parametrize("name,value,default", PARAMETERS)
@pytest.mark.parametrize("how", ["simple", "extended"])
def test_set_follows_its_client(a, b, name, value, default, how):
    if how == "simple":
        assert a.ask(f"set {name} = '{value}'") == "C(SET) Z(I)"
    else:
        assert a.say(run(f"set {name} to '{value}'"), SYNC) == "1 2 C(SET) Z(I)"
    for _ in range(3):
        assert everywhere(a, name) == value
        assert everywhere(b, name) == default
    a.ask(f"set {name} = 'other'")
    b.ask(f"set {name} = '{value}'")
    assert (everywhere(a, name), everywhere(b, name)) == ("other", value)


@pytest.mark.parametrize("sql,name,value", [
    ("set search_path = app, public", "search_path", "app, public"),
    ("set search_path to \"App\", public", "search_path", '"App", public'),
    ("set search_path to 'x y', public", "search_path", '"x y", public'),
    ("set search_path = ''", "search_path", '""'),
    ("set schema 'app'", "search_path", "app"),
    ("set myapp.tenant = 'it''s'", "myapp.tenant", "it's"),
    ("set myapp.tenant = E'a\\\\b\\'c'", "myapp.tenant", "a\\b'c"),
    ("set MyApp.Tenant = -4.5", "myapp.tenant", "-4.5"),
    ("set statement_timeout = 5000", "statement_timeout", "5s"),
    ("set enable_seqscan = false", "enable_seqscan", "off"),
    ("set time zone -3", "TimeZone", "<-03>+03"),
    ("set names 'latin1'", "client_encoding", "LATIN1"),
    ("set xml option document", "xmloption", "document"),
    ("set session characteristics as transaction read only", "default_transaction_read_only", "on"),
    ("set session characteristics as transaction isolation level serializable",
     "default_transaction_isolation", "serializable"),
    ("set session characteristics as transaction isolation level repeatable read, read write",
     "default_transaction_isolation", "repeatable read"),
    ("set session characteristics as transaction read only, isolation level read uncommitted",
     "default_transaction_isolation", "read uncommitted"),
    ("set session characteristics as transaction isolation level serializable, read only, deferrable",
     "default_transaction_deferrable", "on"),
    ("set session characteristics as transaction deferrable not deferrable deferrable",
     "default_transaction_deferrable", "on"),
    ("begin; set session characteristics as transaction deferrable; commit",
     "default_transaction_deferrable", "on"),
    ("set work_mem = '1MB'; set session characteristics as transaction deferrable, read only; reset work_mem",
     "default_transaction_deferrable", "on"),
    ("set search_path = app; select 1", "search_path", "app"),
    ("begin; set search_path = app; commit", "search_path", "app"),
    ("set search_path = x; set local search_path = y; set search_path = app; reset work_mem", "search_path", "app"),
])
def test_every_form_of_set(door, b, sql, name, value):
    default = everywhere(b, name)
    with Client(door.port) as c:
        assert "E(" not in c.ask(sql)
        assert everywhere(c, name) == value
    assert everywhere(b, name) == default


def test_set_role_follows_its_client(made, a, b):
    with made.connect("postgres") as c:
        c.execute("grant bob to alice")
    assert a.ask("set role bob") == "C(SET) Z(I)"
    for member in MEMBERS:
        sql = f"/* pgweave: database={member} */ select current_user"
        assert (a.value(sql), b.value(sql)) == ("bob", "alice")
    assert a.ask("reset role") == "C(RESET) Z(I)"
    assert {a.value(f"/* pgweave: database={m} */ select current_user") for m in MEMBERS} == {"alice"}


@pytest.mark.parametrize("sql", [
    "select set_config('search_path', 'app', false)",
    "do $$ begin perform set_config('search_path', 'app', false); end $$",
    "do $$ begin set search_path = app; end $$"], ids=["set_config", "do set_config", "do set"])
def test_what_a_function_sets_is_not_the_next_ones(proxy, made, sql):
    door = proxy(made, sections=bank.sections(made), default_pool_size=1)
    with Client(door.port) as a, Client(door.port) as b:
        assert "E(" not in a.ask(sql)
        assert everywhere(b, "search_path") == '"$user", public'


@pytest.mark.parametrize("name,value,default", PARAMETERS)
def test_set_in_a_transaction(a, b, name, value, default):
    """It holds on every leg and after COMMIT; not after ROLLBACK and ROLLBACK TO."""
    a.ask("begin")
    a.ask(f"set {name} = '{value}'")
    assert everywhere(a, name) == value
    assert a.ask("commit") == "C(COMMIT) Z(I)"
    assert (everywhere(a, name), everywhere(b, name)) == (value, default)
    a.ask("begin")
    a.ask(USERS)
    a.ask(f"set {name} = 'gone'")
    assert a.ask("rollback") == "C(ROLLBACK) Z(I)"
    assert (everywhere(a, name), everywhere(b, name)) == (value, default)
    a.ask("begin")
    a.ask(f"set {name} = 'first'")
    a.ask("savepoint s")
    a.ask(f"set {name} = 'second'")
    assert a.value(at("primary", name)) == "second"
    assert a.ask("rollback to s") == "C(ROLLBACK) Z(T)"
    assert everywhere(a, name) == "first"
    assert a.ask("commit") == "C(COMMIT) Z(I)"
    assert (everywhere(a, name), everywhere(b, name)) == ("first", default)


@pytest.mark.parametrize("name,value,default", PARAMETERS)
def test_set_in_a_failed_transaction(a, b, name, value, default):
    a.ask("begin")
    a.ask(f"set {name} = '{value}'")
    a.ask("select 1/0")
    assert a.ask("commit") == "C(ROLLBACK) Z(I)"
    assert (everywhere(a, name), everywhere(b, name)) == (default, default)


@pytest.mark.parametrize("name,value,default", PARAMETERS)
def test_set_local_ends_with_its_transaction(a, b, name, value, default):
    a.ask("begin")
    a.ask(f"set local {name} = '{value}'")
    assert a.value(f"select current_setting('{name}')") == value
    assert a.ask("commit") == "C(COMMIT) Z(I)"
    assert (everywhere(a, name), everywhere(b, name)) == (default, default)


@pytest.mark.parametrize("name,value,default", PARAMETERS)
@pytest.mark.parametrize("how", ["string", "batch"])
def test_set_before_a_failure_sets_nothing(a, name, value, default, how):
    if how == "string":
        t = a.ask(f"set {name} = '{value}'; select 1/0")
    else:
        t = a.say(run(f"set {name} = '{value}'"), run("select 1/0"), SYNC)
    assert t.endswith("E(22012 division by zero) Z(I)")
    assert everywhere(a, name) == default


@pytest.mark.parametrize("name,value,default", PARAMETERS)
@pytest.mark.parametrize("reset", [
    "reset {}", "reset all", "discard all",
    "set {} to default"])
def test_reset_brings_back_what_was_asked_for_at_connect(door, b, name, value, default, reset):
    with Client(door.port, options=f"-c{name}=start") as c:
        assert everywhere(c, name) == "start"
        c.ask(f"set {name} = '{value}'")
        assert everywhere(c, name) == value
        assert "E(" not in c.ask(reset.format(name))
        assert everywhere(c, name) == "start"
        assert everywhere(b, name) == default
    b.ask(f"set {name} = '{value}'")
    assert "E(" not in b.ask(reset.format(name))
    assert everywhere(b, name) == default


def test_tables_are_found_by_the_search_path(a, b):
    """It decides which table a name means, of whichever client the link was before."""
    for member in MEMBERS:
        a.ask(f"/* pgweave: database={member} */ create schema if not exists app")
        a.ask(f"/* pgweave: database={member} */ create table if not exists app.here (n int)")
    a.ask("set search_path = app")
    for member in MEMBERS:
        sql = f"/* pgweave: database={member} */ select count(*) from here"
        assert a.ask(sql) == "T D(0) C(SELECT 1) Z(I)"
        assert b.ask(sql).startswith('E(42P01 relation "here" does not exist)')


@pytest.mark.parametrize("database", ["shop", "bank"])
def test_search_path_of_the_startup_packet(door, database):
    """options=-csearch_path of one client is not the next one's."""
    show = "show search_path"
    for _ in range(2):
        with Client(door.port, database, options="-csearch_path=app") as c, Client(door.port, database) as d:
            assert c.value(show) == "app"
            assert d.value(show) == '"$user", public'
            assert c.value(show) == "app"


PREPARED = "select count(*) from pg_prepared_statements where name = 'p'"


@pytest.mark.parametrize("leave,look", [
    ("prepare p as select 1", "execute p"),
    ("prepare p as select 1", PREPARED),
    ("listen here", "select count(*) from pg_listening_channels()"),
    ("create temp table t (a int)", "select count(*) from t"),
    ("create temporary table t as select 1", "select count(*) from t"),
    ("create local temp table t as select 1", "select count(*) from t"),
    ("create temp view t as select 1", "select count(*) from t"),
    ("create temp sequence t", "select count(*) from t"),
    ("create table pg_temp.t as select 1", "select count(*) from t"),
    ("select 1 into temp t", "select count(*) from t"),
    ("declare c cursor with hold for select 1", "select count(*) from pg_cursors where name = 'c'"),
    ("select pg_advisory_lock(42)", "select count(*) from pg_locks where locktype = 'advisory'"),
])
@pytest.mark.parametrize("how", ["simple", "extended", "in a transaction"])
def test_what_one_leaves_the_next_does_not_find(proxy, made, leave, look, how):
    door = proxy(made, sections=bank.sections(made), default_pool_size=1)
    with Client(door.port) as a, Client(door.port) as b:
        if how == "in a transaction":
            heard = [a.ask(sql) for sql in ("begin", leave, "commit")]
            assert heard[2] == "C(COMMIT) Z(I)"
            heard = heard[1]
        else:
            heard = a.say(run(leave), SYNC) if how == "extended" else a.ask(leave)
        assert "E(" not in heard
        if not leave.startswith(("prepare", "listen")):
            a.sock.close()  # until then, it keeps the link
        t = b.ask(look)
        assert t == "T D(0) C(SELECT 1) Z(I)" or t.startswith(("E(42P01 ", "E(26000 "))

"""The HTTP API: statements, credentials, health, metrics, and what it refuses."""
import base64
import concurrent.futures
import http.client
import json
import re
import socket
import time

import psycopg
import pytest

import bank
from poll import until
from proxy import free_port

pytestmark = pytest.mark.usefixtures("only_pgweave")


class Api:
    """One HTTP client: a login or a key, and the database it means."""

    def __init__(self, port, user="alice", password=None, database=None, style="basic"):
        self.port, self.user, self.database, self.style = port, user, database, style
        self.password = f"pw-{user}" if password is None else password

    def headers(self):
        out = {"X-Database": self.database} if self.database else {}
        if self.style == "key":
            out |= {"X-API-Key": self.user, "X-API-Secret": self.password}
        elif self.style == "basic":
            pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            out["Authorization"] = f"Basic {pair}"
        return out

    def raw(self, method, path, body=None, **headers):
        """(status, headers, bytes)."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            given = self.headers() | {k.replace("_", "-"): v for k, v in headers.items()}
            c.request(method, path, body, given)
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def call(self, method, path, body=None, **headers):
        """(status, what the JSON says)."""
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        status, got, data = self.raw(method, path, body, **headers)
        assert got["Content-Type"] == "application/json", data
        return status, json.loads(data)

    def get(self, path):
        return self.call("GET", path)

    def post(self, path, body):
        return self.call("POST", path, body)

    def query(self, sql, params=None):
        body = {"query": sql} if params is None else {"query": sql, "params": params}
        return self.post("/api/database/query", body)

    def rows(self, sql, params=None):
        status, said = self.query(sql, params)
        assert status == 200, said
        return said["rows"]

    def value(self, sql, params=None):
        return list(self.rows(sql, params)[0].values())[-1]

    def error(self, sql, params=None):
        """(status, code) of a statement that fails."""
        status, said = self.query(sql, params)
        assert status >= 400 and set(said) == {"error"}, said
        return status, said["error"]["code"]


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    """A plain database."""
    port = free_port()
    door = module_proxy(pg, http_listen=f"127.0.0.1:{port}", default_pool_size=5,
                        http_max_result="256kB", http_max_body="64kB")
    door.http = port
    return door


@pytest.fixture
def api(door):
    return Api(door.http)


@pytest.fixture(scope="module")
def woven(module_proxy, pg):
    """The virtual database bank."""
    bank.create(pg)
    port = free_port()
    models = "\n[model bank]\nAnalyticsEvent = analytics\nUser = users\n"
    door = module_proxy(pg, http_listen=f"127.0.0.1:{port}, [::1]:{port}", default_pool_size=4,
                        sections=bank.sections(pg, models), health_interval="1s",
                        http_metrics_public=1)
    door.http = port
    return door


def of_key(door, n, style="key"):
    k = bank.key(n)
    return Api(door.http, k["user"], k["password"], style=style)


@pytest.fixture
def woven_api(woven):
    return Api(woven.http, database="bank")


# ---- statements ----

VALUES = [
    ("select 1", 1), ("select 1::int2", 1), ("select 9007199254740992", 9007199254740992),
    ("select 9007199254740993", "9007199254740993"), ("select -9007199254740992", -9007199254740992),
    ("select -9223372036854775808", "-9223372036854775808"),
    ("select true", True), ("select false", False), ("select null::int", None),
    ("select 1.50", "1.50"), ("select 'NaN'::numeric", "NaN"), ("select 0.1::float8", 0.1),
    ("select 1e300::float8", 1e300), ("select 'NaN'::float8", "NaN"),
    ("select '-Infinity'::float4", "-Infinity"), ("select 'a\"\\b' || chr(10) || chr(1)", 'a"\\b\n\x01'),
    ("select 'grüße 🐘'", "grüße 🐘"), ("select '{\"a\": [1, null]}'::jsonb", {"a": [1, None]}),
    ("select ' [1] '::json", [1]), ("select 'null'::jsonb", None), ("select '\\x00ff'::bytea", "\\x00ff"),
    ("select date '2026-01-02'", "2026-01-02"), ("select array[1,2]", "{1,2}"),
    ("select ''", ""), ("select 42::oid", "42"),
]


@pytest.mark.parametrize("sql,expected", VALUES)
def test_values(api, sql, expected):
    got = api.value(sql)
    assert got == expected and type(got) is type(expected)


def test_answer(api):
    status, said = api.query("select 1 as a, 'x' as b, 2::int8 as c, 'lo'::char(3) as d, "
                             "'(1,2)'::point as e, null::pg_node_tree as f")
    assert status == 200
    assert said["rows"] == [{"a": 1, "b": "x", "c": 2, "d": "lo ", "e": "(1,2)", "f": None}]
    assert said["rowCount"] == 1 and said["database"] == "shop"
    assert said["fields"] == [
        {"name": "a", "type": "int4"}, {"name": "b", "type": "text"}, {"name": "c", "type": "int8"},
        {"name": "d", "type": "bpchar"}, {"name": "e", "type": "point"}, {"name": "f", "type": "194"}]
    assert 0 < said["durationMs"] < 60000 and isinstance(said["durationMs"], float)


def test_no_rows_and_no_columns(api):
    assert api.query("select 1 as a where false")[1]["rows"] == []
    status, said = api.query("select")
    assert status == 200 and said["rows"] == [{}] and said["fields"] == []
    assert api.query("")[1]["rowCount"] == 0
    assert api.query("select generate_series(1, 5) as n")[1]["rowCount"] == 5


def test_same_name_twice(api):
    _, said = api.query("select 1 as a, 2 as b, 3 as a")
    assert said["rows"] == [{"b": 2, "a": 3}]
    assert [f["name"] for f in said["fields"]] == ["a", "b", "a"]


def test_changes(api):
    api.query("drop table if exists changed")
    assert api.query("create table changed (id int primary key, t text)")[1]["rowCount"] == 0
    assert api.query("insert into changed select i, 't' from generate_series(1, 4) i")[1]["rowCount"] == 4
    assert api.query("update changed set t = 'u' where id > $1", [1])[1]["rowCount"] == 3
    _, said = api.query("delete from changed where id = 1 returning id, t")
    assert said["rows"] == [{"id": 1, "t": "t"}] and said["rowCount"] == 1


PARAMS = [
    ("select $1::int + $2::int", [1, 2], 3), ("select $1::text", [None], None),
    ("select $1::bool", [True], True), ("select $1::numeric", [0.1], "0.1"),
    ("select $1::numeric", [1e-7], "0.0000001"), ("select $1::int8", [9223372036854775807], "9223372036854775807"),
    ("select $1::text", ["it's \"q\" ü"], "it's \"q\" ü"), ("select ($1::jsonb)->'a'->>1", [{"a": [1, "x"]}], "x"),
    ("select $1::jsonb", [[1, 0.1, None, True, {"k": "ü"}]], [1, 0.1, None, True, {"k": "ü"}]),
    ("select $1::int[]", ["{1,2}"], "{1,2}"), ("select $1::int[]", [[1, 2, None]], "{1,2,NULL}"),
    ("select $1::int[]", [[]], "{}"), ("select $1::int[]", [[[1, 2], [3, 4]]], "{{1,2},{3,4}}"),
    ("select ($1::text[])[2]", [["x", 'a"b\\c, {NULL}', None]], 'a"b\\c, {NULL}'),
    ("select count(*) from generate_series(1, 9) i where i = any($1)", [[2, 3, 99]], 2),
    ("select :a::bool[]::text || :b::jsonb::text || :c", {"a": [True, False], "b": [1], "c": "x"}, "{t,f}[1]x"),
    ("select ($1::jsonb[])[1]->>'k'", [[{"k": 'a"b'}]], 'a"b'), ("select $1::json->>1", [[1, "two"]], "two"),
    ("select :a::int + :b + :a", {"a": 1, "b": 2}, 4),
    ("select ':a' || \":a\" || $$:a$$ || E'\\':a' || :a::text from (select 'x'::text as \":a\") t /* :a */ -- :a",
     {"a": "v"}, ":ax:a':av"),
    ("select (array[1,2,3])[1:2] || :x::int", {"x": 9}, "{1,2,9}"),
    ("select :größe::int", {"größe": 5}, 5),
]


@pytest.mark.parametrize("sql,params,expected", PARAMS)
def test_params(api, sql, params, expected):
    assert api.value(sql, params) == expected


BAD_BODIES = [
    (b"", "22032", "empty"), (b"{", "22032", "line 1, column 1"), (b'{"query": "select 1"', "22032", "line 1"),
    (b'{"query":\n "select 1",}', "22032", "line 2"), (b'[1]', "22023", "object"),
    (b'{"query": "a", "query": "b"}', "22032", "duplicate"), (b'\xff\xfe', "22032", ""),
    (b'{"query": "\\u0000"}', "22032", "\\u0000"), (b'{"query": "select $1", "params": [1e999]}', "22032", "number"),
    (b'{"query": "select $1", "params": [99999999999999999999]}', "22032", "string"),
    (b'{}', "22023", '"query" is missing'), (b'{"query": 1}', "22023", '"query" must be a string'),
    (b'{"query": "select 1", "params": 1}', "22023", '"params"'),
    (b'{"query": "select 1", "parms": []}', "22023", '"params"'),
    (b'{"query": "select :a", "params": {}}', "22023", '"a"'),
    (b'{"query": "select $1", "params": {"a": 1}}', "22023", "$1"),
    (b'[' * 5000, "22032", ""),
]


@pytest.mark.parametrize("body,code,word", BAD_BODIES)
def test_bad_body(api, body, code, word):
    status, said = api.call("POST", "/api/database/query", body)
    assert (status, said["error"]["code"]) == (400, code)
    assert word in said["error"]["message"]


ERRORS = [
    ("select * from nowhere", 400, "42P01"), ("selec 1", 400, "42601"), ("select 1/0", 400, "22012"),
    ("select 1; select 2", 400, "42601"), ("do $$ begin raise exception 'no'; end $$", 400, "P0001"),
    ("set role postgres", 403, "42501"), ("vacuum nowhere", 400, "42P01"),
    ("do $$ begin raise unique_violation; end $$", 409, "23505"),
    ("do $$ begin raise serialization_failure; end $$", 409, "40001"),
    ("do $$ begin raise check_violation; end $$", 400, "23514"),
    ("do $$ begin raise query_canceled; end $$", 504, "57014"),
    ("do $$ begin raise read_only_sql_transaction; end $$", 403, "25006"),
    ("do $$ begin raise sqlstate 'XX001'; end $$", 500, "XX001"),
    ("do $$ begin raise too_many_connections using detail = 'retry in 2.5 s'; end $$", 429, "53300"),
    ("copy (select 1) to stdout", 400, "0A000"), ("copy changed from stdin", 400, None),
]


@pytest.mark.parametrize("sql,status,code", ERRORS)
def test_errors(api, sql, status, code):
    got = api.error(sql)
    assert got[0] == status and code in (got[1], None)
    assert api.value("select 1") == 1


def test_error_says_all(api):
    status, said = api.query("do $$ begin raise sqlstate 'P0009' using message = 'm \"q\"', detail = 'd', "
                             "hint = 'h'; end $$")
    assert (status, said) == (400, {"error": {"code": "P0009", "message": 'm "q"', "detail": "d", "hint": "h"}})


def test_retry_after(api):
    body = {"query": "do $$ begin raise configuration_limit_exceeded using detail = 'retry in 2500 ms'; end $$"}
    status, headers, _ = api.raw("POST", "/api/database/query", json.dumps(body))
    assert (status, headers["Retry-After"]) == (429, "3")


def test_wrong_count_of_params(api):
    assert api.error("select $1::int, $2::int", [1]) == (400, "08P01")


def test_warnings(api):
    _, said = api.query("do $$ begin raise warning 'careful'; raise notice 'quiet'; end $$")
    assert [w["message"] for w in said["warnings"]] == ["careful"]


def test_result_too_large(api):
    status, said = api.query("select repeat('x', 1000) from generate_series(1, 1000)")
    assert (status, said["error"]["code"]) == (500, "54000")
    assert "http_max_result" in said["error"]["message"]
    status, said = api.query("select repeat('x', 1000000)")
    assert (status, said["error"]["code"]) == (500, "54000")
    assert api.value("select length(repeat('x', 100000))") == 100000
    assert len(api.value("select repeat('x', 200000)")) == 200000


def test_body_too_large(api):
    for size in (65536, 100000, 5000000):
        status, headers, data = api.raw("POST", "/api/database/query",
                                        json.dumps({"query": "select 1", "params": ["x" * size]}))
        assert status == 413
        if size <= 100000:
            said = json.loads(data)["error"]
            assert said["code"] == "54000" and "http_max_body" in said["message"]
    assert api.value("select length($1::text)", ["x" * 60000]) == 60000


def test_other_encoding(pg, api):
    with pg.connect() as c:
        c.execute("alter role bob set client_encoding = 'LATIN1'")
    try:
        assert Api(api.port, "bob").value("select 'grüße'") == "grüße"
    finally:
        with pg.connect() as c:
            c.execute("alter role bob reset client_encoding")


def test_many_at_once(api):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda i: api.value("select $1::int * 2", [i]), range(200)))
    assert got == [2 * i for i in range(200)]


def test_keep_alive(api):
    c = http.client.HTTPConnection("127.0.0.1", api.port, timeout=20)
    for i in range(5):
        c.request("POST", "/api/database/query", json.dumps({"query": f"select {i} as i"}), api.headers())
        assert json.loads(c.getresponse().read())["rows"] == [{"i": i}]
    c.close()


def test_query_timeout(proxy, pg):
    port = free_port()
    proxy(pg, http_listen=f"127.0.0.1:{port}", query_timeout=1)
    api = Api(port)
    assert api.error("select pg_sleep(20)") == (504, "57014")
    assert api.value("select 1") == 1


def test_client_gone(api, pg):
    """Who goes away ends the statement that runs for it."""
    with socket.create_connection(("127.0.0.1", api.port)) as s:
        body = json.dumps({"query": "select pg_sleep(60) /* gone */"}).encode()
        head = "".join(f"{k}: {v}\r\n" for k, v in api.headers().items())
        s.sendall(f"POST /api/database/query HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n"
                  .encode() + body)

        def count():
            with pg.connect() as c:
                return c.execute("select count(*) from pg_stat_activity where query like '%/* gone */' "
                                 "and state = 'active' and pid <> pg_backend_pid()").fetchone()[0]
        until(lambda: count() == 1, 10, "the statement runs")
    until(lambda: count() == 0, 10, "the statement is cancelled")


def test_server_down(proxy, own_pg):
    port = free_port()
    proxy(own_pg, http_listen=f"127.0.0.1:{port}", query_wait_timeout=2)
    api = Api(port)
    assert api.value("select 1") == 1
    own_pg.kill()
    status, said = api.query("select 1")
    assert status in (503, 504), said
    own_pg.restart()
    until(lambda: api.query("select 1")[0] == 200, 20, "it is there again")


# ---- transactions ----

def test_transaction(api):
    api.query("drop table if exists acc")
    api.query("create table acc (id int primary key, n int check (n >= 0))")
    status, said = api.post("/api/database/transaction", {"queries": [
        {"query": "insert into acc values ($1, 10), ($2, 0)", "params": [1, 2]},
        {"query": "update acc set n = n - :x where id = 1", "params": {"x": 4}},
        {"query": "update acc set n = n + 4 where id = 2"},
        {"query": "select id, n from acc order by id"}]})
    assert status == 200
    assert [r["rowCount"] for r in said["results"]] == [2, 1, 1, 2]
    assert said["results"][3]["rows"] == [{"id": 1, "n": 6}, {"id": 2, "n": 4}]
    assert said["database"] == "shop" and said["durationMs"] > 0
    status, said = api.post("/api/database/transaction", {"queries": [
        {"query": "update acc set n = n + 100 where id = 2"},
        {"query": "update acc set n = n - 100 where id = 1"}]})
    assert (status, said["error"]["code"], said["failedQuery"]) == (400, "23514", 1)
    assert api.rows("select n from acc order by id") == [{"n": 6}, {"n": 4}]


def test_transaction_deferred(api):
    api.query("drop table if exists def")
    api.query("create table def (id int primary key deferrable initially deferred)")
    status, said = api.post("/api/database/transaction", {"queries": [
        {"query": "insert into def values (1), (1)"}]})
    assert (status, said["error"]["code"]) == (409, "23505")
    assert api.value("select count(*) from def") == 0


def test_transaction_not_ended_inside(api):
    api.query("drop table if exists ends")
    api.query("create table ends (id int)")
    status, said = api.post("/api/database/transaction", {"queries": [
        {"query": "insert into ends values (1)"}, {"query": "rollback"}, {"query": "insert into ends values (2)"}]})
    assert (status, said["error"]["code"], said["failedQuery"]) == (400, "2D000", 1)
    assert api.value("select count(*) from ends") == 0


@pytest.mark.parametrize("body,word", [
    ({}, '"queries"'), ({"queries": []}, '"queries"'), ({"queries": {}}, '"queries"'), ({"queries": [1]}, "queries[0]"),
    ({"queries": [{"query": "select 1"}, {}]}, "queries[1].query"),
    ({"queries": [{"query": "select 1", "params": 3}]}, "queries[0].params"), ({"query": "select 1"}, "quer")])
def test_transaction_refused(api, body, word):
    status, said = api.post("/api/database/transaction", body)
    assert status == 400 and word in said["error"]["message"]


# ---- paths, methods, credentials ----

def test_paths(api):
    assert api.get("/nowhere")[0] == 404
    assert api.get("/database//health")[0] == 404
    status, headers, data = api.raw("GET", "/api/database/query")
    assert (status, headers["Allow"]) == (405, "POST")
    status, headers, _ = api.raw("DELETE", "/health/live")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, headers, data = api.raw("HEAD", "/health/live")
    assert (status, data) == (200, b"") and int(headers["Content-Length"]) > 0
    assert Api(api.port, style="none").get("/health/live") == (200, {"status": "ok"})


@pytest.mark.parametrize("user,password", [
    ("alice", "wrong"), ("alice", ""), ("nobody", "x"), ("vb_" + "9" * 32, "x"), ("", ""), ("alice", "pw-bob"),
    ("a" * 3000, "x")])
@pytest.mark.parametrize("style", ["basic", "key"])
def test_wrong_credentials(door, user, password, style):
    api = Api(door.http, user, password, style=style)
    status, headers, data = api.raw("POST", "/api/database/query", '{"query": "select 1"}')
    assert status == 401 and json.loads(data)["error"]["code"] == "28P01"
    assert headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("header", ["Basic", "Basic !!!!", "Basic YWxpY2U=", "Bearer x", "Basic AAAA", ""])
def test_strange_credentials(door, header):
    api = Api(door.http, style="none")
    for path in ("/health", "/metrics", "/", "/api/database/info"):
        assert api.raw("GET", path, Authorization=header)[0] == 401


def test_no_credentials(door):
    api = Api(door.http, style="none")
    status, headers, data = api.raw("GET", "/health")
    assert status == 401 and json.loads(data)["error"]["code"] == "28P01"


def test_failed_login_is_logged(door):
    assert Api(door.http, "alice", "wr0ng-secret").get("/health")[0] == 401
    assert "alice@127.0.0.1 login failed" in door.log()
    assert "wr0ng-secret" not in door.log()


def test_other_site(api):
    body = '{"query": "select 1"}'
    status, said = api.call("POST", "/api/database/query", body, Origin="https://evil.example")
    assert (status, said["error"]["code"]) == (403, "42501")
    assert api.call("POST", "/api/database/query", body, Origin=f"http://127.0.0.1:{api.port}")[0] == 200


def test_secrets_of_all_kinds(proxy, pg):
    import hashlib
    md5 = "md5" + hashlib.md5(b"pw-bobbob").hexdigest()
    port = free_port()
    proxy(pg, secrets={"alice": bank.verifier("pw-alice"), "bob": md5, "admin": "pw-admin"},
          databases={"shop": f"host=127.0.0.1 port={pg.port} dbname=shop user=alice password=pw-alice"},
          auth_type="scram-sha-256", http_listen=f"127.0.0.1:{port}")
    for user in ("alice", "bob", "admin"):
        assert Api(port, user).value("select 1") == 1
        assert Api(port, user, "no").get("/health")[0] == 401


def test_proof_is_forgotten_on_reload(proxy, pg):
    """What was believed of an old secret is not believed of a new one."""
    from proxy import auth_file
    port = free_port()
    door = proxy(pg, http_listen=f"127.0.0.1:{port}")
    assert Api(port).value("select 1") == 1
    auth_file(door.dir + "/users.txt", {"alice": "other"})
    door.reload()
    until(lambda: Api(port).get("/health")[0] == 401, 10, "the old password is refused")
    assert Api(port, "alice", "other").get("/health")[0] in (200, 503)


def test_refuses_to_start(proxy, pg):
    for wrong, code in (("127.0.0.1", 1), ("127.0.0.1:99999", 1), ("[::1", 1), ("a:b:1", 1),
                        ("nowhere.invalid:80", 2)):
        door = proxy(pg, http_listen=wrong, wait=False)
        door.proxy.expect_exit = code
        assert door.wait_exit() == code
        assert "http_listen" in door.log()
    with socket.create_server(("127.0.0.1", 0)) as s:
        door = proxy(pg, http_listen=f"127.0.0.1:{s.getsockname()[1]}", wait=False)
        door.proxy.expect_exit = 2
        assert door.wait_exit() == 2 and "http_listen: cannot listen" in door.log()


def test_client_limit(proxy, pg):
    """A client by HTTP is one of max_client_conn."""
    port = free_port()
    door = proxy(pg, http_listen=f"127.0.0.1:{port}", max_client_conn=2)
    api = Api(port)
    with door.connect(), door.connect():
        status, headers, data = api.raw("POST", "/api/database/query", '{"query": "select 1"}')
        assert (status, json.loads(data)["error"]["code"]) == (429, "53300")
        assert int(headers["Retry-After"]) >= 1
    until(lambda: api.query("select 1")[0] == 200, 10, "there is room again")


def test_console(woven):
    """For those whom admin_users names, and keys with OPERATE."""
    admin = Api(woven.http, "admin", database="pgweave")
    assert admin.rows("SHOW VERSION")[0]["version"].startswith("pgweave ")
    assert Api(woven.http, database="pgweave").query("SHOW VERSION")[0] == 403
    assert admin.get("/api/database/schema")[0] == 400
    for rights, status in (("OPERATE", 200), ("FEDERATE", 403)):
        made, = admin.rows(f"CREATE KEY 'http' TYPE server VIRTUAL bank {rights}")
        api = Api(woven.http, made["key"], made["secret"], "pgweave", "key")
        assert api.query("SHOW POOLS")[0] == status
        assert api.query("RELOAD")[0] == status
        api.database = None
        assert api.value("select current_database()") == "bank_p"
        with pytest.raises(psycopg.OperationalError, match="may not connect"):
            woven.connect("pgweave", made["key"], password=made["secret"])
        admin.rows(f"REVOKE KEY '{made['key']}'")
        assert api.query("select 1")[0] == 401


def test_key_limits(woven):
    """Each statement of a request counts, and what asks where it went does not."""
    admin = Api(woven.http, "admin", database="pgweave")
    made, = admin.rows("CREATE KEY 'slow' TYPE server VIRTUAL bank RATE '2/min'")
    api = Api(woven.http, made["key"], made["secret"], style="key")
    assert [api.query("select 1")[0] for _ in range(2)] == [200, 200]
    status, headers, data = api.raw("POST", "/api/database/query", '{"query": "select 1"}')
    assert (status, json.loads(data)["error"]["code"]) == (429, "53400")
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert api.get("/database/primary/health")[0] == 200
    made, = admin.rows("CREATE KEY 'reads' TYPE server VIRTUAL bank READ ONLY")
    api = Api(woven.http, made["key"], made["secret"], style="key")
    assert api.error("update users set name = name") == (403, "25006")
    assert api.value("select count(*) from users") == 60


def test_federates_by_itself(woven_api):
    status, said = woven_api.query("select count(*) as n from accounts")
    assert (status, said["rows"], said["database"]) == (200, [{"n": 100}], "primary, secondary")


def test_reload(module_proxy, door):
    api = Api(door.http, style="none")
    assert api.raw("GET", "/metrics")[0] == 401
    module_proxy.rewrite(door, http_metrics_public=1)
    door.reload()
    until(lambda: api.raw("GET", "/metrics")[0] == 200, 10, "it is public")
    module_proxy.rewrite(door, http_metrics_public=0)
    door.reload()
    until(lambda: api.raw("GET", "/metrics")[0] == 401, 10, "it is not")


def test_stops_with_statements_under_way(proxy, pg):
    port = free_port()
    door = proxy(pg, http_listen=f"127.0.0.1:{port}")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(lambda: Api(port).query("select pg_sleep(60)")) for _ in range(2)]
        until(lambda: door.pool()["cl_active"] == "2", 10, "both run")
        assert door.stop() is None
        for one in asked:
            lost = one.exception(10)
            assert isinstance(lost, (ConnectionError, http.client.HTTPException)) or one.result()[0] == 503


def test_slow_reader(api):
    """Who reads slowly gets all of it, and holds up nobody."""
    body = json.dumps({"query": "select repeat('x', 1000) as x from generate_series(1, 200)"}).encode()
    head = "".join(f"{k}: {v}\r\n" for k, v in api.headers().items())
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", api.port))
        s.sendall(f"POST /api/database/query HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}"
                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        got = b""
        for _ in range(5):
            assert api.value("select 1") == 1
            got += s.recv(1000)
        while data := s.recv(65536):
            got += data
    assert len(json.loads(got.split(b"\r\n\r\n", 1)[1])["rows"]) == 200


def test_database_must_be_clear(woven):
    status, said = Api(woven.http).query("select 1")
    assert (status, said["error"]["code"]) == (400, "3D000") and "X-Database" in said["error"]["hint"]
    status, said = Api(woven.http).post("/api/database/query?database=bank", {"query": "select current_database()"})
    assert status == 200 and said["rows"][0]["current_database"] == "bank_p"
    status, said = Api(woven.http, database="nowhere").query("select 1")
    assert status == 400 and said["error"]["code"] == "3D000"
    assert Api(woven.http, database="x" * 1000).query("select 1")[0] == 400


def test_ipv6(woven):
    c = http.client.HTTPConnection("::1", woven.http, timeout=20)
    c.request("GET", "/health/live")
    assert c.getresponse().status == 200
    c.close()


# ---- health, information ----

def test_health(api):
    status, said = api.get("/health")
    assert status == 200 and said["status"] in ("healthy", "degraded")
    assert set(said["databases"]) == {"shop"} and said["workers"] >= 1
    one = said["databases"]["shop"]
    assert {"status", "lastChecked", "connectionCount", "responseTime"} <= set(one)
    status, routed = api.get("/api/database/health")
    assert status == 200 and routed["database"] == "shop"
    assert api.get("/database/shop/health")[1]["database"] == "shop"
    assert api.get("/database/health")[1]["shop"]["database"] == "shop"
    assert api.get("/database/nowhere/health")[0] == 404
    assert api.get("/api/health/databases") == (200, {"shop": True})
    assert api.get("/database/configured") == (200, {"databases": ["shop"]})


def test_connections(api):
    api.value("select 1")
    status, said = api.get("/api/health/connections")
    assert status == 200 and said["shop"]["totalConnections"] >= 1
    assert set(said["shop"]) == {"totalConnections", "idleConnections", "waitingConnections"}


def test_info(api):
    status, said = api.get("/api/database/info")
    assert status == 200
    assert said["currentDatabase"]["id"] == "shop" and said["currentDatabase"]["health"]["status"]
    assert [d["id"] for d in said["databases"]] == ["shop"]


def test_schema(api):
    api.query("drop table if exists schema_t")
    api.query("create table schema_t (id int primary key, name text default 'x' not null, n numeric)")
    status, said = api.get("/api/database/schema")
    assert status == 200 and said["database"] == "shop"
    table = [t for t in said["tables"] if t["name"] == "schema_t"][0]
    assert table["schema"] == "public" and table["type"] == "table"
    assert [(c["name"], c["type"], c["nullable"]) for c in table["columns"]] == [
        ("id", "integer", False), ("name", "text", False), ("n", "numeric", True)]
    assert table["columns"][1]["default"] == "'x'::text"


def test_stats(api):
    status, said = api.get("/database/stats")
    assert status == 200 and said["shop"]["status"] == "available"
    assert said["shop"]["table_count"] >= 0 and re.match(r"\d+ \w?B", said["shop"]["database_size"])
    assert api.get("/database/shop/stats")[1]["database"] == "shop"


def test_backup(api, pg):
    status, said = api.get("/database/backup/info")
    assert status == 200
    assert said["shop"] == {
        "host": "127.0.0.1", "port": pg.port, "database": "shop", "username": "alice",
        "command": f"pg_dump --host=127.0.0.1 --port={pg.port} --username=alice --format=custom "
                   "--file=shop.dump --dbname=shop"}


def test_execute(api):
    status, said = api.post("/database/shop/execute", {"query": "select $1::int as n", "params": [7]})
    assert (status, said["rows"], said["database"]) == (200, [{"n": 7}], "shop")
    assert api.post("/database/nowhere/execute", {"query": "select 1"})[0] == 404


# ---- metrics, page ----

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)+)\})? (\S+)$')


def metrics(api):
    """{name: {labels: value}}, and that the text is as Prometheus wants it."""
    status, headers, data = api.raw("GET", "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    out, kinds, current = {}, {}, None
    assert data.endswith(b"\n")
    for line in data.decode().splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            assert current not in kinds
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == current and kind in ("counter", "gauge", "histogram")
            kinds[name] = kind
        else:
            m = SAMPLE.match(line)
            assert m, line
            name, labels, value = m.groups()
            family = re.sub(r"_(bucket|sum|count)$", "", name) if kinds[current] == "histogram" else name
            assert family == current, line
            assert labels not in out.setdefault(name, {}), line
            out[name][labels] = float(value)
    return out


def test_metrics(api):
    before = metrics(api)
    for _ in range(20):
        api.value("select 1")
    api.value("select pg_sleep(0.03)")
    after = metrics(api)
    count = {w: m["database_query_duration_seconds_count"]['database="shop"']
             for w, m in (("before", before), ("after", after))}
    assert count["after"] - count["before"] == 21
    buckets = {k: v for k, v in after["database_query_duration_seconds_bucket"].items() if 'database="shop"' in k}
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets['database="shop",le="+Inf"'] == count["after"]

    def grown(le):
        key = f'database="shop",le="{le}"'
        return buckets[key] - before["database_query_duration_seconds_bucket"][key]
    assert grown("0.025") <= 20 and grown("10") == 21
    assert after["database_query_duration_seconds_sum"]['database="shop"'] > 0.03
    assert after["database_connection_pool_size"]['database="shop"'] >= 1
    assert after["pgweave_database_up"]['database="shop"'] == 1
    assert sum(v for k, v in after["pgweave_query_count_total"].items() if 'database="shop"' in k) == count["after"]
    assert after["pgweave_query_time_seconds_total"]['database="shop",user="alice"'] > 0.03
    assert after["pgweave_http_requests_total"][None] > before["pgweave_http_requests_total"][None]
    assert not any("query_le" in name for name in after)


def test_metrics_public(door, woven):
    assert Api(door.http, style="none").raw("GET", "/metrics")[0] == 401
    assert metrics(Api(woven.http, style="none"))["pgweave_database_up"]


def test_page(api):
    status, headers, data = api.raw("GET", "/")
    text = data.decode()
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert "shop" in text and "<script" not in text and "http://" not in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]


# ---- keys, virtual databases ----

@pytest.mark.parametrize("n,database,name", [(1, "bank_s", "secondary"), (2, "bank_p", "primary"),
                                             (3, "bank_p", "primary"), (4, "bank_p", "primary"),
                                             (5, "bank_a", "analytics")])
@pytest.mark.parametrize("style", ["key", "basic"])
def test_keys_land(woven, n, database, name, style):
    status, said = of_key(woven, n, style).query("select current_database() as d")
    assert status == 200, said
    assert said["rows"] == [{"d": database}] and said["database"] == name
    status, said = of_key(woven, n).get("/api/database/info")
    assert status == 200 and said["currentDatabase"]["id"] == name


def test_routed_by_table(woven_api):
    status, said = woven_api.query("insert into analytics_events (user_id, kind) values ($1, 'http')", [1])
    assert (status, said["database"], said["rowCount"]) == (200, "analytics", 1)
    status, said = woven_api.query("select balance from accounts where user_id = $1", [41])
    assert (status, said["database"], said["rows"]) == (200, "secondary", [{"balance": "141.00"}])
    status, said = woven_api.query("select balance from accounts where user_id = :u", {"u": 42})
    assert (status, said["database"], said["rows"]) == (200, "primary", [{"balance": "142.00"}])


def test_transaction_routed(woven_api):
    status, said = woven_api.post("/api/database/transaction", {"queries": [
        {"query": "update accounts set balance = balance + 0 where user_id = 41"}]})
    assert (status, said["results"][0]["rowCount"]) == (200, 1)
    assert said["database"] == "secondary"


def test_key_of_another(woven):
    k = of_key(woven, 5)
    k.database = "bank"
    assert k.query("select 1")[0] == 403
    assert k.get("/api/database/info")[0] == 403
    k = of_key(woven, 4)
    k.database = "bank.secondary"
    assert k.query("select 1")[0] in (401, 403)
    assert of_key(woven, 4).get("/database/secondary/health")[0] == 403
    assert of_key(woven, 4).get("/database/analytics/health")[0] == 200
    assert set(of_key(woven, 4).get("/database/health")[1]) == {"primary", "analytics"}
    assert of_key(woven, 4).query("/* pgweave: database=secondary */ select 1")[0] == 403
    k = of_key(woven, 4)
    k.password = "0" * 48
    assert k.query("select 1")[0] == 401


def test_member_by_name(woven, woven_api):
    status, said = woven_api.post("/database/analytics/execute", {"query": "select current_database() as d"})
    assert (status, said["rows"], said["database"]) == (200, [{"d": "bank_a"}], "analytics")
    assert Api(woven.http, database="bank.analytics").value("select current_database()") == "bank_a"
    assert Api(woven.http, database="secondary").value("select current_database()") == "bank_s"
    status, said = woven_api.get("/database/stats")
    assert status == 200 and said["primary"]["table_count"] == 2 and said["analytics"]["table_count"] >= 2
    # its fallback's numbers would not be its own
    assert said["unset"]["status"] == "not configured" and said["unset"]["error"]["code"] == "57P03"
    for api in (woven_api, of_key(woven, 5)):
        status, said = api.get("/database/unset/stats")
        assert (status, said["error"]["code"]) == (503, "57P03")


def test_models(woven_api):
    status, said = woven_api.get("/database/models")
    assert status == 200 and said["analytics"] == ["AnalyticsEvent"] and said["primary"] == ["User"]
    assert woven_api.get("/database/analytics/models")[1] == {"database": "analytics", "models": ["AnalyticsEvent"]}


def test_federated_tag(woven_api):
    status, said = woven_api.post("/api/database/federated-query", {
        "query": "select count(*) as n from users where id > $1", "params": [0],
        "databases": ["primary", "secondary"]})
    assert status == 200, said
    assert {m: r["rows"] for m, r in said["results"].items()} == {"primary": [{"n": 60}], "secondary": [{"n": 40}]}
    assert said["results"]["primary"]["fields"] == [{"name": "n", "type": "int8"}]
    assert said["results"]["primary"]["rowCount"] == 1 and said["durationMs"] > 0


def test_federated_names(woven_api):
    """Whatever the case of the letters, and however often."""
    status, said = woven_api.post("/api/database/federated-query", {
        "query": "select count(*) as n from users", "databases": ["PRIMARY", "primary", "Secondary"]})
    assert status == 200, said
    assert {m: r["rows"] for m, r in said["results"].items()} == {"primary": [{"n": 60}], "secondary": [{"n": 40}]}


def test_federated_all_and_empty(woven_api):
    status, said = woven_api.post("/api/database/federated-query",
                                  {"query": "select id from users where id <= :top order by id", "params": {"top": 3}})
    if status == 400:  # ORDER BY is not merged
        status, said = woven_api.post("/api/database/federated-query",
                                      {"query": "select id from users where id <= :top", "params": {"top": 3}})
    assert status == 200, said
    got = {m: sorted(r["id"] for r in one["rows"]) for m, one in said["results"].items()}
    assert got == {"primary": [2], "secondary": [1, 3], "analytics": []}
    assert said["results"]["analytics"]["rowCount"] == 0
    assert said["results"]["analytics"]["fields"] == [{"name": "id", "type": "int4"}]


def test_federated_merge(woven_api):
    status, said = woven_api.post("/api/database/federated-query", {
        "query": "select count(*) as n, max(id) as m from users", "databases": ["primary", "secondary"],
        "mode": "merge"})
    assert status == 200, said
    assert said["rows"] == [{"n": 100, "m": 120}] and said["rowCount"] == 1
    assert said["databases"] == ["primary", "secondary"]


@pytest.mark.parametrize("body,status,code", [
    ({"query": "select 1", "mode": "both"}, 400, "22023"), ({"query": "select 1", "databases": []}, 400, "22023"),
    ({"query": "select 1", "databases": "primary"}, 400, "22023"),
    ({"query": "select 1", "databases": ["nowhere"]}, 400, "22023"),
    ({"query": "select 1", "databases": ["all"]}, 400, "22023"),
    ({"query": "select 1", "databases": [" primary"]}, 400, "22023"),
    ({"query": "select 1", "onUnavailable": "wait"}, 400, "22023"),
    ({"query": "select 1", "databases": ["primary'; drop table users; --"]}, 400, "22023"),
    ({"query": "select * from nowhere"}, 400, "42P01"), ({"mode": "tag"}, 400, "22023")])
def test_federated_refused(woven_api, body, status, code):
    got, said = woven_api.post("/api/database/federated-query", body)
    assert (got, said["error"]["code"]) == (status, code)


def test_federated_needs_rights(woven, api):
    body = {"query": "select count(*) from users"}
    for n in (1, 3):
        status, said = of_key(woven, n).post("/api/database/federated-query", body)
        assert (status, said["error"]["code"]) == (403, "42501")
    status, said = of_key(woven, 4).post("/api/database/federated-query", body)
    assert status == 200 and set(said["results"]) == {"primary", "analytics"}
    status, said = api.post("/api/database/federated-query", body)
    assert (status, said["error"]["code"]) == (400, "0A000")


def test_jobs_need_rights(woven):
    for n in (1, 3, 4):
        status, said = of_key(woven, n).get("/api/database/replication/jobs")
        assert (status, said["error"]["code"]) == (403, "42501")
        assert of_key(woven, n).post("/api/database/replication/table", {})[0] == 403


def test_jobs(woven_api):
    job = {"sourceDatabase": "primary", "targetDatabases": ["analytics"], "tables": ["users"],
           "syncKey": "updated_at", "intervalMinutes": 15, "enabled": False, "name": "http_users"}
    status, said = woven_api.post("/api/database/replication/jobs", job)
    assert status == 201, said
    assert {k: said["job"][k] for k in job} == job
    _, said = woven_api.get("/api/database/replication/jobs")
    assert [j["name"] for j in said["jobs"]] == ["http_users"]
    status, said = woven_api.post(f"/api/database/replication/jobs/{said['jobs'][0]['id']}/run", None)
    assert status == 200, said
    assert Api(woven_api.port, database="bank.analytics").value("select count(*) from users") == 60
    status, said = woven_api.post("/api/database/replication/jobs", job)
    assert status >= 400
    assert woven_api.post("/api/database/replication/jobs/nowhere/run", None)[0] == 404
    status, said = woven_api.post("/api/database/replication/jobs", job | {"tables": ["nowhere"], "name": "other"})
    assert status == 400, said


@pytest.mark.parametrize("change,word", [
    ({"sourceDatabase": None}, "sourceDatabase"), ({"targetDatabases": []}, "targetDatabases"),
    ({"tables": "users"}, "tables"), ({"intervalMinutes": "x"}, "intervalMinutes"), ({"enabled": 1}, "enabled"),
    ({"interval": 1}, "intervalMinutes")])
def test_jobs_refused(woven_api, change, word):
    job = {"sourceDatabase": "primary", "targetDatabases": ["analytics"], "tables": ["users"], "syncKey": "updated_at"}
    status, said = woven_api.post("/api/database/replication/jobs", job | change)
    assert status == 400 and word in said["error"]["message"]


def test_replicate_table(woven_api):
    status, said = woven_api.post("/api/database/replication/table", {
        "sourceDatabase": "secondary", "targetDatabases": ["analytics"], "table": "users", "syncKey": "updated_at"})
    assert status == 200, said


def test_member_down(proxy, pg, own_pg):
    """Health sees it; federated statements fail naming it, or leave it out."""
    bank.create(pg)
    bank.create(own_pg)
    port = free_port()
    sections = bank.sections(pg).replace(
        f"[database secondary]\nhost = 127.0.0.1\nport = {pg.port}",
        f"[database secondary]\nhost = 127.0.0.1\nport = {own_pg.port}")
    proxy(pg, http_listen=f"127.0.0.1:{port}", sections=sections, health_interval="200ms", health_fall=2,
          health_timeout="1s")
    api = Api(port, database="bank")
    until(lambda: api.get("/api/health/databases")[1]["secondary"], 10, "all are up")
    own_pg.kill()
    until(lambda: not api.get("/api/health/databases")[1]["secondary"], 20, "it is seen DOWN")
    status, said = api.get("/database/secondary/health")
    assert (status, said["status"]) == (503, "down") and said["reason"]
    status, said = api.get("/health")
    assert (status, said["status"]) == (200, "degraded")
    body = {"query": "select count(*) as n from users", "databases": ["primary", "secondary"]}
    status, said = api.post("/api/database/federated-query", body)
    assert (status, said["error"]["code"]) == (503, "57P03") and "secondary" in said["error"]["message"]
    status, said = api.post("/api/database/federated-query", body | {"onUnavailable": "skip"})
    assert status == 200 and said["results"]["primary"]["rows"] == [{"n": 60}]
    assert said["results"]["secondary"]["error"]["message"] and "rows" not in said["results"]["secondary"]
    status, said = of_key_at(port, 1).query("select 1")
    assert (status, said["error"]["code"]) == (503, "57P03") and said["error"]["hint"]
    status, said = of_key_at(port, 1).get("/api/database/health")
    assert (status, said["database"], said["status"]) == (503, "secondary", "down")
    assert metrics(api)["pgweave_database_up"]['database="secondary"'] == 0
    own_pg.restart()
    until(lambda: api.get("/database/secondary/health")[0] == 200, 20, "it is back")


def of_key_at(port, n):
    k = bank.key(n)
    return Api(port, k["user"], k["password"], style="key")

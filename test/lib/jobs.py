"""Three empty databases behind a proxy, and what tests of replication jobs say to them."""
import psycopg
import pytest

DATABASES = ("alpha", "beta", "gamma")
USERS = """create table users (id int primary key, name text,
    updated_at timestamptz not null default now())"""


def fresh(pg):
    with pg.connect("postgres") as c:
        for name in DATABASES:
            c.execute(f"drop database if exists {name} with (force)")
            c.execute(f"create database {name}")


def lines(pg, **more):
    at = f"host=127.0.0.1 port={pg.port} user=postgres"
    found = {name: f"{at} dbname={name}" for name in DATABASES}
    found.update(more)
    return found


class World:
    def __init__(self, proxy, pg, tmp_path, sections="", **databases):
        self.pg = pg
        tmp_path.chmod(0o755)
        self.door = proxy(pg, lines(pg, **databases), sections=sections, state_dir=str(tmp_path))
        self.notices = []

    def sql(self, database, text, *params):
        """Directly at the server."""
        with self.pg.connect(database) as c:
            r = c.execute(text, params or None)
            return r.fetchall() if r.description else None

    def everywhere(self, text):
        for name in DATABASES:
            self.sql(name, text)

    def ask(self, text):
        """At the console; the notices of it are in self.notices."""
        with self.door.connect("pgweave", "admin") as c:
            self.notices = []
            c.add_notice_handler(lambda d: self.notices.append(d.message_primary))
            c.prepare_threshold = None
            return c.execute(text)

    def run(self, job="j"):
        self.ask(f"RUN JOB {job}")

    def create(self, tables, options="SYNC KEY updated_at", to="beta", name="j"):
        self.ask(f"CREATE JOB {name} FROM alpha TO {to} TABLES ({tables}) {options}")

    def refused(self, text):
        with pytest.raises(psycopg.Error) as e:
            self.ask(text)
        return e.value.diag

    def job(self, name="j"):
        found = [r for r in self.door.rows("JOBS") if r["name"] == name]
        return found[0] if found else None

    def runs(self, job="j"):
        return self.door.rows(f"JOB_RUNS {job}")

    def same(self, table, order="id", database="beta", columns="*"):
        query = f"select {columns} from {table} order by {order}"
        want, got = self.sql("alpha", query), self.sql(database, query)
        assert got == want
        return len(got)

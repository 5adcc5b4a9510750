"""The suites of others that scripts/conformance runs: where each comes from, how it is built and
run against the server that PG* variables name, and how its output is read.

A suite's run() gives a command; results are {name of a test: passed or not}."""
import glob
import os
import re
import subprocess

import cluster
import fetch

PG = "postgresql-15"


def _sh(script, cwd, log):
    """Runs a build step; its output is kept."""
    with open(log, "ab") as f:
        subprocess.run(["sh", "-ec", script], cwd=cwd, stdout=f, stderr=f, check=True)


# ---- readers of output ----

def _pairs(pattern, good):
    """A reader: lines that match pattern, with groups `how` and `name`."""
    pattern = re.compile(pattern, re.M)

    def read(text):
        return {m["name"].strip(): m["how"] in good for m in pattern.finditer(text)
                if "skip" not in m["how"].lower()}
    return read


def _read_prove(text):
    """prove -v: the tests of a file have numbers and, mostly, words."""
    out, at = {}, "?"
    for line in text.splitlines():
        if m := re.match(r"(\S+\.t) \.\.", line):
            at = m[1]
        elif (m := re.match(r"(not )?ok (\d+)(?: - (.*))?", line)) and "# skip" not in line:
            out[f"{at} {m[2]} {(m[3] or '').strip()}".strip()] = not m[1]
    return out


read_regress = _pairs(r"^(?:test| {4}) +(?P<name>\w[\w-]*) +\.\.\. (?P<how>ok|FAILED)", {"ok"})
read_pytest = _pairs(r"^(?P<how>PASSED|FAILED|ERROR|SKIPPED) (?P<name>\S+)", {"PASSED"})
read_go = _pairs(r"^ *--- (?P<how>PASS|FAIL|SKIP): (?P<name>\S+)", {"PASS"})
read_php = _pairs(r"^(?P<how>PASS|FAIL|SKIP) .*\[(?P<name>\S+\.phpt)\]", {"PASS"})
read_plain = _pairs(r"^(?P<how>ok|FAILED) (?P<name>.*)$", {"ok"})


# ---- the suites ----

class Suite:
    """source: Debian's source package; unpacked: its folder; needs: packages to install."""

    def __init__(self, name, source, read, run, build=None, needs=(), unpacked=None,
                 unprivileged=False, ini=""):
        self.name, self.source, self.read, self.run = name, source, read, run
        self.build, self.needs, self.unpacked = build, needs, unpacked
        self.unprivileged, self.ini = unprivileged, ini


def _build_postgres(root, log):
    if os.path.exists(f"{root}/built"):
        return
    _sh("./configure --without-readline --without-zlib; "
        "make -s -C src/backend generated-headers; "
        "for d in common port fe_utils interfaces/libpq bin/psql test/regress"
        " test/modules/libpq_pipeline; do make -s -C src/$d; done; "
        "make -s -C contrib/spi; chmod -R a+rX .; touch built", root, log)


def _regress(root, out):
    at = f"{root}/src/test/regress"
    return [f"{at}/pg_regress", f"--inputdir={at}", f"--outputdir={out}", f"--dlpath={at}",
            f"--bindir={root}/src/bin/psql", f"--host={os.environ['PGHOST']}",
            f"--port={os.environ['PGPORT']}", "--user=postgres", "--max-connections=4",
            f"--schedule={at}/parallel_schedule"], out


def _pipeline(root, out):
    at = f"{root}/src/test/modules/libpq_pipeline"
    script = f"""for t in $({at}/libpq_pipeline tests); do
        psql -qc 'drop table if exists pq_pipeline_demo, pq_pipeline_tst' 2>&1
        how=ok; timeout 60 {at}/libpq_pipeline -r 700 -t $t.trace $t '' || how=FAILED
        echo "$how $t"
        [ ! -f {at}/traces/$t.trace ] || {{
            cmp -s {at}/traces/$t.trace $t.trace && how=ok || how=FAILED
            echo "$how $t trace"; }}
    done"""
    return ["sh", "-c", script], out


def _pytest(folder, *args):
    def run(root, out):
        os.makedirs(out, exist_ok=True)
        # without what else stands there: the module that is installed is tested
        subprocess.run(["cp", "-r", f"{root}/{folder}", out], check=True)
        return ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short",
                "-rA", "--continue-on-collection-errors", folder, *args], out
    return run


def _go(package, *parts):
    def run(_root, out):
        os.environ.update(GO111MODULE="off", GOPATH="/usr/share/gocode",
                          GOCACHE=f"{fetch.cache()}/conformance/go")
        return (["go", "test", "-p", "1", "-count=1", "-timeout", "150s", "-v", *parts],
                f"/usr/share/gocode/src/{package}")
    return run


def _dbd(root, _out):
    host, port = os.environ["PGHOST"], os.environ["PGPORT"]
    os.environ.update(DBI_DSN=f"dbi:Pg:dbname=conformance;host={host};port={port}",
                      DBI_USER="postgres", DBI_PASS="",
                      PERL_HASH_SEED="0", PERL_PERTURB_KEYS="0")  # the same order in each run
    return ["prove", "-v", "t"], root


def _php(root, _out):
    host, port = os.environ["PGHOST"], os.environ["PGPORT"]
    os.environ.update(
        TEST_PHP_EXECUTABLE="/usr/bin/php", NO_INTERACTION="1",
        PGSQL_TEST_CONNSTR=f"host={host} port={port} dbname=conformance user=postgres",
        PDO_PGSQL_TEST_DSN=f"pgsql:host={host} port={port} dbname=conformance user=postgres")
    return ["php", "run-tests.php", "-q", "--no-color", "ext/pgsql/tests",
            "ext/pdo_pgsql/tests"], root


SUITES = [
    # each client has a fresh server connection: what a process keeps for its life is tested too
    Suite("postgres", PG, read_regress, _regress, _build_postgres, unprivileged=True,
          ini="server_lifetime = 0"),
    Suite("libpq-pipeline", PG, read_plain, _pipeline, _build_postgres),
    Suite("psycopg2", "psycopg2", read_pytest, _pytest("tests"), needs=["python3-psycopg2"]),
    Suite("asyncpg", "asyncpg", read_pytest,
          _pytest("tests", "--deselect", "tests/test__sourcecode.py"), needs=["python3-asyncpg"]),
    Suite("pgx", None, read_go, _go("github.com/jackc/pgx/v4", ".", "./pgxpool"),
          needs=["golang-go", "golang-github-jackc-pgx-v4-dev"]),
    Suite("lib-pq", None, read_go, _go("github.com/lib/pq", "."),
          needs=["golang-go", "golang-github-lib-pq-dev"]),
    Suite("dbd-pg", "libdbd-pg-perl", _read_prove, _dbd, needs=["libdbd-pg-perl"]),
    Suite("php", "php8.2", read_php, _php, needs=["php-cli", "php-pgsql"]),
]


def environment(port):
    """What the suites find their server by."""
    os.environ.update(
        PGHOST="127.0.0.1", PGPORT=str(port), PGUSER="postgres", PGDATABASE="conformance",
        PGSSLMODE="disable", PSYCOPG2_TESTDB="conformance", PSYCOPG2_TESTDB_USER="postgres",
        PSYCOPG2_TEST_REPL_DSN="", LC_ALL="C.UTF-8",
        PGX_TEST_DATABASE=f"host=127.0.0.1 port={port} user=postgres dbname=conformance")


def options(suite, out):
    """Keyword arguments of the process that runs it."""
    os.makedirs(out, exist_ok=True)
    if not suite.unprivileged:
        return {}
    cluster._give(out)
    return cluster._owner()


def find_root(suite, sources):
    """The folder of its unpacked source; None: it is not there."""
    if suite.source is None:
        return "/"
    tops = glob.glob(f"{sources}/{suite.source}/*/")
    return tops[0].rstrip("/") if tops else None

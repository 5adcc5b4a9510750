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
                if "skip" not in m["how"].lower() and m["how"] != "S"}
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


def _read_contrib(text):
    return {f"{part.split(None, 1)[0]} {name}": ok
            for part in re.split(r"^in ", text, flags=re.M)[1:]
            for name, ok in read_regress(part).items()}


read_regress = _pairs(r"^(?:test| {4}) +(?P<name>\w[\w-]*) +\.\.\. (?P<how>ok|FAILED)", {"ok"})
read_pytest = _pairs(r"^(?P<how>PASSED|FAILED|ERROR|SKIPPED) (?P<name>\S+)", {"PASSED"})
read_ecpg = _pairs(r"^(?:test| {4}) +(?P<name>\w+/[\w-]+) +\.\.\. (?P<how>ok|FAILED)", {"ok"})
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
    _sh("[ -f config.status ] || ./configure --without-readline --without-zlib; "
        "make -s -C src/backend generated-headers; "
        "for d in common port fe_utils interfaces/libpq bin/psql test/regress"
        " test/modules/libpq_pipeline interfaces/ecpg interfaces/ecpg/test; do"
        " make -s -C src/$d; done; "
        "make -s -C contrib/spi; chmod -R a+rX .", root, log)


def _regress_options(root, out):
    return [f"--outputdir={out}", f"--dlpath={root}/src/test/regress",
            f"--bindir={root}/src/bin/psql", f"--host={os.environ['PGHOST']}",
            f"--port={os.environ['PGPORT']}", "--user=postgres", "--max-connections=4"]


def _regress(root, out):
    at = f"{root}/src/test/regress"
    return [f"{at}/pg_regress", *_regress_options(root, out), f"--inputdir={at}",
            f"--schedule={at}/parallel_schedule"], out


def _ecpg(root, out):
    """Its driver looks for what it compares, and writes, where it stands."""
    at = f"{out}/test"
    subprocess.run(["cp", "-r", f"{root}/src/interfaces/ecpg/test", out], check=True)
    subprocess.run(["chmod", "-R", "a+rwX", at], check=True)
    built = [f"{root}/src/interfaces/{d}" for d in
             ("libpq", "ecpg/ecpglib", "ecpg/pgtypeslib", "ecpg/compatlib")]
    return ["env", "LD_LIBRARY_PATH=" + ":".join(built), "./pg_regress",
            *_regress_options(root, at), "--schedule=ecpg_schedule",
            "--dbname=ecpg1_regression,ecpg2_regression",
            "--create-role=regress_ecpg_user1,regress_ecpg_user2"], at


def _contrib(root, out):
    """Those of contrib/ that need no setting of the server's, and PL/pgSQL's, each in a database
    that is made anew; a line with the folder stands above its tests."""
    options = " ".join(_regress_options(root, "$to"))
    return ["bash", "-c", f"""cd {root}; for d in contrib/*/ src/pl/plpgsql/src/; do
        names=$(make -s -C $d --eval 'names:;@echo $(REGRESS)' names 2>/dev/null)
        case "$d:$names" in *:|*perl/*|*python/*|*/pg_stat_statements/*|*/basic_archive/*)
            continue ;; esac
        to={out}/$d; mkdir -p $to; echo "in ${{d%/}}"
        src/bin/psql/psql -d postgres -qc 'drop database if exists contrib_regression with (force)'
        src/test/regress/pg_regress {options} --inputdir=$d --dbname=contrib_regression $names
    done"""], out


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


DJANGO = """def database(name):
    return {"ENGINE": "django.db.backends.postgresql", "NAME": "conformance",
            "USER": "postgres", "HOST": "127.0.0.1", "PORT": "%s", "TEST": {"NAME": name}}
DATABASES = {"default": database("django_1"), "other": database("django_2")}
SECRET_KEY = "conformance"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
"""
# of its folders those that are about databases
DJANGO_TESTS = """aggregation aggregation_regress annotations async backends basic bulk_create
    constraints custom_pk datatypes datetimes db_functions db_typecasts defer delete
    delete_regress distinct_on_fields expressions expressions_case expressions_window fixtures
    force_insert_update get_or_create indexes inspectdb introspection lookup many_to_many
    many_to_one migrations migrate_signals model_fields model_inheritance multiple_database
    null_queries or_lookups ordering pagination postgres_tests prefetch_related queries raw_query
    reserved_names schema select_for_update select_related serializers sessions_tests
    test_runner test_utils timezones transaction_hooks transactions update validation""".split()


def _django(root, out):
    with open(f"{out}/conformance_settings.py", "w") as f:
        f.write(DJANGO % os.environ["PGPORT"])
    return ["env", f"PYTHONPATH={out}", "PYTHONHASHSEED=0", "/usr/bin/python3", "runtests.py",
            "--settings=conformance_settings", "--parallel=1", "-v2", "--noinput",
            *DJANGO_TESTS], f"{root}/tests"


read_django = _pairs(r"^(?P<name>test\w+ \([\w.]+\))(?:\n.*)? \.\.\. "
                     r"(?P<how>ok|FAIL|ERROR|skipped|expected failure)", {"ok", "expected failure"})

# What a dialect of SQLAlchemy brings to run the suite that the package has for dialects.
SQLALCHEMY = {
    "conftest.py": "from sqlalchemy.testing.plugin.pytestplugin import *\n",
    "test_suite.py": "from sqlalchemy.testing.suite import *\n",
    "setup.cfg": "[sqla_testing]\n"
                 "requirement_cls = sqlalchemy.testing.requirements:SuiteRequirements\n"
                 "profile_file = profiles\n[db]\ndefault = postgresql+psycopg2:///\n",
}


def _sqlalchemy(_root, out):
    for name, text in SQLALCHEMY.items():
        with open(f"{out}/{name}", "w") as f:
            f.write(text)
    url = f"postgresql+psycopg2://postgres@127.0.0.1:{os.environ['PGPORT']}/conformance"
    return ["sh", "-c", "psql -qc 'create schema test_schema'; "
            f"exec /usr/bin/python3 -m pytest -q -p no:cacheprovider --tb=short -rA --dburi {url}"
            ], out


def _activerecord(root, out):
    script = f"""cd {root}/activerecord
        for d in activerecord_unittest activerecord_unittest2; do createdb $d; done
        exec ruby -W0 -Itest -Ilib -I../activesupport/lib -I../activemodel/lib -e '
            ARGV.clear.push("-v", "--seed", "1")
            Dir["test/cases/**/*_test.rb"].sort.each do |f|
                next if f =~ %r(/adapters/(?!postgresql))
                begin require "./" + f; rescue LoadError => e; puts e; end
            end'"""
    return ["env", "ARCONN=postgresql", "sh", "-ec", script], out


def _build_libpqxx(root, log):
    _sh("[ -f config.status ] || ./configure --disable-documentation --disable-shared; "
        "make -s CXXFLAGS=-O0; make -s -C test check TESTS= CXXFLAGS=-O0", root, log)


def _libpqxx(root, out):
    return ["sh", "-c", f"{root}/test/runner 2>&1; {root}/test/unit/runner 2>&1"], out


def _read_libpqxx(text):
    failed = set(re.findall(r"^FAILED: (.*)", text, re.M))
    return {name: name not in failed for name in re.findall(r"^Running: (.*)", text, re.M)}


read_minitest = _pairs(r"^(?P<name>[\w:]+#\S+) = [\d.]+ s = (?P<how>[.FES])", {"."})

SUITES = [
    # each client has a fresh server connection: what a process keeps for its life is tested too
    Suite("postgres", PG, read_regress, _regress, _build_postgres, unprivileged=True,
          ini="server_lifetime = 0"),
    Suite("contrib", PG, _read_contrib, _contrib, _build_postgres, unprivileged=True),
    Suite("ecpg", PG, read_ecpg, _ecpg, _build_postgres, unprivileged=True),
    Suite("libpq-pipeline", PG, read_plain, _pipeline, _build_postgres),
    Suite("psycopg2", "psycopg2", read_pytest, _pytest("tests"), needs=["python3-psycopg2"]),
    Suite("asyncpg", "asyncpg", read_pytest,
          _pytest("tests", "--deselect", "tests/test__sourcecode.py"), needs=["python3-asyncpg"]),
    Suite("pgx", None, read_go, _go("github.com/jackc/pgx/v4", ".", "./pgxpool"),
          needs=["golang-go", "golang-github-jackc-pgx-v4-dev"]),
    Suite("pgx-stdlib", None, read_go, _go("github.com/jackc/pgx/v4/stdlib", "."),
          needs=["golang-go", "golang-github-jackc-pgx-v4-dev",
                 "golang-github-masterminds-semver-dev"]),
    Suite("pgconn", None, read_go, _go("github.com/jackc/pgconn", "./stmtcache"),
          needs=["golang-go", "golang-github-jackc-pgconn-dev"]),
    Suite("lib-pq", None, read_go, _go("github.com/lib/pq", "."),
          needs=["golang-go", "golang-github-lib-pq-dev"]),
    Suite("sqlalchemy", None, read_pytest, _sqlalchemy,
          needs=["python3-sqlalchemy", "python3-psycopg2", "python3-pytest"]),
    Suite("django", "python-django", read_django, _django,
          needs=["python3-django", "python3-psycopg2", "python3-jinja2", "python3-yaml"]),
    Suite("activerecord", "rails", read_minitest, _activerecord,
          needs=["ruby", "ruby-pg", "ruby-activerecord", "ruby-minitest", "ruby-mocha",
                 "ruby-bcrypt"]),
    Suite("libpqxx", "libpqxx", _read_libpqxx, _libpqxx, _build_libpqxx,
          needs=["g++", "libpq-dev"]),
    Suite("dbd-pg", "libdbd-pg-perl", _read_prove, _dbd, needs=["libdbd-pg-perl"]),
    Suite("php", "php8.2", read_php, _php, needs=["php-cli", "php-pgsql"]),
]


def environment(port):
    """What the suites find their server by."""
    os.environ.update(
        PGHOST="127.0.0.1", PGPORT=str(port), PGUSER="postgres", PGDATABASE="conformance",
        PGSSLMODE="disable", PSYCOPG2_TESTDB="conformance", PSYCOPG2_TESTDB_USER="postgres",
        PSYCOPG2_TEST_REPL_DSN="", LC_ALL="C.UTF-8",
        **{name: f"host=127.0.0.1 port={port} user=postgres dbname=conformance" for name in (
            "PGX_TEST_DATABASE", "PGX_TEST_CONN_STRING", "PGX_TEST_TCP_CONN_STRING")})


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

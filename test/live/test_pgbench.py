"""pgbench -S, 64 clients on a pool of 16, in each protocol, without an error; its transactions of
several statements with as many clients as links (pgbench prepares statements one after the
other and blocks meanwhile, which on a smaller pool is a deadlock of its own making).
PGBENCH_SECONDS: how long each (3)."""
import os
import re
import subprocess

import pytest

import fetch
from proxy import is_standin

SECONDS = os.environ.get("PGBENCH_SECONDS", "3")


@pytest.fixture(scope="module")
def door(module_proxy, pg):
    door = module_proxy(pg, pool_mode="transaction", default_pool_size=16, max_client_conn=200)
    subprocess.run([os.path.join(fetch.PG15, "pgbench"), "-i", "-q", "-s", "2", "-h", pg.socket_dir,
                    "-p", str(pg.port), "-U", "alice", "shop"], check=True, timeout=120,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return door


@pytest.mark.parametrize("args", [["-S"], []], ids=["select", "tpcb"])
@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench(door, protocol, args):
    if protocol == "prepared" and is_standin():
        pytest.skip("what PgBouncer does not do")
    done = subprocess.run(
        [os.path.join(fetch.PG15, "pgbench"), *args, "-n", "-M", protocol, "-c", "64" if args else "16", "-j", "2",
         "-T", SECONDS if args else "2", "-h", "127.0.0.1", "-p", str(door.port), "-U", "alice",
         "shop"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60 + 2 * int(SECONDS),
        env=dict(os.environ, PGPASSWORD="pw-alice"))
    assert done.returncode == 0, done.stdout[-2000:]
    assert "error" not in done.stdout.lower() and "abort" not in done.stdout, done.stdout[-2000:]
    assert int(re.search(r"number of failed transactions: (\d+)", done.stdout).group(1)) == 0
    assert int(re.search(r"actually processed: (\d+)", done.stdout).group(1)) > 5

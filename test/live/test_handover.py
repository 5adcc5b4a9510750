"""Hand-over and wake-ups: many workers, a pool far smaller than their number, clients and server
connections that die at random. Links must go from worker to worker (else most of them would
wait in vain), nobody may wait while a link is idle, and the proxy's own count of late wake-ups
must be 0. Meant for a ThreadSanitizer build too.

HANDOVER_SECONDS (10), HANDOVER_SEED."""
import os
import random
import re
import threading
import time

from raw import Raw

SECONDS = float(os.environ.get("HANDOVER_SECONDS", "10"))
SEED = int(os.environ.get("HANDOVER_SEED", "0")) or random.randrange(1 << 30)
CLIENTS, WORKERS, POOL = 24, 8, 3


class Crowd:
    def __init__(self, door):
        self.door, self.until, self.lock = door, time.monotonic() + SECONDS, threading.Lock()
        self.done, self.lost, self.slowest, self.wrong = 0, 0, 0.0, []

    def client(self, number):
        rnd = random.Random(SEED * 1000 + number)
        while time.monotonic() < self.until and not self.wrong:
            try:
                with Raw(self.door.port) as raw:
                    if raw.login("alice", "shop") is not None:
                        continue
                    self.talk(raw, number, rnd)
            except (OSError, EOFError):
                with self.lock:
                    self.lost += 1

    def talk(self, raw, number, rnd):
        """Some statements; then it goes, now and then in the middle of a transaction."""
        for serial in range(rnd.randrange(1, 60)):
            token, begun = f"{number}-{serial}-{rnd.random()}", time.monotonic()
            rows, error = raw.query(f"select '{token}'")
            took = time.monotonic() - begun
            with self.lock:
                self.done += 1
                self.slowest = max(self.slowest, took)
                if error is None and rows != [[token]]:
                    self.wrong.append((token, rows))
            if rnd.random() < 0.3:
                time.sleep(rnd.random() * 0.004)
        if rnd.random() < 0.3:
            raw.query("begin")

    def killer(self, pg):
        """Ends a server connection every now and then."""
        with pg.connect() as d:
            while time.monotonic() < self.until:
                time.sleep(0.15)
                d.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'alice' "
                          "and backend_type = 'client backend' order by random() limit 1")


def test_links_go_where_they_are_needed(proxy, pg, only_pgweave):
    print("seed", SEED)
    door = proxy(pg, pool_mode="transaction", default_pool_size=POOL, workers=WORKERS)
    crowd = Crowd(door)
    threads = [threading.Thread(target=crowd.client, args=(i,)) for i in range(CLIENTS)]
    threads.append(threading.Thread(target=crowd.killer, args=(pg,)))
    for t in threads:
        t.start()
    for t in threads:
        t.join(SECONDS + 30)
    assert not any(t.is_alive() for t in threads), "somebody waits for ever"
    assert crowd.wrong == []
    assert crowd.done > 200
    # what a lost wake-up would cost at least is the time until query_wait_timeout
    assert crowd.slowest < 5, crowd.slowest
    door.stop()
    moved, late = map(int, re.search(
        r"handed over between workers: (\d+), late wake-ups: (\d+)", door.log()).groups())
    print("statements", crowd.done, "handed over", moved, "lost", crowd.lost, "slowest", crowd.slowest)
    assert moved > 100
    assert late == 0

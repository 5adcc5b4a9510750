"""Rows of the bank with a number that nobody else writes, so that a test can tell whether what it
wrote is there: one statement for each of two members, and the count of both."""
import itertools

_numbers = itertools.count(100001)

# Of one member each, both with the same answer.
USERS = "select count(*) from users where id < 0"
EVENTS = "select count(*) from analytics_events where id < 0"
ANSWER = "T D(0) C(SELECT 1) "  # to a simple query


def number():
    return next(_numbers)


def insert(n):
    return f"insert into users (id, name) values ({n}, 'x')"


def event(n):
    return f"insert into analytics_events (user_id, kind) values ({n}, 'x')"


def written(pg, n):
    """How many rows of users (primary) and of analytics_events have this number."""
    with pg.connect("bank_p") as p, pg.connect("bank_a") as a:
        return (p.execute("select count(*) from users where id = %s", [n]).fetchone()[0],
                a.execute("select count(*) from analytics_events where user_id = %s",
                          [n]).fetchone()[0])

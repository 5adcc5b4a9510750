"""Waiting for something that can be observed: a condition with a deadline, never a bare sleep."""
import time


class Late(AssertionError):
    """What was awaited did not come true in time."""


def until(condition, seconds=5.0, what=None, step=0.01):
    """Calls condition() until it is true and answers what it answered; Late after `seconds`.
    An exception inside the condition means "not yet" and is shown when time is up."""
    deadline = time.monotonic() + seconds
    error = got = None
    while True:
        try:
            got = condition()
            error = None
            if got:
                return got
        except Exception as e:  # noqa: BLE001: kept and shown
            error = e
        if time.monotonic() >= deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise Late(f"{name}: not within {seconds} s (last: {error if error else got!r})")
        time.sleep(step)
        step = min(step * 1.5, 0.2)

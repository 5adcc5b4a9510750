"""Collects the .pgt scripts of test/wire and holds the fixtures of test/live."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))

import wire  # noqa: E402
from proxy import is_standin  # noqa: E402


class WireFailure(Exception):
    pass


class Pgt(pytest.File):
    def collect(self):
        for variables in wire.variants(self.path):
            name = self.path.stem
            if variables:
                name += "[" + "-".join(variables.values()) + "]"
            yield PgtItem.from_parent(self, name=name, variables=variables)


class PgtItem(pytest.Item):
    def __init__(self, *, variables, **rest):
        super().__init__(**rest)
        self.variables = variables

    def runtest(self):
        if is_standin() and any(i[1] == "needs pgweave" for i in wire.parse(self.path)):
            pytest.skip("what PgBouncer does not do")
        script = wire.Script(str(self.path), self.variables)
        wrong = script.run()
        if wrong:
            raise WireFailure(wrong)

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, WireFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, 0, self.name


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".pgt":
        return Pgt.from_parent(parent, path=file_path)
    return None


def pytest_report_header(config):
    from proxy import is_sanitized, program
    try:
        return f"program: {program()}{' (sanitized)' if is_sanitized() else ''}"
    except RuntimeError as e:
        return f"program: {e}"

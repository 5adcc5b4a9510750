"""report: from numbers per round to medians, ratios, a table and a JSON file."""
import json
import statistics

HIGHER_IS_BETTER = ("tps", "mb", "logins")
RATIO_TO = ("pgbouncer", "haproxy", "direct")


class Results:
    """numbers[workload][measure][system] is a list, one number a round, None if it failed."""

    def __init__(self):
        self.numbers = {}
        self.notes = []
        self.details = []
        self.dead = set()    # (system, variant) that did not start

    def add(self, workload, system, result):
        """result is None for a system that failed in this round."""
        for measure in workload.measures:
            value = result.get(measure) if result else None
            self.numbers.setdefault(workload.name, {}).setdefault(measure, {}) \
                .setdefault(system, []).append(value)
        if result and "detail" in result:
            self.detail("%s, %s: %s" % (workload.name, system, result["detail"]))

    def detail(self, text):
        if text not in self.details:
            self.details.append(text)

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def values(self, workload, measure, system):
        found = self.numbers.get(workload, {}).get(measure, {}).get(system, [])
        return [v for v in found if v is not None]

    def ratio(self, workload, measure, system, other):
        """The median of the ratios of one round: what disturbs a round disturbs both."""
        mine = self.numbers.get(workload, {}).get(measure, {}).get(system, [])
        theirs = self.numbers.get(workload, {}).get(measure, {}).get(other, [])
        pairs = [a / b for a, b in zip(mine, theirs) if a is not None and b]
        return statistics.median(pairs) if pairs else None

    def goal(self, workload, measure):
        """The project's goal for pgweave, and whether it is reached; None without one."""
        if measure not in workload.goals:
            return None
        other, limit = workload.goals[measure]
        up = measure in HIGHER_IS_BETTER
        text = "%s %.2f" % (">=" if up else "<=", limit)
        if other:
            text += " x " + other
            value = self.ratio(workload.name, measure, "pgweave", other)
        else:
            mine = self.values(workload.name, measure, "pgweave")
            value = statistics.median(mine) if mine else None
        if value is None:
            return {"goal": text, "reached": None}
        return {"goal": text, "reached": value >= limit if up else value <= limit}


def number(v):
    """Three digits that matter."""
    if v >= 100:
        return "%.0f" % v
    return "%.1f" % v if v >= 10 else "%.2f" % v


def cell(values):
    if not values:
        return "-"
    text = number(statistics.median(values))
    if len(values) > 1:
        text += " (%s-%s)" % (number(min(values)), number(max(values)))
    return text


def table(results, workloads, systems):
    """A row per workload and measure: medians (min-max), pgweave as a multiple of others, goal."""
    others = [o for o in RATIO_TO if o in systems] if "pgweave" in systems else []
    head = ["workload", "unit"] + systems + ["x " + o for o in others]
    head += ["goal"] if others else []
    rows = [head]
    for w in workloads:
        for m in w.measures:
            if m not in results.numbers.get(w.name, {}):
                continue
            ratios = [results.ratio(w.name, m, "pgweave", o) for o in others]
            goal = results.goal(w, m) if others else None
            verdict = ""
            if goal:
                verdict = goal["goal"] + {True: " yes", False: " NO", None: ""}[goal["reached"]]
            # "idle" measured with 1,000 and 10,000 clients is two rows
            name = w.name + ("-" + m.split("-")[1] if "-" in m else "")
            rows.append([name, w.unit(m)] + [cell(results.values(w.name, m, s)) for s in systems]
                        + ["%.2f" % r if r is not None else "-" for r in ratios]
                        + ([verdict] if others else []))
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    lines = []
    for r in rows:
        left = [r[i].ljust(widths[i]) if i < 2 or head[i] == "goal" else r[i].rjust(widths[i])
                for i in range(len(head))]
        lines.append("  ".join(left).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def as_json(results, workloads, systems, about):
    out = dict(about, notes=results.notes, details=results.details, workloads=[])
    for w in workloads:
        if w.name not in results.numbers:
            continue
        entry = {"name": w.name, "title": w.title, "measures": []}
        for m in w.measures:
            measure = {"measure": m, "unit": w.unit(m), "goal": results.goal(w, m),
                       "systems": {}}
            for s in systems:
                values = results.values(w.name, m, s)
                if values:
                    measure["systems"][s] = {
                        "rounds": results.numbers[w.name][m][s],
                        "median": statistics.median(values),
                        "min": min(values), "max": max(values),
                        "ratio_to": {o: results.ratio(w.name, m, s, o) for o in RATIO_TO
                                     if o != s}}
            entry["measures"].append(measure)
        out["workloads"].append(entry)
    return json.dumps(out, indent=1) + "\n"

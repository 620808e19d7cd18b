"""What all benchmarks share: a table of what was measured, and one line of JSON for each run in benchmarks/history.jsonl.

    python benchmarks/history.py            the runs that were kept: when, what, on which commit and machine, how busy
    python benchmarks/history.py all        ... and the last two runs of one benchmark beside one another

A line holds date, load at the start, commit, versions, machine, and of each figure its unit, median, least, greatest and all
values, one a round. TIRNAS_HISTORY names another file, or is empty so that nothing is kept.
"""
import datetime
import json
import os
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from tirnas.core import UserError
from tirnas.provenance import git_state, machine_state, versions

ROOT = Path(__file__).parent.parent
HISTORY = ROOT / "benchmarks" / "history.jsonl"


class Measured(NamedTuple):
    "A figure: its name, its unit, and a value a round."
    name: str
    unit: str
    values: list[float]

    def record(self) -> dict:
        "As plain values, with median and spread."
        return {**self._asdict(), "median": statistics.median(self.values), "low": min(self.values), "high": max(self.values)}


def digits(value: float) -> str:
    "A number with four significant digits and no exponent."
    return f"{value:.4g}" if 0.01 <= abs(value) < 10_000 else f"{value:.0f}" if value >= 1 else f"{value:.5f}"


def table(rows: list[Measured]) -> list[str]:
    "Figures as lines: median, spread over rounds, unit."
    found, wide = [row.record() for row in rows], max(len(row.name) for row in rows)
    return [f"{'figure':{wide}} {'median':>9} {'over rounds':>20}  unit",
            *(f"{r['name']:{wide}} {digits(r['median']):>9} {digits(r['low']) + ' to ' + digits(r['high']):>20}  {r['unit']}" for r in found)]


def begin() -> dict:
    "What has to be noted before the first measurement: when, which code, and how busy the machine was."
    git = git_state(ROOT)
    return {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "commit": git["commit"], "dirty": bool(set(git["dirty"] or ()) - {"benchmarks/history.jsonl"}),
            "load_at_start": machine_state()["load"]}


def place() -> Path | None:
    "The file that runs are kept in, None if they shall not be."
    named = os.environ.get("TIRNAS_HISTORY")
    return HISTORY if named is None else Path(named) if named else None


def keep(benchmark: str, rows: list[Measured], began: dict) -> None:
    "Append a run to the history, in one write, and say where."
    if (path := place()) is None: return
    record = {"benchmark": benchmark, **began, "options": sys.argv[1:], "versions": versions(), "machine": machine_state(),
              "figures": [row.record() for row in rows]}
    with path.open("a", encoding="utf8") as f: f.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"kept in {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


def read(path: Path) -> list[dict]:
    "The runs in a history, oldest first; a line that is none is a UserError that says which."
    runs = []
    for number, line in enumerate(path.read_text(encoding="utf8").splitlines() if path.exists() else (), 1):
        try: runs.append(json.loads(line))
        except ValueError as e: raise UserError(f"{path}:{number} is no run ({e}): remove the line") from e
    return runs


def compared(before: dict, after: dict) -> list[str]:
    "Two runs beside one another; a figure whose spreads do not touch is marked."
    old, lines = {f["name"]: f for f in before["figures"]}, []
    for new in after["figures"]:
        if new["name"] not in old: continue
        was = old[new["name"]]
        apart = new["low"] > was["high"] or new["high"] < was["low"]
        lines.append(f"{new['name']:44} {digits(was['median']):>9} -> {digits(new['median']):>9} {new['unit']}{'  *' if apart else ''}")
    return lines


def main() -> None:
    "List the runs, or compare the last two of a benchmark."
    runs = read(place() or HISTORY)
    for r in runs: print(f"{r['date']}  {r['benchmark']:10} {(r['commit'] or 'no commit')[:7]}{'+' if r['dirty'] else ' '} {r['machine']['processor']}, load {r['load_at_start']}")
    last = [r for r in runs if sys.argv[1:] == [r["benchmark"]]][-2:]
    if len(last) == 2: print(*compared(*last), "*: spreads do not touch", sep="\n")


if __name__ == "__main__":
    try: main()
    except UserError as e: sys.exit(f"benchmark: {e}")

"""`python -m benchmarks.malformed --output DIR`: the whole campaign, as a table and the list of faults."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.malformed.campaign import CLASSES, FAULTS, Outcome, cases, list_modules, run


@dataclass(frozen=True)
class Options:
    """Options of the campaign.

    Attributes:
        output: where `malformed.csv` and `malformed.md` go.
        packages: parts of the names of the packages to call; all by default.
        limit_s: seconds after which a call is said to hang.
    """

    output: Path
    packages: tuple[str, ...] = ()
    limit_s: int = 60


def main(options: Options) -> int:
    """Runs the campaign; the number of calls that are neither refused clearly nor allowed."""
    outcomes: dict[str, list[Outcome]] = {}
    for module in list_modules():
        if options.packages and not any(part in module.PACKAGE for part in options.packages):
            continue
        outcomes[module.PACKAGE] = [run(case, options.limit_s) for case in cases(module)]
        print(
            f"{module.PACKAGE}: {dict(Counter(outcome.kind for outcome in outcomes[module.PACKAGE]))}",
            flush=True,
        )
    options.output.mkdir(parents=True, exist_ok=True)
    _write_csv(options.output / "malformed.csv", [one for found in outcomes.values() for one in found])
    (options.output / "malformed.md").write_text(markdown(outcomes))
    return sum(outcome.kind in FAULTS for found in outcomes.values() for outcome in found)


def markdown(outcomes: dict[str, list[Outcome]]) -> str:
    """A table of counts by package and class, and the calls that are faults or may run."""
    lines = [f"| package | calls | {' | '.join(CLASSES)} |", "|---|" + "---:|" * (len(CLASSES) + 1)]
    everything = [one for found in outcomes.values() for one in found]
    for package, listed in [*outcomes.items(), ("all", everything)]:
        counts = Counter(outcome.kind for outcome in listed)
        lines.append(f"| {package} | {len(listed)} | {' | '.join(str(counts[kind]) for kind in CLASSES)} |")
    for kind in (*FAULTS, "ran"):
        listed = [one for one in everything if one.kind == kind]
        if listed:
            lines += ["", f"{kind}:", "", *(f"- `{one.label}`: {_in_a_line(one.detail)}" for one in listed)]
    return "\n".join(lines) + "\n"


def _write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("call", "class", "seconds", "answer"))
        for one in outcomes:
            writer.writerow((one.label, one.kind, f"{one.seconds:.3f}", _in_a_line(one.detail)))


def _in_a_line(text: str) -> str:
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    sys.exit(1 if main(tyro.cli(Options)) else 0)

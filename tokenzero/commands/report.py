"""``tokenzero report``: write a run's page. What is on it is ``report``'s."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenzero.policy.atomic import write_text
from tokenzero.report import report


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    directory = Path(arguments.run)
    out = directory / "report.html" if arguments.out is None else Path(arguments.out)
    page, summary = report(directory)
    write_text(out, page)
    if arguments.json:
        print(json.dumps({"out": str(out), **summary}))
    else:
        alarms = len(summary["alarms"])
        print(f"{out}: {summary['rounds']} rounds, {alarms} alarm{'' if alarms == 1 else 's'}")
    return 0

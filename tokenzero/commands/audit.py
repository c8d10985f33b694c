"""``tokenzero audit``: print what an audit found, and write its page where that is asked for.

Findings change no exit code: whether an answer is a trick is for a person to say.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.markup import escape

from tokenzero.audit import audit
from tokenzero.audit_page import audit_page
from tokenzero.policy.atomic import write_text
from tokenzero.progress import print_table


def run(arguments: argparse.Namespace) -> int:
    """Audit the run and say what was found."""
    found = audit(Path(arguments.run))
    if arguments.out is not None:
        write_text(Path(arguments.out), audit_page(found))
    summary = found.summary()
    if arguments.json:
        print(json.dumps({"out": arguments.out, **summary}))
        return 0
    rows = [
        [
            escape(finding.name),
            "-" if finding.value is None else f"{finding.value:+.3g}",
            f"{finding.threshold:+.3g}",
            finding.verdict,
            escape(finding.sentence),
        ]
        for finding in found.findings
    ]
    print_table(("finding", "value", "limit", "verdict", "seen"), rows, words=True)
    rounds = [str(measures["round"]) for measures in found.rounds]
    print(f"{summary['look']} of {len(rows)} to look at; rounds measured: {', '.join(rounds)}")
    if arguments.out is not None:
        print(f"wrote {arguments.out}")
    return 0

"""``tokenzero doctor``: print what ``doctor.examine`` finds; exit code 1 when a check fails. ``--warm``
compiles every kernel first.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from tokenzero.doctor import examine, warm
from tokenzero.progress import print_table


def run(arguments: argparse.Namespace) -> int:
    """Examine the installation, and the model if one is named, and print the findings."""
    compiled = {"warm_s": round(warm(), 1)} if arguments.warm else {}
    found = examine(arguments.model) | compiled
    if arguments.json:
        print(json.dumps(found))
    else:
        print_table(("what", "found"), _rows(found), words=True)
        print("all checks passed" if found["ok"] else "some checks failed")
    return 0 if found["ok"] else 1


def _rows(found: dict[str, Any]) -> list[list[str]]:
    rows = [[name, version or "not installed"] for name, version in found["versions"].items()]
    cpu, cuda = found["cpu"], found["cuda"]
    rows.append(["platform", found["platform"]])
    rows.append(["CPU", f"{cpu['model']}, {cpu['cores']} cores, {cpu['torch_threads']} torch threads"])
    rows.append(["CUDA", ", ".join(cuda["devices"]) or "not available"])
    rows += [
        [f"extra {name}", "installed" if there else "not installed"]
        for name, there in found["extras"].items()
    ]
    for name, check in found["checks"].items():
        rows.append([name, ("ok: " if check["ok"] else "FAILED: ") + check["detail"]])
    if "warm_s" in found:
        rows.append(["kernels", f"compiled in {found['warm_s']} s"])
    if "model" in found:
        model = found["model"]
        rows.append(["model", f"{model['source']}, {model['parameters']:,} parameters, {model['dtype']}"])
        rows.append(["tier", f"{model['tier']}: {model['reason']}"])
    return rows

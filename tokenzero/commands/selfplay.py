"""``tokenzero selfplay``: play, learn, evaluate, checkpoint, round after round. The work is that of
``selfplay.run``, or of ``selfplay.text.run`` for text games.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenzero.cli import interrupted
from tokenzero.config import load_config
from tokenzero.mcts.errors import InputError
from tokenzero.progress import PROBLEM_ROWS, TEXT_ROWS, print_table, showing
from tokenzero.run_kinds import open_run
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.text.config import TextGameConfig


def run(arguments: argparse.Namespace) -> int:
    """Execute the run and print its records."""
    out = Path(arguments.out)
    config = _config(arguments, out)
    rows = TEXT_ROWS if isinstance(config, TextGameConfig) else PROBLEM_ROWS
    try:
        with showing(config.rounds, rows) as listener:
            records = open_run(config, out, listener).execute(resume=arguments.resume)
    except KeyboardInterrupt:
        return interrupted(f"finished rounds are kept, go on with: tokenzero selfplay --out {out} --resume")
    if arguments.json:
        print(json.dumps({"run": str(out), "rounds": records}))
    else:
        print_table(rows.columns, [rows.cells(record) for record in records], f"run {out}")
    return 0


def _config(arguments: argparse.Namespace, out: Path) -> SelfPlayConfig | TextGameConfig:
    """The settings asked for. A resumed run needs none repeated: it kept its own in ``config.json``."""
    overrides = list(arguments.set)
    for name in ("seed", "rounds"):
        if getattr(arguments, name) is not None:
            overrides.append(f"{name}={getattr(arguments, name)}")
    kept = out / "config.json"
    if arguments.resume and arguments.preset is None and arguments.config is None:
        if kept.is_file():
            return load_config(path=kept, overrides=overrides)
        if out.exists():
            raise InputError(f"{out} holds no run to resume; leave --resume out or choose another --out")
    return load_config(arguments.preset, arguments.config, overrides)

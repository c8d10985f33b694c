"""``tokenzero serve``: an OpenAI-compatible server of one model."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

from tokenzero.checkpoint import Opened, open_model
from tokenzero.commands.opening import engine_config
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.tiers import is_batch_invariant
from tokenzero.server.config import ServeConfig

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def run(arguments: argparse.Namespace) -> int:
    """Open the model, serve it, and come back when the process is told to stop."""
    if not 0 <= arguments.port <= 65535:
        raise InputError(f"--port is {arguments.port}; give a number from 0 (any free one) to 65535")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the server needs {', '.join(missing)}; run: pip install 'tokenzero[serve]'")
    from tokenzero.server.auth import read_keys
    from tokenzero.server.process import run as serve

    keys = () if arguments.api_key_file is None else read_keys(Path(arguments.api_key_file))
    given = {
        "name": arguments.name,
        "places": arguments.places,
        "waiting": arguments.max_waiting,
        "body_mb": arguments.max_body_mb,
        "timeout_s": arguments.timeout_s,
        "drain_s": arguments.drain_s,
        "trees": arguments.keep_trees,
    }
    config = ServeConfig(api_keys=keys, **{name: value for name, value in given.items() if value is not None})
    logging.basicConfig(stream=sys.stderr, format="tokenzero: %(levelname)s: %(message)s")
    engine = replace(engine_config(arguments), batch_invariant=True)  # answers must not depend on the load
    opened = open_model(arguments.model, arguments.task, None, engine)
    serve(opened, config, arguments.host, arguments.port, lambda url: _say(url, opened, bool(keys)))
    print("tokenzero: the server has stopped", file=sys.stderr)
    return 0


def _say(url: str, opened: Opened, locked: bool) -> None:
    """How to try it."""
    task, search = opened.parts.task, opened.search
    key = " -H 'Authorization: Bearer KEY'" if locked else ""
    body = json.dumps({"prompt": "...", "max_tokens": 32, "search": {}})
    lines = [
        f"{opened.source} ({task.name}) at {url}/v1, described at {url}/docs",
        f"search: {search.method}, {_effort(search)}; {_repeatable(opened)}",
        f"try: curl {url}/v1/completions{key} -H 'Content-Type: application/json' -d '{body}'",
    ]
    for line in lines:
        print(f"tokenzero: {line}", file=sys.stderr, flush=True)


def _repeatable(opened: Opened) -> str:
    if is_batch_invariant(opened.parts.engine, opened.parts.student):
        return "same seed, same answer, whatever else is asked"
    return "same seed, same answer but for rounding: this model's forward depends on what shares it"


def _effort(search: SearchConfig) -> str:
    """How hard the default search tries: frontier search may be bounded by tokens alone."""
    return (
        f"{search.simulations} simulations" if search.tokens is None else f"{search.tokens} tokens a problem"
    )

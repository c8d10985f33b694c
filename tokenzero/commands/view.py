"""``tokenzero view``: a search tree as a page, and as GraphML, DOT or JSON for other programs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_text
from tokenzero.view import page
from tokenzero.view_document import read_document, to_json, trees_of
from tokenzero.view_export import to_dot, to_graphml
from tokenzero.view_run import played_game


def run(arguments: argparse.Namespace) -> int:
    """Read the tree or the game, write what was asked for and say what it is."""
    source = Path(arguments.source)
    if source.is_dir():
        found = played_game(source, arguments.game or 0)
    elif arguments.game is not None:
        raise InputError(f"--game chooses a game of a run, and {source} is no run; leave it out")
    else:
        found = read_document(source)
    trees = trees_of(found)
    move = arguments.move or 0
    if not 0 <= move < len(trees):
        raise InputError(f"--move is {move}; choose one of 0 to {len(trees) - 1}")
    tree = trees[move]
    if arguments.move is not None:
        found = {**found, "searches": [found["searches"][move]]}
    write_text(Path(arguments.out), page(found))
    for path, written in ((arguments.graphml, to_graphml), (arguments.dot, to_dot)):
        if path is not None:
            write_text(Path(path), written(tree))
    if arguments.tree is not None:
        write_text(Path(arguments.tree), to_json(found))
    told: dict[str, Any] = {
        "out": arguments.out,
        "searches": len(found["searches"]),
        "move": move,
        "nodes": len(tree.parent),
        "simulations": len(tree.ended) if tree.counted == "visits" else None,
        "depth": int(tree.depths().max()),
        "solved": int(tree.solved.sum()),
        "method": tree.method,
        "answer": found.get("answer", ""),
    }
    if arguments.json:
        print(json.dumps(told))
    else:
        searches = f"{told['searches']} searches, " if told["searches"] > 1 else ""
        size = f"{told['nodes']} nodes, depth {told['depth']}, {told['solved']} solved"
        print(f"{arguments.out}: {searches}{size}")
        if tree.note:
            print(tree.note)
    return 0

"""What does a node cost in memory, on the host and in keys and values, and is that what the formula says?

Each store is made large, filled, and compared with its formula twice: by the size of its arrays and by
what the process's resident memory grew. Formulae, in bytes: a search-tree node 64 + 33 K; a state in the
evaluator's table 57 + (16 + 4 n) K (K candidates, n proposers); a state in the engine's bookkeeping 80;
keys and values of a token 2 * layers * key-value heads * head width * 4 in float32. Texts of partial
answers are Python strings and come on top (about 50 bytes and a byte a character).

python benchmarks/memory.py --json memory.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forward_limit import SIZES, WORDS, random_llama
from report import emit, resident_bytes

from tokenzero.mcts.tree import Tree
from tokenzero.policy.state_store import StateStore
from tokenzero.policy.student import Student
from tokenzero.policy.tree_attention import PagedAttention, TreeAttentionWay
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.state_table import StateTable

Row = dict[str, Any]


def array_bytes(arrays: Iterable[Any]) -> int:
    """Bytes of arrays, views of one base counted once."""
    bases = {id(a if a.base is None else a.base): (a if a.base is None else a.base) for a in arrays}
    return sum(base.nbytes for base in bases.values())


def touch(arrays: Iterable[Any]) -> None:
    """Write to every page, so that the system hands it over."""
    for array in arrays:
        array.fill(1)


def tree_row(candidates: int, trees: int = 256, nodes: int = 1024) -> Row:
    """Nodes of search trees."""
    before = resident_bytes()
    tree = Tree.allocate(trees, nodes, candidates)
    touch(tree)
    grown, count = resident_bytes() - before, trees * nodes
    return row("search tree", f"K={candidates}", count, 64 + 33 * candidates, array_bytes(tree), grown)


def table_row(candidates: int, states: int = 200_000) -> Row:
    """States in an evaluator's table, without their texts."""
    before = resident_bytes()
    table = StateTable(states, candidates, 1)
    arrays = [array for array in vars(table).values() if isinstance(array, np.ndarray)]
    touch(arrays)
    grown = resident_bytes() - before - 8 * len(table.text)
    formula = 57 + (16 + 4) * candidates
    return row("state table", f"K={candidates}, n=1", states, formula, array_bytes(arrays), grown)


def store_row(states: int = 500_000) -> Row:
    """States in an engine's bookkeeping, with their slots and free lists."""
    small = StateStore(8)
    small.children(small.prompts([[1]]), np.zeros(1, np.int64))  # compiled before anything is measured
    before = resident_bytes()
    store = StateStore(states)
    parent = store.prompts([[1]])
    store.children(parent.repeat(states - 1), np.zeros(states - 1, np.int64))
    arrays = store.arrays()
    touch(arrays)
    grown, room = resident_bytes() - before, len(store.states.length)
    return row("engine bookkeeping", "", room, 80, array_bytes(arrays), grown)


def paged(student: Student) -> TreeAttentionWay:
    """The unmodified model with paged attention: no copy of its weights."""
    return TreeAttentionWay(student, PagedAttention(), 1)


def cache_row(size: str, slots: int) -> Row:
    """Keys and values of a model's tokens."""
    torch.set_num_threads(1)
    student = random_llama(size)
    TreeEngine(student, paged(student), slots=64).prefill(
        [list(range(4, 64))]
    )  # the weights, and its workspace
    before = resident_bytes()
    engine = TreeEngine(student, paged(student), slots=slots, rows=64)
    prompts = np.random.default_rng(0).integers(4, WORDS, size=(slots // 64, 64)).tolist()
    engine.prefill(prompts)
    used = engine.resident
    grown = resident_bytes() - before
    layers, width, heads, groups, _ = SIZES[size]
    formula = 2 * layers * groups * (width // heads) * 4
    return row("keys and values", size, used, formula, engine.way.bytes_per_slot * used, grown)


def row(what: str, shape: str, count: int, formula: int, arrays: int, grown: int) -> Row:
    """One row of the table, bytes a node."""
    return {
        "what": what,
        "shape": shape,
        "nodes": count,
        "formula": formula,
        "arrays": arrays / count,
        "resident memory": grown / count,
        "resident / formula": grown / count / formula,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cases: list[tuple[Callable[..., Row], tuple[Any, ...]]] = [
        (tree_row, (16,)),
        (tree_row, (64,)),
        (table_row, (16,)),
        (store_row, ()),
        (cache_row, ("tiny", 65536)),
        (cache_row, ("small", 16384)),
        (cache_row, ("mid", 4096)),
    ]
    rows = []
    for (
        case,
        given,
    ) in cases:  # each in a process of its own: freed memory of one would hide the growth of the next
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            rows.append(alone.submit(case, *given).result())
    emit("Bytes a node", rows, arguments.json)


if __name__ == "__main__":
    main()

"""How close does a whole search come to the speed of the model's own forward?

For models of three sizes, two prompt lengths and 1 to 128 leaves in one evaluation: simulations a second
of full search (select, forward, value head, top candidates, back up; through the unmodified Hugging Face
model and through the lean forward) against the batched-forward limit of `forward_limit` with as many
leaves, and the evaluation of the same leaves against forwarding their whole prefixes again. All are
measured in turns within one run. Prompts are forwarded and trees planted before the clock starts; every
simulation that forwards a token counts, nothing else does.

python benchmarks/search_throughput.py --json search_throughput.json
"""

from __future__ import annotations

import argparse
import gc
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from forward_limit import SIZES, WORDS, limit_forward, random_llama
from report import emit

from tokenzero.answer_limits import FreeText
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.pool import SearchPool
from tokenzero.policy.engine import Engine, RecomputeEngine
from tokenzero.policy.lean_forward import LeanWay
from tokenzero.policy.student import Student
from tokenzero.policy.tree_attention import PagedAttention, TreeAttentionWay
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.evaluator import LeafConfig, LeafEvaluator, Parts
from tokenzero.tasks import PublicProblem
from tokenzero.value import ValueHead

SIMULATIONS = 64
DEPTH = 4  # answer tokens of the limit's leaves: about what these searches reach


def engine_of(student: Student, way: str) -> TreeEngine:
    """A tree engine in the way named ``hf`` or ``lean``."""
    build: Any = LeanWay(student, 64) if way == "lean" else TreeAttentionWay(student, PagedAttention(), 64)
    return TreeEngine(student, build, slots=32768)


class Searches:
    """Search over ``trees`` random prompts; each call makes one step and says how many tokens it
    forwarded.
    """

    def __init__(self, student: Student, engine: Engine, trees: int, leaves: int, prompt: int) -> None:
        self._trees, self._prompt, self._engine = trees, prompt, engine
        head = ValueHead(student.hidden_size).to(student.device)
        self._parts = Parts(student, engine, FreeText(64), value_head=head)
        self._config = SearchConfig(
            method="puct", simulations=SIMULATIONS, candidates=16, leaves=leaves // trees, c_init=2.5
        )
        self._rng = np.random.default_rng(0)
        self._pool = SearchPool(trees, self._config)
        self._places = np.arange(trees)
        self._open: LeafEvaluator | None = None

    def plant(self) -> None:
        """End what is there and start anew, from new prompts."""
        if self._open is not None:
            self._open.close()
        self._open = LeafEvaluator(self._parts, LeafConfig(), 16, self._trees)
        words = self._rng.integers(0, WORDS, size=(self._trees, self._prompt))
        problems = [PublicProblem(str(i), " ".join(f"w{w}" for w in row)) for i, row in enumerate(words)]
        roots = self._open.open(self._places, problems, [self._rng] * self._trees, range(self._trees))
        self._pool.plant(self._places, self._open.view(roots))

    def run(self) -> tuple[int, float]:
        """One search of every tree: tokens forwarded, seconds."""
        self.plant()
        assert self._open is not None
        before, started = self._engine.ledger.decode_tokens, time.perf_counter()
        while self._pool.step(self._open):
            pass
        seconds = time.perf_counter() - started
        self._pool.answer(self._pool.ended(), uniform=np.zeros(self._trees))
        return self._engine.ledger.decode_tokens - before, seconds


def per_call(call: Callable[[], object], calls: int) -> float:
    """Seconds a call takes, the mean of ``calls``; a GPU's queue is empty before and after."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    wait()
    started = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (time.perf_counter() - started) / calls


def leaf_call(engine: Engine, leaves: int, prompt: int) -> Callable[[], None]:
    """A call that evaluates the same ``leaves`` leaves, each the fourth token after one of some prompts."""
    rng = np.random.default_rng(1)
    trees = max(1, leaves // 4)
    prompts = rng.integers(4, WORDS, size=(trees, prompt)).tolist()
    paths = rng.integers(4, WORDS, size=(DEPTH, leaves))
    states = engine.prefill(prompts).states[np.arange(leaves) * trees // leaves]
    for tokens in paths[:-1]:
        states = engine.extend(states, tokens).states

    def evaluate() -> None:
        engine.release(engine.extend(states, paths[-1]).states)

    return evaluate


def measure(size: str, student: Student, prompt: int, leaves: int, repeats: int) -> dict[str, Any]:
    """One row: medians over ``repeats`` turns."""
    trees = max(1, leaves // 4)
    limit = limit_forward(student, leaves, prompt + DEPTH)
    searches = {
        way: Searches(student, engine_of(student, way), trees, leaves, prompt) for way in ("hf", "lean")
    }
    tree = leaf_call(engine_of(student, "lean"), leaves, prompt)
    again = leaf_call(RecomputeEngine(student), leaves, prompt)
    for call in (limit, tree, again, searches["hf"].run, searches["lean"].run):
        call()
    gc.freeze()  # as the command line does
    calls = max(2, int(0.3 / per_call(limit, 3)))
    seen: dict[str, list[float]] = {name: [] for name in ("limit", "hf", "lean", "tree", "again")}
    for _ in range(repeats):
        for way, search in searches.items():
            seen["limit"].append(per_call(limit, calls) / leaves)
            tokens, seconds = search.run()
            seen[way].append(seconds / tokens)
        seen["tree"].append(per_call(tree, calls))
        seen["again"].append(per_call(again, 1 if prompt > 100 else 2))
    typical = {name: median(values) for name, values in seen.items()}
    return {
        "model": size,
        "prompt": prompt,
        "leaves": leaves,
        "limit /s": 1 / typical["limit"],
        "search /s": 1 / typical["hf"],
        "of limit": typical["limit"] / typical["hf"],
        "lean search /s": 1 / typical["lean"],
        "lean of limit": typical["limit"] / typical["lean"],
        "leaves: recompute / tree": typical["again"] / typical["tree"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="tiny,small,mid", help="of tiny, small, mid")
    parser.add_argument("--prompts", default="32,256")
    parser.add_argument("--leaves", default="1,8,32,128")
    parser.add_argument("--repeats", type=int, default=5, help="turns; the table shows medians")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for size in arguments.models.split(","):
        if size not in SIZES:
            parser.error(f"--models has {size!r}; choose from {', '.join(SIZES)}")
        student = random_llama(size)
        grid = itertools.product(arguments.prompts.split(","), arguments.leaves.split(","))
        for prompt, leaves in grid:
            rows.append(measure(size, student, int(prompt), int(leaves), arguments.repeats))
            print(rows[-1], flush=True)
    emit(
        f"Search against the forward of its own model, {arguments.threads} thread(s), float32",
        rows,
        arguments.json,
        notes=[
            f"PUCT, {SIMULATIONS} simulations, 16 candidates, value head; up to 4 leaves a tree and step.",
            f"Limit: one token per leaf on contiguous keys and values of the prompt and {DEPTH} tokens.",
        ],
    )


if __name__ == "__main__":
    main()

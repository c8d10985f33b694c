"""The set of measurements for a GPU, in one call: search against the model's own forward, in bfloat16.

A random Llama of half a billion parameters, 32 to 512 leaves in one evaluation, prompts of 32 and 256
tokens: simulations a second of full search with dense tree attention, against the batched-forward limit of
`forward_limit`, and leaf evaluation against gathered keys and values and against forwarding whole
prefixes. It also prints what the numeric self-test says of the model. Without a GPU it says so and ends;
`--device cpu --size tiny` shows that it runs.

python benchmarks/gpu.py --json gpu.json
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from statistics import median
from typing import Any

import torch
from forward_limit import SIZES, limit_forward, random_llama
from report import emit
from search_throughput import DEPTH, SIMULATIONS, Searches, leaf_call, per_call

from tokenzero.policy.engine import RecomputeEngine
from tokenzero.policy.gather_attention import GatherWay
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import choose
from tokenzero.policy.tree_attention import DenseAttention, TreeAttentionWay
from tokenzero.policy.tree_engine import TreeEngine

SLOTS = 65536


def dense(student: Student) -> TreeEngine:
    """An engine with dense tree attention."""
    return TreeEngine(student, TreeAttentionWay(student, DenseAttention(), 64), slots=SLOTS)


def measure(student: Student, size: str, prompt: int, leaves: int, repeats: int) -> dict[str, Any]:
    """One row: medians over ``repeats`` turns."""
    limit = limit_forward(student, leaves, prompt + DEPTH)
    search = Searches(student, dense(student), max(1, leaves // 4), leaves, prompt)
    calls = {
        "limit": limit,
        "tree": leaf_call(dense(student), leaves, prompt),
        "gather": leaf_call(TreeEngine(student, GatherWay(student, 64), slots=SLOTS), leaves, prompt),
        "again": leaf_call(RecomputeEngine(student, rows=leaves), leaves, prompt),
    }
    for call in (*calls.values(), search.run):
        call()
    seen: dict[str, list[float]] = {name: [] for name in (*calls, "search")}
    for _ in range(repeats):
        for name, call in calls.items():
            seen[name].append(per_call(call, 1 if name == "again" else 5) / leaves)
        tokens, seconds = search.run()
        seen["search"].append(seconds / tokens)
    typical = {name: median(values) for name, values in seen.items()}
    return {
        "model": size,
        "prompt": prompt,
        "leaves": leaves,
        "limit /s": 1 / typical["limit"],
        "search /s": 1 / typical["search"],
        "of limit": typical["limit"] / typical["search"],
        "leaves: dense of limit": typical["limit"] / typical["tree"],
        "leaves: gather / dense": typical["gather"] / typical["tree"],
        "leaves: recompute / dense": typical["again"] / typical["tree"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="half-billion", choices=SIZES)
    parser.add_argument("--prompts", default="32,256")
    parser.add_argument("--leaves", default="32,128,512")
    parser.add_argument("--repeats", type=int, default=5, help="turns; the table shows medians")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: torch.cuda.is_available() is False; nothing was measured")
        return
    student = random_llama(arguments.size)
    student.model.to(arguments.device, torch.bfloat16)
    choice, _ = choose(student)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
    grid = itertools.product(arguments.prompts.split(","), arguments.leaves.split(","))
    rows = [measure(student, arguments.size, int(p), int(n), arguments.repeats) for p, n in grid]
    emit(
        f"Search against its model's forward: {device}, bfloat16, {student.parameters():,} parameters",
        rows,
        arguments.json,
        notes=[
            f"Self-test: {choice.tier}, {choice.explain()}",
            f"PUCT, {SIMULATIONS} simulations, 16 candidates, value head; up to 4 leaves a tree and step.",
        ],
    )


if __name__ == "__main__":
    main()

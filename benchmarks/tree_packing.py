"""Milliseconds of a forward and backward over trees of partial answers: each token once, or all their chains.

The model is the preset's, with random weights; the loss is cross-entropy with soft targets at every token of
every tree and a squared error read off its hidden states. A tree is a prompt and play-outs that leave it at
random tokens and run to a random depth, until it has a random number of nodes. "paths" are trees in one row
for the compiled kernel, "mask" in rows under an ancestor mask, "chains" the paths from the root to each leaf
("unpacked": a token is forwarded as often as there are leaves below it). The arms take turns; times are CPU
times of one thread, medians. The losses show that the arms compute the same.

    python benchmarks/tree_packing.py [--json FILE] [--trees 64] [--nodes 30-100]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from report import emit

from tokenzero.config import load_config
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import from_spec
from tokenzero.policy.training_forward import TrainingForward
from tokenzero.policy.tree_packing import PackedTrees, Way
from tokenzero.tasks import get_task

Ids = npt.NDArray[np.int64]
PROMPT = 7  # tokens of a Countdown prompt with four numbers


def draw_tree(rng: np.random.Generator, nodes: int, longest: int) -> Ids:
    """Parents i64 [PROMPT + nodes] of play-outs that end ``longest`` tokens below the root at most."""
    parents, depths = list(range(-1, PROMPT - 1)), list(range(PROMPT))
    while len(parents) < PROMPT + nodes:
        at = int(rng.integers(PROMPT - 1, len(parents)))
        for depth in range(depths[at] + 1, int(rng.integers(depths[at] + 1, longest + 1))):
            parents.append(at)
            depths.append(depth)
            at = len(parents) - 1
    return np.asarray(parents[: PROMPT + nodes])


def step(forward: TrainingForward, model: Any, packed: PackedTrees, targets: torch.Tensor) -> float:
    """One forward and backward; returns the loss."""
    wanted = torch.from_numpy(packed.cells)
    logits, hidden = forward(packed.ids, packed.positions, wanted, packed.mask)
    cross_entropy = -(targets * torch.log_softmax(logits, dim=-1)).sum(1).mean()
    loss = cross_entropy + (hidden.index_select(0, wanted).mean(1) - 1.0).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return float(loss.detach())


def milliseconds(action: Callable[[], object]) -> float:
    """CPU time of this thread."""
    begun = time.thread_time()
    action()
    return 1e3 * (time.thread_time() - begun)


def measure(options: argparse.Namespace, nodes: tuple[int, int]) -> list[dict[str, Any]]:
    """The rows of one size of trees."""
    config = load_config(options.preset)
    task = get_task(config.task.name, **config.task.options)
    student = Student.from_config(config.model.architecture, from_spec(task.tokenizer_spec()), seed=0)
    rng = np.random.default_rng(options.seed)
    sizes = rng.integers(nodes[0], nodes[1] + 1, size=options.trees)
    parents = [draw_tree(rng, size, PROMPT + options.depth) for size in sizes.tolist()]
    ids = [rng.integers(0, student.vocab_size, size=len(tree)) for tree in parents]
    draw = torch.Generator().manual_seed(options.seed)
    targets = torch.softmax(2 * torch.randn((sum(map(len, ids)), student.vocab_size), generator=draw), dim=-1)
    forward = TrainingForward(student)
    packed: dict[Way, PackedTrees] = {}
    packing: dict[Way, list[float]] = {way: [] for way in Way}
    steps: dict[Way, list[float]] = {way: [] for way in Way}
    losses: dict[Way, float] = {}
    for repeat in range(options.repeats + 1):
        for way in Way:
            forward.way = way
            packs = milliseconds(lambda: packed.update({way: forward.pack(ids, parents)}))  # noqa: B023
            takes = milliseconds(
                lambda: losses.update({way: step(forward, student.model, packed[way], targets)})  # noqa: B023
            )
            if repeat:  # the first warms up
                packing[way].append(packs)
                steps[way].append(takes)
    whole = median(steps[Way.CHAINS]) + median(packing[Way.CHAINS])
    return [
        {
            "nodes a tree": f"{nodes[0]}-{nodes[1]}",
            "arm": way.value,
            "tree tokens": len(targets),
            "cells read": packed[way].ids.numel(),
            "pack ms": median(packing[way]),
            "step ms": median(steps[way]),
            "times faster": whole / (median(steps[way]) + median(packing[way])),
            "loss": losses[way],
        }
        for way in Way
    ]


def main() -> None:
    """Measure every arm in turn and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--preset", default="countdown")
    parser.add_argument("--trees", type=int, default=64)
    parser.add_argument(
        "--nodes", default="30-100,100-200", help="least-most nodes below a prompt, by commas"
    )
    parser.add_argument("--depth", type=int, default=12, help="most tokens of an answer")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for span in options.nodes.split(","):
        least, most = map(int, span.split("-"))
        rows += measure(options, (least, most))
    notes = [
        f"{options.trees} trees; medians of {options.repeats} turns; packing counts in how many times faster"
    ]
    emit("Trees of partial answers: one forward and backward", rows, options.json, notes)


if __name__ == "__main__":
    main()

"""One search over a batch of trees: select, evaluate all new leaves in one call, expand and back up, repeat.

This file draws the noise from the caller's generator and runs a `SearchPool` until every tree is done; the
pool checks the inputs. What states and actions mean is the evaluator's business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.answer import SearchResult
from tokenzero.mcts.config import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.evaluation import Evaluation, Evaluator
from tokenzero.mcts.frontier import FrontierPool, root_statistics
from tokenzero.mcts.noise import dirichlet_noise, gumbel_noise
from tokenzero.mcts.pool import SearchPool
from tokenzero.mcts.tree import NONE, ROOT


def search(
    root: Evaluation,
    evaluator: Evaluator,
    config: SearchConfig,
    rng: np.random.Generator,
    *,
    invalid: NDArray[np.bool_] | None = None,
    gumbel: NDArray[np.float32] | None = None,
    carried: NDArray[np.int64] | None = None,
) -> SearchResult:
    """Search B trees from evaluated roots.

    root: B evaluated roots; at most `config.candidates` slots wide (narrower ones are padded).
    invalid: bool [B, K], slots that must not be chosen at the root.
    gumbel: float32 [B, K], root noise to use in place of a draw, already scaled (Gumbel method only).
    carried: int64 [B], simulations that an earlier search already made below each root. They are made again,
        before and beyond `config.simulations`, and not counted: with an evaluator that remembers its states
        this is subtree reuse, at the price of the walk and no forward. Sequential halving is planned without
        them.

    Frontier search takes no mask, no root noise and nothing carried. Its weights are the shares of the
    distinct solutions below each child, its play-outs where there is none; it proposes the child with most of
    them.

    The trees of a batch do not influence each other, except that their noise comes from one generator. The
    state handles in `result.tree` stay alive: releasing them is the caller's decision. Raises InputError for
    input of the wrong shape or kind, NaN, or an evaluator that answers so; the trees are then lost.
    """
    if config.method == "frontier":
        return _frontier_search(root, evaluator, config, rng)
    actions = np.asarray(root.actions)
    if actions.ndim != 2 or actions.shape[0] < 1:
        raise InputError(
            f"root.actions has shape {actions.shape}; give [trees, candidates] with at least one tree"
        )
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng is {type(rng).__name__}; give a numpy.random.Generator")
    batch = actions.shape[0]
    pool, places = SearchPool(batch, config), np.arange(batch)
    dirichlet = None
    if config.method == "gumbel" and gumbel is None:
        gumbel = gumbel_noise(rng, batch, config.candidates, config.gumbel_scale)
    if config.method == "puct" and config.dirichlet_fraction > 0.0:
        closed = actions == -1
        if invalid is not None and np.shape(invalid) == closed.shape:  # else the pool refuses it
            closed = closed | invalid
        dirichlet = dirichlet_noise(rng, ~closed, config.dirichlet_alpha)
    pool.plant(places, root, invalid=invalid, gumbel=gumbel, dirichlet=dirichlet, carried=carried)
    while pool.step(evaluator):
        pass
    uniform = rng.random(size=(batch,)) if config.method == "puct" else None
    return pool.answer(places, uniform=uniform)


def _frontier_search(
    root: Evaluation, evaluator: Evaluator, config: SearchConfig, rng: np.random.Generator
) -> SearchResult:
    batch = np.shape(root.actions)[0]
    pool, places = FrontierPool(batch, config), np.arange(batch)
    pool.plant(places, root, rng.spawn(batch))
    steps = 0
    while pool.step(evaluator):
        steps += 1
    found = pool.answer(places)
    tree = found.tree
    visits, q, solutions = root_statistics(found)
    counts = np.where(solutions.any(axis=1, keepdims=True), solutions, visits)
    total = counts.sum(axis=1, keepdims=True)
    weights = np.where(total > 0, counts / np.maximum(total, 1), tree.prior[:, ROOT])
    rollouts = tree.visits[:, ROOT]
    backed_up = (tree.value_sum[:, ROOT] / np.maximum(rollouts, 1)).astype(np.float32)
    open_slots = (tree.action[:, ROOT] != NONE).any(axis=1)
    return SearchResult(
        actions=tree.action[:, ROOT],
        visits=visits,
        weights=weights.astype(np.float32),
        q=q,
        value=np.where(rollouts > 0, backed_up, tree.raw_value[:, ROOT]),
        chosen=np.where(open_slots, weights.argmax(axis=1), NONE),
        solution=found.solution,
        solution_state=found.solution_state,
        depth=found.depth,
        nodes=found.nodes,
        simulations=found.simulations,
        steps=steps,
        tree=tree,
        places=places,
    )


def warm() -> None:
    """Compile every kernel, or load it from numba's cache, so that no later search waits for it.

    It takes seconds the first time on a machine and little afterwards.
    """
    for config in (
        SearchConfig(method="gumbel", simulations=2, candidates=2),
        SearchConfig(
            method="puct",
            simulations=2,
            candidates=2,
            smart_pruning=True,
            prune_targets=True,
            min_kld_gain=1.0,
        ),
        SearchConfig(method="frontier", simulations=2, candidates=2, max_depth=2),
    ):
        tiny = _TwoMoves()
        search(
            tiny.expand(np.zeros(1, np.int64), np.zeros(1, np.int64)), tiny, config, np.random.default_rng(0)
        )


class _TwoMoves:
    """Two moves everywhere and nothing to win."""

    def expand(self, states: NDArray[np.int64], actions: NDArray[np.int64]) -> Evaluation:
        rows = len(states)
        return Evaluation(
            actions=np.tile(np.arange(2), (rows, 1)),
            logits=np.zeros((rows, 2), np.float32),
            value=np.zeros(rows, np.float32),
            reward=np.zeros(rows, np.float32),
            terminal=np.zeros(rows, np.bool_),
            states=states + actions,
        )

    def release(self, states: NDArray[np.int64]) -> None:
        """Nothing is kept."""

"""One search over a batch of trees: select, evaluate all new leaves in one call, expand and back up, repeat.

This file is the loop and its front door: it checks inputs, draws the noise, and reads the answer off the
roots. The arithmetic is in `kernels.py`; what states and actions mean is the evaluator's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts import kernels
from tokenzero.mcts.config import FPUS, METHODS, RESCALES, SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.evaluation import Evaluation, Evaluator, check_logits, checked
from tokenzero.mcts.noise import draw, gumbel_noise, with_dirichlet
from tokenzero.mcts.records import Leaves, Progress, RootRules, Rules
from tokenzero.mcts.sequential_halving import considered_table
from tokenzero.mcts.tree import NONE, ROOT, Tree

UNLIMITED = 2**31 - 1


@dataclass
class SearchResult:
    """The answer at the roots of B trees with K candidate slots, and the trees themselves.

    actions: int64 [B, K], -1 in empty slots. visits: int32 [B, K] of the root's children.
    weights: float32 [B, K], the visit distribution: normalised visits (PUCT; the prior if nothing was
        visited) or softmax(logits + completed Q) (Gumbel). 0 in empty and masked slots; rows sum to 1 unless
        no slot is open.
    q: float32 [B, K], reward + discount * mean value of the child; 0 where unvisited.
    value: float32 [B], mean backed-up value of the root.
    chosen: int64 [B], slot of the proposed action; NONE (-1) if the root has no open slot.
    solution: int32 [B], index of the first terminal node found with raw value >= solution_value, NONE if
        none.
    simulations: int64 [B], simulations done. steps: calls of the evaluator.
    """

    actions: NDArray[np.int64]
    visits: NDArray[np.int32]
    weights: NDArray[np.float32]
    q: NDArray[np.float32]
    value: NDArray[np.float32]
    chosen: NDArray[np.int64]
    solution: NDArray[np.int32]
    tree: Tree
    simulations: NDArray[np.int64]
    steps: int


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

    The trees of a batch do not influence each other, except that their noise comes from one generator. The
    state handles in `result.tree` stay alive: releasing them is the caller's decision. Raises InputError for
    input of the wrong shape or kind, NaN, or an evaluator that answers so; the trees are then lost.
    """
    slots = np.asarray(root.actions)
    if slots.ndim != 2 or slots.shape[0] < 1:
        raise InputError(
            f"root.actions has shape {slots.shape}; give [trees, candidates] with at least one tree"
        )
    batch, width = slots.shape[0], config.candidates
    root = checked(root, batch, width, "root")
    blocked = (root.actions == -1) | _mask(invalid, slots.shape, width)
    check_logits(~blocked, root.logits, "root")
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng is {type(rng).__name__}; give a numpy.random.Generator")

    rules = _rules(config)
    again = _carried(carried, batch)
    kept = int(again.max()) if config.node_capacity is None else 0
    tree = Tree.allocate(batch, config.nodes + kept, width)
    progress = Progress(
        done=-again,
        solution=np.full(batch, NONE, np.int32),
        idle=blocked.all(axis=1) | (root.terminal & config.stop_at_terminal),
    )
    kernels.plant(
        tree, rules, progress, blocked, root.actions, root.logits, root.value, root.terminal, root.states
    )
    if config.method == "puct" and config.dirichlet_fraction > 0.0:
        fraction, alpha = config.dirichlet_fraction, config.dirichlet_alpha
        tree.prior[:, ROOT] = with_dirichlet(rng, tree.prior[:, ROOT], ~blocked, fraction, alpha)
    root_rules = _root_rules(blocked, config, rng, gumbel, slots.shape)
    steps = _simulate(tree, rules, root_rules, progress, evaluator)
    return _answer(tree, rules, root_rules, progress, config, rng, steps)


def _carried(carried: NDArray[np.int64] | None, batch: int) -> NDArray[np.int64]:
    if carried is None:
        return np.zeros(batch, np.int64)
    again = np.asarray(carried)
    if again.shape != (batch,) or again.dtype.kind != "i" or again.min() < 0:
        raise InputError(f"carried is {again.dtype} {again.shape}; give {batch} whole numbers of at least 0")
    return again.astype(np.int64)


def _simulate(
    tree: Tree,
    rules: Rules,
    root: RootRules,
    progress: Progress,
    evaluator: Evaluator,
) -> int:
    batch, width = root.blocked.shape
    room = batch * rules.leaves
    leaves = Leaves(
        row=np.zeros(room, np.int32),
        node=np.zeros(room, np.int32),
        state=np.zeros(room, np.int64),
        action=np.zeros(room, np.int64),
    )
    open_slots, closed = np.zeros(width, np.bool_), np.zeros(width, np.bool_)
    score = np.zeros(width, np.float32)
    steps = 0
    while count := int(kernels.select(tree, rules, root, progress, leaves, closed, score)):
        steps += 1
        answer = evaluator.expand(leaves.state[:count].copy(), leaves.action[:count].copy())
        found = checked(answer, count, width, "evaluation")
        kernels.expand(
            tree, rules, root, progress, leaves, open_slots,
            found.actions, found.logits, found.value, found.reward, found.terminal, found.states,
        )  # fmt: skip
    return steps


def _answer(
    tree: Tree,
    rules: Rules,
    root: RootRules,
    progress: Progress,
    config: SearchConfig,
    rng: np.random.Generator,
    steps: int,
) -> SearchResult:
    shape = root.blocked.shape
    visits = np.maximum(tree.edge_visits[:, ROOT], 0)
    weights, chosen = np.zeros(shape, np.float32), np.full(shape[0], NONE, np.int64)
    if config.method == "gumbel":
        kernels.gumbel_answer(tree, rules, root, _avoided(tree, root, config), weights, chosen)
    else:
        total = visits.sum(axis=1, keepdims=True)
        # With no visits at all the search has nothing to add to the prior.
        share = np.where(total > 0, visits / np.maximum(total, 1), tree.prior[:, ROOT])
        weights = share.astype(np.float32)
        chosen = draw(rng, _without_lost(share, tree, root, config), config.temperature)
    return SearchResult(
        actions=tree.action[:, ROOT].copy(),
        visits=visits,
        weights=weights,
        q=tree.edge_q[:, ROOT].copy(),
        value=(tree.value_sum[:, ROOT] / tree.visits[:, ROOT]).astype(np.float32),
        chosen=chosen,
        solution=progress.solution,
        tree=tree,
        simulations=np.maximum(progress.done, 0),
        steps=steps,
    )


def _avoided(tree: Tree, root: RootRules, config: SearchConfig) -> NDArray[np.bool_]:
    """Slots not to commit to, bool [B, K]: closed ones and those known to be lost, unless all are."""
    child = tree.child[:, ROOT]
    settled = (child != NONE) & np.take_along_axis(tree.exhausted, np.maximum(child, 0), axis=1)
    avoided = root.blocked | (settled & (tree.edge_q[:, ROOT] < config.solution_value))
    return np.asarray(np.where(avoided.all(axis=1, keepdims=True), root.blocked, avoided), np.bool_)


def _without_lost(
    share: NDArray[np.float64], tree: Tree, root: RootRules, config: SearchConfig
) -> NDArray[np.float64]:
    """`share` f64 [B, K] with nothing for what is known to be lost; the prior decides where none is left."""
    if not config.skip_exhausted:
        return share
    open_slots = ~_avoided(tree, root, config)
    visited, likely = share * open_slots, tree.prior[:, ROOT] * open_slots
    left = np.where(visited.any(axis=1, keepdims=True), visited, likely)
    return np.where(left.any(axis=1, keepdims=True), left, share)


def _root_rules(
    blocked: NDArray[np.bool_],
    config: SearchConfig,
    rng: np.random.Generator,
    gumbel: NDArray[np.float32] | None,
    given: tuple[int, ...],
) -> RootRules:
    batch, width = blocked.shape
    noise = np.zeros((batch, width), np.float32)
    considered, table = np.zeros(batch, np.int32), np.zeros((1, 1), np.int32)
    if config.method == "gumbel":
        if gumbel is None:
            noise = gumbel_noise(rng, batch, width, config.gumbel_scale)
        else:
            noise[:, : given[1]] = _gumbel(gumbel, given)
        considered = np.minimum(config.considered, (~blocked).sum(axis=1)).astype(np.int32)
        if config.simulations > 0:
            table = considered_table(min(config.considered, width), config.simulations)
    elif gumbel is not None:
        raise InputError(
            'gumbel noise is given but search.method is "puct"; leave it out or use method "gumbel"'
        )
    return RootRules(blocked=blocked, gumbel=noise, considered=considered, table=table)


def _mask(invalid: NDArray[np.bool_] | None, given: tuple[int, ...], width: int) -> NDArray[np.bool_]:
    mask = np.zeros((given[0], width), np.bool_)
    if invalid is not None:
        invalid = np.asarray(invalid)
        if invalid.dtype != np.bool_ or invalid.shape != given:
            raise InputError(
                f"invalid is {invalid.dtype} {invalid.shape}; give bool {given} like root.actions"
            )
        mask[:, : given[1]] = invalid
    return mask


def _gumbel(gumbel: NDArray[np.float32], given: tuple[int, ...]) -> NDArray[np.float32]:
    noise = np.asarray(gumbel, dtype=np.float32)
    if noise.shape != given or not np.isfinite(noise).all():
        raise InputError(
            f"gumbel has shape {noise.shape}; give finite numbers of shape {given} like root.actions"
        )
    return noise


def _rules(config: SearchConfig) -> Rules:
    return Rules(
        method=METHODS.index(config.method),
        simulations=config.simulations,
        max_depth=UNLIMITED if config.max_depth is None else config.max_depth,
        leaves=config.leaves,
        stop_at_terminal=config.stop_at_terminal,
        stop_on_solution=config.stop_on_solution,
        skip_exhausted=config.skip_exhausted,
        solution_value=np.float32(config.solution_value),
        virtual_loss=np.float32(config.virtual_loss),
        discount=np.float32(config.discount),
        rescale=RESCALES.index(config.q_rescale),
        min_spread=np.float32(config.min_spread),
        c_init=np.float32(config.c_init),
        c_base=np.float32(config.c_base),
        fpu=FPUS.index(config.fpu),
        fpu_reduction=np.float32(config.fpu_reduction),
        value_scale=np.float32(config.value_scale),
        maxvisit_init=np.float32(config.maxvisit_init),
        use_mixed_value=config.use_mixed_value,
    )

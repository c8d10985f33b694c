"""Compiled kernels of the search: choose, descend, expand, back up, summarise.

They trust their inputs (`search.py` checks them), draw no random numbers, call no evaluator and write only
the tree and the buffers passed in. Ties go to the lowest slot. Scores are float32 with the roundings of mctx,
so that visit counts agree; exp and log are taken in double and rounded, which gives the same bits compiled
and interpreted.

All kernels live in this file because cached compilation does not see changes in other files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tokenzero.mcts.records import Leaves, Progress, RootRules, Rules
from tokenzero.mcts.tree import NONE, ROOT, Tree

F = TypeVar("F", bound=Callable[..., Any])

Floats = NDArray[np.float32]
Counts = NDArray[np.int32]
Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]

PUCT, GUMBEL = 0, 1
SIBLINGS, WHOLE_TREE, UNSCALED = 0, 1, 2
FPU_MIN, FPU_PARENT, FPU_REDUCTION = 0, 1, 2

COLLISION = -2
TINY = np.float32(np.finfo(np.float32).tiny)
LOW_SCORE = np.float32(-1e9)
MINUS_INF = np.float32(-np.inf)
ZERO = np.float32(0.0)
ONE = np.float32(1.0)


def kernel(function: F) -> F:
    """Compile a kernel.

    No kernel allocates, so none needs reference counts; counting the references to a tree's arrays at every
    call would cost more than the search does. With `_nrt=False` a kernel that allocates does not compile.
    """
    options: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
    return cast("F", njit(**options)(function))


@kernel
def _exp(x: np.float32) -> np.float32:
    return np.float32(math.exp(np.float64(x)))


@kernel
def _sqrt(x: np.float32) -> np.float32:
    return np.float32(math.sqrt(np.float64(x)))


@kernel
def _log(x: np.float32) -> np.float32:
    return np.float32(math.log(np.float64(x)))


@kernel
def node_value(tree: Tree, b: int, node: int) -> np.float32:
    return np.float32(tree.value_sum[b, node] / np.float64(tree.visits[b, node]))


@kernel
def argmax(score: Floats) -> int:
    """Lowest slot with the greatest score; NONE if all are -inf, which marks slots that cannot be chosen."""
    best, top = NONE, MINUS_INF
    for k in range(score.shape[0]):
        if score[k] > top:
            best, top = k, score[k]
    return best


@kernel
def extremes(value: np.float32, count: Counts, q: Floats) -> tuple[np.float32, np.float32]:
    """Least and greatest of `value` and the Q of visited slots."""
    low, high = value, value
    for k in range(count.shape[0]):
        x = q[k] if count[k] > 0 else value
        low = x if x < low else low
        high = x if x > high else high
    return low, high


@kernel
def unvisited_score(
    rules: Rules, value: np.float32, low: np.float32, spread: np.float32, count: Counts, prior: Floats
) -> np.float32:
    """First-play urgency on the scale of the rescaled Q."""
    if rules.fpu == FPU_MIN:
        return ZERO
    score = np.float32((value - low) / spread)
    if rules.fpu == FPU_REDUCTION:
        mass = ZERO
        for k in range(count.shape[0]):
            if count[k] > 0:
                mass += prior[k]
        score -= rules.fpu_reduction * _sqrt(mass)
    return score


@kernel
def puct_slot(
    rules: Rules,
    visits: np.float32,
    value: np.float32,
    low: np.float32,
    high: np.float32,
    full: bool,
    blocked: Flags,
    count: Counts,
    q: Floats,
    prior: Floats,
    score: Floats,
) -> int:
    """Slot with the highest PUCT score (MuZero, Appendix B, arXiv:1911.08265); NONE if none can be chosen."""
    if rules.rescale == SIBLINGS:
        low, high = extremes(value, count, q)
    elif rules.rescale == UNSCALED:
        low, high = -ONE, ONE
    spread = max(np.float32(high - low), rules.min_spread)
    unvisited = unvisited_score(rules, value, low, spread, count, prior)
    c = rules.c_init + _log(np.float32((visits + rules.c_base + ONE) / rules.c_base))
    explore = np.float32(_sqrt(visits) * c)
    least = 1 if full else 0
    for k in range(count.shape[0]):
        n = count[k]
        worth = np.float32((q[k] - low) / spread)
        worth = worth if n > 0 else unvisited
        total = np.float32(worth + np.float32(explore * prior[k]) / np.float32(max(n, 0) + 1))
        score[k] = MINUS_INF if (n < least) | blocked[k] else total
    return argmax(score)


@kernel
def mixed_value(raw: np.float32, count: Counts, q: Floats, prior: Floats) -> np.float32:
    """Value that stands in for unvisited children: Appendix D of Danihelka et al., ICLR 2022."""
    visits, mass, weighted = ZERO, ZERO, ZERO
    for k in range(count.shape[0]):
        if count[k] > 0:
            p = max(TINY, prior[k])
            visits += np.float32(count[k])
            mass += p
            weighted += p * q[k]
    if mass == ZERO:
        return raw
    return np.float32((raw + visits * np.float32(weighted / mass)) / (visits + ONE))


@kernel
def complete_q(
    rules: Rules,
    raw: np.float32,
    low: np.float32,
    high: np.float32,
    count: Counts,
    q: Floats,
    prior: Floats,
    score: Floats,
) -> None:
    """Fill `score` with the scaled completed Q of every slot that holds a candidate (masked root slots too,
    as in mctx).
    """
    missing = mixed_value(raw, count, q, prior) if rules.use_mixed_value else raw
    least, greatest, most = np.float32(np.inf), MINUS_INF, np.int32(0)
    for k in range(count.shape[0]):
        n = count[k]
        x = q[k] if n > 0 else missing
        score[k] = x
        least = x if (x < least) & (n >= 0) else least
        greatest = x if (x > greatest) & (n >= 0) else greatest
        most = n if n > most else most
    if rules.rescale == SIBLINGS:
        low, high = least, greatest
    spread = max(np.float32(high - low), rules.min_spread)
    if rules.rescale == UNSCALED:
        low, spread = ZERO, ONE
    scale = np.float32((rules.maxvisit_init + np.float32(most)) * rules.value_scale)
    for k in range(count.shape[0]):
        score[k] = scale * np.float32((score[k] - low) / spread)


@kernel
def improved_policy(blocked: Flags, count: Counts, logit: Floats, score: Floats) -> None:
    """Turn `score` from completed Q into softmax(logits + completed Q); 0 in empty and blocked slots."""
    top = MINUS_INF
    for k in range(count.shape[0]):
        x = MINUS_INF if (count[k] < 0) | blocked[k] else logit[k] + score[k]
        score[k] = x
        top = x if x > top else top
    if top == MINUS_INF:
        top = ZERO
    total = ZERO
    for k in range(count.shape[0]):
        score[k] = _exp(score[k] - top)
        total += score[k]
    total = total if total > ZERO else ONE
    for k in range(count.shape[0]):
        score[k] = score[k] / total


@kernel
def total_visits(count: Counts) -> int:
    total = 0
    for k in range(count.shape[0]):
        total += max(int(count[k]), 0)
    return total


@kernel
def gumbel_interior_slot(full: bool, closed: Flags, count: Counts, score: Floats) -> int:
    """Slot that brings visit shares closest to the policy in `score` (Section 5, Danihelka et al.); NONE if
    none can be.
    """
    share = np.float32(1 + total_visits(count))
    least = 1 if full else 0
    for k in range(count.shape[0]):
        lead = score[k] - np.float32(count[k]) / share
        score[k] = MINUS_INF if (count[k] < least) | closed[k] else lead
    return argmax(score)


@kernel
def best_considered(
    wanted: int, full: bool, blocked: Flags, gumbel: Floats, count: Counts, logit: Floats, score: Floats
) -> int:
    """Root slot with the highest gumbel + logit + completed Q among those with `wanted` visits.

    If none of these can be chosen, which takes a full tree, the best of the others. `score` holds the
    completed Q.
    """
    top = MINUS_INF
    for k in range(count.shape[0]):
        if count[k] >= 0 and not blocked[k]:
            top = max(top, logit[k])
    best, best_score, best_matches = NONE, MINUS_INF, False
    for k in range(count.shape[0]):
        if count[k] < 0 or blocked[k] or (full and count[k] == 0):
            continue
        total = max(LOW_SCORE, np.float32(gumbel[k] + np.float32(logit[k] - top)) + score[k])
        matches = count[k] == wanted
        if best == NONE or (matches and not best_matches) or (matches == best_matches and total > best_score):
            best, best_score, best_matches = k, total, matches
    return best


@kernel
def shut(tree: Tree, rules: Rules, root: RootRules, b: int, node: int, closed: Flags) -> None:
    """Mark in `closed` bool [K] the slots of `node` that must not be followed: masked at the root, or
    settled.
    """
    for k in range(closed.shape[0]):
        closed[k] = node == ROOT and root.blocked[b, k]
        if rules.skip_exhausted and tree.child[b, node, k] != NONE:
            closed[k] = closed[k] or tree.exhausted[b, tree.child[b, node, k]]


@kernel
def choose(tree: Tree, rules: Rules, root: RootRules, b: int, node: int, closed: Flags, score: Floats) -> int:
    """Slot to follow from `node`, NONE if none can be chosen. `closed` and `score` are scratch, both [K]."""
    count, q, prior = tree.edge_visits[b, node], tree.edge_q[b, node], tree.prior[b, node]
    shut(tree, rules, root, b, node, closed)
    full = tree.size[b] >= tree.visits.shape[1]
    if rules.method == PUCT:
        visits = np.float32(tree.visits[b, node] + tree.inflight[b, node])
        value = node_value(tree, b, node)
        return puct_slot(
            rules, visits, value, tree.q_low[b], tree.q_high[b], full, closed, count, q, prior, score
        )
    complete_q(rules, tree.raw_value[b, node], tree.q_low[b], tree.q_high[b], count, q, prior, score)
    if node == ROOT:
        turn = min(total_visits(count), root.table.shape[1] - 1)
        wanted = root.table[root.considered[b], turn]
        return best_considered(wanted, full, closed, root.gumbel[b], count, tree.logit[b, node], score)
    improved_policy(closed, count, tree.logit[b, node], score)
    return gumbel_interior_slot(full, closed, count, score)


@kernel
def descend(
    tree: Tree, rules: Rules, root: RootRules, b: int, closed: Flags, score: Floats
) -> tuple[int, int]:
    """Walk down to (node, slot): a new leaf under `node`, or slot NONE to back `node` up again, or slot
    COLLISION.
    """
    node = ROOT
    while True:
        ended = rules.stop_at_terminal and tree.terminal[b, node]
        if ended or tree.depth[b, node] >= rules.max_depth:
            return node, NONE
        slot = choose(tree, rules, root, b, node, closed, score)
        if slot == NONE:
            return node, NONE
        child = tree.child[b, node, slot]
        if child == NONE:
            return node, slot
        if tree.visits[b, child] == 0:
            return node, COLLISION
        node = int(child)


@kernel
def refresh_edge(tree: Tree, rules: Rules, b: int, node: int) -> None:
    """Bring count and Q of the edge into `node` up to date.

    A visit in flight counts as one that returned the child's mean minus the virtual loss. A child that waits
    for its
    first evaluation has no mean yet: its parent's value stands in for Q.
    """
    above, slot = int(tree.parent[b, node]), int(tree.parent_slot[b, node])
    seen, pending = tree.visits[b, node], tree.inflight[b, node]
    tree.edge_visits[b, above, slot] = seen + pending
    if seen == 0:
        tree.edge_q[b, above, slot] = node_value(tree, b, above) - rules.virtual_loss
        return
    mean = node_value(tree, b, node)
    if pending > 0:
        mean = np.float32(
            mean - rules.virtual_loss * np.float32(np.float32(pending) / np.float32(seen + pending))
        )
    tree.edge_q[b, above, slot] = np.float32(tree.reward[b, above, slot] + np.float32(rules.discount * mean))


@kernel
def reserve(tree: Tree, rules: Rules, b: int, node: int, slot: int) -> int:
    """Give a new leaf its slot in the tree and mark the path to it as in flight."""
    leaf = int(tree.size[b])
    tree.size[b] = leaf + 1
    tree.parent[b, leaf] = node
    tree.parent_slot[b, leaf] = slot
    tree.depth[b, leaf] = tree.depth[b, node] + 1
    tree.child[b, node, slot] = leaf
    above = leaf
    while above != ROOT:
        tree.inflight[b, above] += 1
        refresh_edge(tree, rules, b, above)
        above = int(tree.parent[b, above])
    tree.inflight[b, ROOT] += 1
    return leaf


@kernel
def widen(tree: Tree, b: int, q: np.float32) -> None:
    tree.q_low[b] = min(tree.q_low[b], q)
    tree.q_high[b] = max(tree.q_high[b], q)


@kernel
def back_up(tree: Tree, rules: Rules, b: int, leaf: int, landed: int) -> None:
    """Add the raw value of `leaf` along its path. `landed` is 1 if the path was in flight, else 0."""
    value = tree.raw_value[b, leaf]
    node = leaf
    while True:
        tree.value_sum[b, node] += np.float64(value)
        tree.visits[b, node] += 1
        tree.inflight[b, node] -= landed
        if node == ROOT:
            break
        refresh_edge(tree, rules, b, node)
        above, slot = int(tree.parent[b, node]), int(tree.parent_slot[b, node])
        if rules.rescale == WHOLE_TREE and tree.inflight[b, node] == 0:
            widen(tree, b, tree.edge_q[b, above, slot])
        value = np.float32(tree.reward[b, above, slot] + rules.discount * value)
        node = above
    if rules.rescale == WHOLE_TREE:
        widen(tree, b, node_value(tree, b, ROOT))


@kernel
def note_solution(tree: Tree, rules: Rules, progress: Progress, b: int, node: int) -> None:
    if (
        tree.terminal[b, node]
        and tree.raw_value[b, node] >= rules.solution_value
        and progress.solution[b] == NONE
    ):
        progress.solution[b] = node


@kernel
def settle(tree: Tree, root: RootRules, progress: Progress, b: int, leaf: int) -> None:
    """Mark a terminal leaf as exhausted, and every node above whose candidates all are. A settled root ends
    the search of its tree.
    """
    node = leaf
    tree.exhausted[b, node] = True
    while node != ROOT:
        node = int(tree.parent[b, node])
        for k in range(tree.child.shape[2]):
            if tree.action[b, node, k] == NONE or (node == ROOT and root.blocked[b, k]):
                continue
            child = tree.child[b, node, k]
            if child == NONE or not tree.exhausted[b, child]:
                return
        tree.exhausted[b, node] = True
    progress.idle[b] = True


@kernel
def select(
    tree: Tree,
    rules: Rules,
    root: RootRules,
    progress: Progress,
    leaves: Leaves,
    closed: Flags,
    score: Floats,
) -> int:
    """Collect up to `rules.leaves` new leaves per unfinished tree; returns how many there are in all.

    Selections that end in a known node are backed up on the spot, so every unfinished tree contributes at
    least one new leaf or ends here. A selection that meets a leaf pending in this step ends the tree's share
    of the step, uncounted: nothing has been marked for it, and it would only be repeated.
    """
    total = 0
    for b in range(tree.size.shape[0]):
        if progress.idle[b] or (rules.stop_on_solution and progress.solution[b] != NONE):
            continue
        fresh = 0
        while fresh < rules.leaves and progress.done[b] < rules.simulations:
            node, slot = descend(tree, rules, root, b, closed, score)
            if slot == COLLISION:
                break
            progress.done[b] += 1
            if slot == NONE:
                back_up(tree, rules, b, node, 0)
                continue
            leaves.row[total] = b
            leaves.node[total] = reserve(tree, rules, b, node, slot)
            leaves.state[total] = tree.state[b, node]
            leaves.action[total] = tree.action[b, node, slot]
            total += 1
            fresh += 1
    return total


@kernel
def store(
    tree: Tree,
    b: int,
    node: int,
    i: int,
    blocked: Flags,
    actions: Ids,
    logits: Floats,
    value: Floats,
    terminal: Flags,
    state: Ids,
) -> None:
    """Write row `i` of an evaluation into a node. The prior is the softmax of the logits over slots not
    `blocked`.
    """
    tree.raw_value[b, node] = value[i]
    tree.terminal[b, node] = terminal[i]
    tree.state[b, node] = state[i]
    for k in range(actions.shape[1]):
        if actions[i, k] != -1:
            tree.action[b, node, k] = actions[i, k]
            tree.logit[b, node, k] = logits[i, k]
            tree.edge_visits[b, node, k] = 0
    improved_policy(blocked, tree.edge_visits[b, node], tree.logit[b, node], tree.prior[b, node])


@kernel
def plant(
    tree: Tree,
    rules: Rules,
    progress: Progress,
    blocked: Flags,
    actions: Ids,
    logits: Floats,
    value: Floats,
    terminal: Flags,
    state: Ids,
) -> None:
    """Make row `b` of the root evaluation the root of tree `b`, visited once."""
    for b in range(tree.size.shape[0]):
        store(tree, b, ROOT, b, blocked[b], actions, logits, value, terminal, state)
        tree.size[b] = 1
        tree.visits[b, ROOT] = 1
        tree.value_sum[b, ROOT] = np.float64(value[b])
        tree.q_low[b] = value[b]
        tree.q_high[b] = value[b]
        note_solution(tree, rules, progress, b, ROOT)


@kernel
def expand(
    tree: Tree,
    rules: Rules,
    root: RootRules,
    progress: Progress,
    leaves: Leaves,
    open_slots: Flags,
    actions: Ids,
    logits: Floats,
    value: Floats,
    reward: Floats,
    terminal: Flags,
    state: Ids,
) -> None:
    """Fill the pending leaves of a step from their evaluation and back each one up, in order."""
    for i in range(actions.shape[0]):
        b, node = int(leaves.row[i]), int(leaves.node[i])
        store(tree, b, node, i, open_slots, actions, logits, value, terminal, state)
        tree.reward[b, tree.parent[b, node], tree.parent_slot[b, node]] = reward[i]
        back_up(tree, rules, b, node, 1)
        if rules.skip_exhausted and rules.stop_at_terminal and terminal[i]:
            settle(tree, root, progress, b, node)
        note_solution(tree, rules, progress, b, node)


@kernel
def gumbel_answer(
    tree: Tree, rules: Rules, root: RootRules, avoided: Flags, weights: Floats, chosen: Ids
) -> None:
    """softmax(logits + completed Q) into `weights` f32 [B, K]; the best slot among the most visited that are
    not `avoided` bool [B, K] into `chosen` i64 [B].
    """
    for b in range(tree.size.shape[0]):
        count, q, prior, logit = (
            tree.edge_visits[b, ROOT],
            tree.edge_q[b, ROOT],
            tree.prior[b, ROOT],
            tree.logit[b, ROOT],
        )
        score = weights[b]
        complete_q(rules, tree.raw_value[b, ROOT], tree.q_low[b], tree.q_high[b], count, q, prior, score)
        most = 0
        for k in range(count.shape[0]):
            if not avoided[b, k]:
                most = max(most, int(count[k]))
        chosen[b] = best_considered(most, False, avoided[b], root.gumbel[b], count, logit, score)
        improved_policy(root.blocked[b], count, logit, score)

"""Compiled kernels of frontier search: take the best unexpanded child of a whole tree, play on to an end,
repeat.

Every node that still has an unexpanded child waits in a binary heap of its tree, so that the best child
anywhere is found without a scan; what a play-out changes are the keys of the nodes above it, one heap repair
each. Kernels trust their inputs (`frontier.py` checks them) and draw no random numbers: noise is handed in.
They share nothing with `kernels.py`, where every simulation walks down from the root.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.compiled import kernel
from tokenzero.mcts.records import Frontier, FrontierProgress, FrontierRules, Rows, Walkers
from tokenzero.mcts.tree import LOST, NONE, ROOT, Tree

Ids = NDArray[np.int64]

EXPECTED, SAMPLING = 0, 1
FLOOR = 1e-4  # chance of success that is granted to every state, so that its logarithm is finite
MINUS_INF = np.float32(-np.inf)


@kernel
def ahead(front: Frontier, b: int, one: int, other: int) -> bool:
    """Whether node `one` is to be taken before `other`: higher key first, then the older node."""
    mine, theirs = front.key[b, one], front.key[b, other]
    return mine > theirs or (mine == theirs and one < other)


@kernel
def put(front: Frontier, b: int, at: int, node: int) -> None:
    front.heap[b, at] = node
    front.where[b, node] = at


@kernel
def repair(front: Frontier, b: int, node: int) -> None:
    """Move a waiting node, whose key has changed, to where it belongs in the heap."""
    at = int(front.where[b, node])
    while at > 0:
        above = (at - 1) // 2
        other = int(front.heap[b, above])
        if not ahead(front, b, node, other):
            break
        put(front, b, at, other)
        at = above
    while True:
        below = 2 * at + 1
        if below >= front.waiting[b]:
            break
        if below + 1 < front.waiting[b] and ahead(front, b, front.heap[b, below + 1], front.heap[b, below]):
            below += 1
        other = int(front.heap[b, below])
        if not ahead(front, b, other, node):
            break
        put(front, b, at, other)
        at = below
    put(front, b, at, node)


@kernel
def leave(front: Frontier, b: int, node: int) -> None:
    """Take a node out of the heap."""
    front.waiting[b] -= 1
    last = int(front.heap[b, front.waiting[b]])
    at = front.where[b, node]
    front.where[b, node] = NONE
    if last != node:
        put(front, b, at, last)
        repair(front, b, last)


@kernel
def next_slot(tree: Tree, front: Frontier, b: int, node: int) -> int:
    """Unexpanded slot of `node` with the highest bonus, the lowest of equals; NONE if there is none."""
    best, top = NONE, MINUS_INF
    for k in range(tree.child.shape[2]):
        free = tree.child[b, node, k] == NONE and not tree.closed[b, node, k]
        if free and (best == NONE or front.bonus[b, node, k] > top):
            best, top = k, front.bonus[b, node, k]
    return best


@kernel
def node_term(tree: Tree, rules: FrontierRules, front: Frontier, b: int, node: int) -> float:
    """What all unexpanded children of `node` have in common: the logarithm of the chance to succeed from
    there per token still to pay. Rollouts through the node are smoothed by its own value, worth
    `value_weight` of them.
    """
    if rules.score == SAMPLING:
        return 0.0
    rollouts = float(tree.visits[b, node])
    wins = 0.5 * (tree.value_sum[b, node] + rollouts)
    believed = 0.5 * (float(tree.raw_value[b, node]) + 1.0)
    known = rollouts + rules.value_weight
    chance = (wins + rules.value_weight * believed) / known if known > 0.0 else believed
    chance = min(1.0, max(0.0, chance))
    left = max(1, int(front.longest[b]) - int(tree.depth[b, node]))
    return math.log(chance + FLOOR) - rules.cost_exponent * math.log(float(left))


@kernel
def refresh(tree: Tree, rules: FrontierRules, front: Frontier, b: int, node: int) -> None:
    """Bring a waiting node's key up to date."""
    if front.where[b, node] != NONE:
        slot = front.best[b, node]
        term = node_term(tree, rules, front, b, node)
        front.key[b, node] = np.float32(term + float(front.bonus[b, node, slot]))
        repair(front, b, node)


@kernel
def offer_next(tree: Tree, rules: FrontierRules, front: Frontier, b: int, node: int) -> None:
    """Have a waiting node offer its best slot now; without one it waits no longer."""
    front.best[b, node] = next_slot(tree, front, b, node)
    if front.best[b, node] == NONE:
        leave(front, b, node)
    else:
        refresh(tree, rules, front, b, node)


@kernel
def sampled_slot(tree: Tree, front: Frontier, b: int, node: int) -> int:
    """Unexpanded slot of `node` drawn from the prior by the node's own uniform number; NONE if there is
    none."""
    total, last = 0.0, NONE
    for k in range(tree.child.shape[2]):
        if tree.child[b, node, k] == NONE and not tree.closed[b, node, k]:
            total += float(tree.prior[b, node, k])
            last = k
    passed, target = 0.0, total * front.uniform[b, node]
    for k in range(tree.child.shape[2]):
        if tree.child[b, node, k] == NONE and not tree.closed[b, node, k]:
            passed += float(tree.prior[b, node, k])
            if passed > target:
                return k
    return last


@kernel
def take(tree: Tree, rules: FrontierRules, front: Frontier, b: int, node: int, slot: int) -> int:
    """Make a child in `slot` of `node`, to be evaluated; the node waits on with its next best slot."""
    leaf = int(tree.size[b])
    tree.size[b] = leaf + 1
    tree.parent[b, leaf] = node
    tree.parent_slot[b, leaf] = slot
    tree.depth[b, leaf] = tree.depth[b, node] + 1
    tree.deepest[b] = max(tree.deepest[b], tree.depth[b, leaf])
    tree.child[b, node, slot] = leaf
    front.where[b, leaf] = NONE
    if front.best[b, node] == slot:
        offer_next(tree, rules, front, b, node)
    return leaf


@kernel
def set_out(tree: Tree, rules: FrontierRules, front: Frontier, b: int, node: int) -> None:
    """Count a play-out that begins below `node`, as lost until it ends."""
    while node != NONE:
        tree.visits[b, node] += 1
        tree.value_sum[b, node] -= 1.0
        refresh(tree, rules, front, b, node)
        node = int(tree.parent[b, node])


@kernel
def arrive(
    tree: Tree, rules: FrontierRules, front: Frontier, b: int, leaf: int, outcome: float, solved: int
) -> None:
    """Credit the play-out that ends in `leaf` with its outcome in [-1, 1]."""
    node = leaf
    while node != NONE:
        tree.value_sum[b, node] += outcome + 1.0
        front.solutions[b, node] += solved
        refresh(tree, rules, front, b, node)
        node = int(tree.parent[b, node])


@kernel
def settle(tree: Tree, b: int, node: int) -> None:
    """Mark `node` as exhausted, and every node above it all of whose children are."""
    tree.exhausted[b, node] = True
    while node != ROOT:
        node = int(tree.parent[b, node])
        for k in range(tree.child.shape[2]):
            if tree.action[b, node, k] == NONE or tree.closed[b, node, k]:
                continue
            child = tree.child[b, node, k]
            if child == NONE or (child != LOST and not tree.exhausted[b, child]):
                return
        tree.exhausted[b, node] = True


@kernel
def forget(tree: Tree, b: int, leaf: int) -> None:
    """Take back the newest node, an end that lost: it was free of charge, and there may be very many of
    them."""
    above, slot = tree.parent[b, leaf], tree.parent_slot[b, leaf]
    tree.size[b] = leaf
    tree.child[b, above, slot] = LOST
    tree.edge_visits[b, above, slot] = 1
    tree.edge_q[b, above, slot] = -1.0


@kernel
def set_bonus(tree: Tree, rules: FrontierRules, front: Frontier, b: int, node: int) -> None:
    """Turn the Gumbel noise in a new node's `bonus` into the part of its children's scores that never
    changes.

    SAMPLING: perturbed log-probabilities whose maximum is the node's own (Kool et al., arXiv:1903.06059,
    equation 10), so that ends are reached in the order of a sample without replacement.
    """
    bonus, prior = front.bonus[b, node], tree.prior[b, node]
    if rules.score == EXPECTED:
        for k in range(bonus.shape[0]):
            if not tree.closed[b, node, k]:
                likely = math.log(max(float(prior[k]), 1e-30))
                bonus[k] = np.float32(rules.prior_exponent * likely + rules.noise * float(bonus[k]))
        return
    top = -math.inf
    for k in range(bonus.shape[0]):
        if not tree.closed[b, node, k]:
            likely = front.likely[b, node] + math.log(max(float(prior[k]), 1e-30))
            bonus[k] = np.float32(likely + float(bonus[k]))
            top = max(top, float(bonus[k]))
    for k in range(bonus.shape[0]):
        if not tree.closed[b, node, k]:
            mine = float(bonus[k])
            v = front.perturbed[b, node] - mine + math.log1p(-math.exp(min(mine - top, -1e-12)))
            own = front.perturbed[b, node] - max(0.0, v) - math.log1p(math.exp(-abs(v)))
            bonus[k] = np.float32(front.perturbed[b, node] if mine == top else own)


@kernel
def store(tree: Tree, b: int, node: int, rows: Rows, i: int) -> None:
    """Write row `i` of an evaluation into a node; slots without a candidate are closed."""
    tree.raw_value[b, node] = rows.value[i]
    tree.terminal[b, node] = rows.terminal[i]
    tree.exhausted[b, node] = False
    tree.state[b, node] = rows.states[i]
    top = MINUS_INF
    for k in range(rows.actions.shape[1]):
        real = rows.actions[i, k] != NONE
        tree.action[b, node, k] = rows.actions[i, k]
        tree.logit[b, node, k] = rows.logits[i, k] if real else np.float32(0.0)
        tree.closed[b, node, k] = not real
        tree.child[b, node, k] = NONE
        tree.reward[b, node, k] = 0.0
        tree.edge_visits[b, node, k] = 0 if real else NONE
        tree.edge_q[b, node, k] = 0.0
        top = max(top, rows.logits[i, k] if real else MINUS_INF)
    top = np.float32(0.0) if top == MINUS_INF else top
    total = 0.0
    for k in range(rows.actions.shape[1]):
        if not tree.closed[b, node, k]:
            total += math.exp(float(tree.logit[b, node, k]) - float(top))
    for k in range(rows.actions.shape[1]):
        share = 0.0 if tree.closed[b, node, k] else math.exp(float(tree.logit[b, node, k]) - float(top))
        tree.prior[b, node, k] = np.float32(share / total) if total > 0.0 else np.float32(0.0)


@kernel
def wait(tree: Tree, rules: FrontierRules, front: Frontier, b: int, node: int) -> bool:
    """Put a new node into the heap; False if it has no child to offer."""
    slot = next_slot(tree, front, b, node)
    front.best[b, node] = slot
    if slot == NONE or tree.depth[b, node] >= front.longest[b]:
        return False
    at = front.waiting[b]
    front.waiting[b] += 1
    put(front, b, at, node)
    refresh(tree, rules, front, b, node)
    return True


@kernel
def plant(
    tree: Tree,
    rules: FrontierRules,
    front: Frontier,
    progress: FrontierProgress,
    places: Ids,
    rows: Rows,
) -> None:
    """Make row `i` of the root evaluation the root of tree `places[i]`; its noise is in place already."""
    for i in range(places.shape[0]):
        b = int(places[i])
        tree.size[b] = 1
        tree.parent[b, ROOT] = NONE
        tree.parent_slot[b, ROOT] = NONE
        tree.depth[b, ROOT] = 0
        tree.deepest[b] = 0
        tree.visits[b, ROOT] = 0
        tree.inflight[b, ROOT] = 0
        tree.value_sum[b, ROOT] = 0.0
        front.where[b, ROOT] = NONE
        front.waiting[b] = 0
        front.solutions[b, ROOT] = 0
        front.likely[b, ROOT] = 0.0
        front.perturbed[b, ROOT] = 0.0
        front.cursor[b, :] = NONE
        progress.spent[b] = 0
        progress.done[b] = 0
        progress.solution[b] = NONE
        progress.over[b] = rows.terminal[i]
        store(tree, b, ROOT, rows, i)
        if rows.terminal[i]:
            tree.exhausted[b, ROOT] = True
            if rows.value[i] >= rules.solution_value:
                progress.solution[b] = ROOT
                front.solutions[b, ROOT] = 1
            continue
        set_bonus(tree, rules, front, b, ROOT)
        if not wait(tree, rules, front, b, ROOT):
            tree.exhausted[b, ROOT] = True
            progress.over[b] = True
        if progress.budget[b] <= 0 or progress.rollouts[b] <= 0:
            progress.over[b] = True


@kernel
def select(
    tree: Tree,
    rules: FrontierRules,
    front: Frontier,
    progress: FrontierProgress,
    leaves: Walkers,
) -> int:
    """Collect one new leaf for every play-out under way and for those that can begin; returns how many in
    all.

    A leaf is counted as paid for before it is known whether it costs a token, so that a budget is never
    passed.
    """
    total = 0
    for b in range(tree.size.shape[0]):
        if progress.over[b]:
            continue
        pending = 0
        for w in range(front.cursor.shape[1]):
            if progress.spent[b] + pending >= progress.budget[b]:
                break
            node = int(front.cursor[b, w])
            if node != NONE:
                sampling = rules.score == SAMPLING
                slot = front.best[b, node] if sampling else sampled_slot(tree, front, b, node)
                if slot == NONE:  # others took all of its children: the play-out ends with the state's value
                    arrive(tree, rules, front, b, node, float(tree.raw_value[b, node]), 0)
                    front.cursor[b, w] = NONE
                    node = NONE
            if node == NONE:
                if front.waiting[b] == 0 or progress.done[b] >= progress.rollouts[b]:
                    continue
                node = int(front.heap[b, 0])
                slot = front.best[b, node]
                progress.done[b] += 1
                set_out(tree, rules, front, b, node)
            leaves.row[total] = b
            leaves.walker[total] = w
            leaves.node[total] = take(tree, rules, front, b, node, slot)
            leaves.state[total] = tree.state[b, node]
            leaves.action[total] = tree.action[b, node, slot]
            if rules.score == SAMPLING:
                front.likely[b, leaves.node[total]] = front.likely[b, node] + math.log(
                    max(float(tree.prior[b, node, slot]), 1e-30)
                )
                front.perturbed[b, leaves.node[total]] = float(front.bonus[b, node, slot])
            total += 1
            pending += 1
        if pending == 0:
            progress.over[b] = True
    return total


@kernel
def cut_short(tree: Tree, rules: FrontierRules, front: Frontier, progress: FrontierProgress, b: int) -> None:
    """End a search; play-outs under way count as their last state's value."""
    progress.over[b] = True
    for w in range(front.cursor.shape[1]):
        node = int(front.cursor[b, w])
        if node != NONE:
            arrive(tree, rules, front, b, node, float(tree.raw_value[b, node]), 0)
            front.cursor[b, w] = NONE


@kernel
def expand(
    tree: Tree,
    rules: FrontierRules,
    front: Frontier,
    progress: FrontierProgress,
    leaves: Walkers,
    rows: Rows,
) -> None:
    """Fill the pending leaves of a step from their evaluation, in order; play-outs that ended are
    credited."""
    for i in range(rows.value.shape[0]):
        b, node, w = int(leaves.row[i]), int(leaves.node[i]), int(leaves.walker[i])
        store(tree, b, node, rows, i)
        tree.visits[b, node] = 1
        tree.inflight[b, node] = 0
        tree.value_sum[b, node] = -1.0
        front.solutions[b, node] = 0
        front.cursor[b, w] = NONE
        if rows.terminal[i]:
            solved = rows.value[i] >= rules.solution_value
            progress.spent[b] += int(rules.paid_ends)
            arrive(tree, rules, front, b, node, float(rows.value[i]), 1 if solved else 0)
            settle(tree, b, node)
            if solved and progress.solution[b] == NONE:
                progress.solution[b] = node
                progress.over[b] = progress.over[b] or rules.stop_on_solution
            if rows.value[i] <= -1.0 and front.cursor.shape[1] == 1:  # nobody took a node after it
                forget(tree, b, node)
            continue
        progress.spent[b] += 1
        set_bonus(tree, rules, front, b, node)
        if wait(tree, rules, front, b, node):
            front.cursor[b, w] = node
        else:
            arrive(tree, rules, front, b, node, float(rows.value[i]), 0)
            settle(tree, b, node)
    for i in range(rows.value.shape[0]):
        b = int(leaves.row[i])
        if progress.spent[b] >= progress.budget[b] or progress.over[b]:
            cut_short(tree, rules, front, progress, b)


@kernel
def finish(
    tree: Tree, rules: FrontierRules, front: Frontier, progress: FrontierProgress, places: Ids
) -> None:
    """End the searches at `places`."""
    for i in range(places.shape[0]):
        cut_short(tree, rules, front, progress, int(places[i]))


@kernel
def strip_bonus(tree: Tree, rules: FrontierRules, front: Frontier, rows: Ids, nodes: Ids) -> None:
    """Turn the bonus of nodes back into noise, before their candidates are rewritten."""
    for i in range(rows.shape[0]):
        b, node = int(rows[i]), int(nodes[i])
        for k in range(tree.child.shape[2]):
            if not tree.closed[b, node, k]:
                likely = math.log(max(float(tree.prior[b, node, k]), 1e-30))
                rest = float(front.bonus[b, node, k]) - rules.prior_exponent * likely
                noise = rest / rules.noise if rules.noise > 0.0 else 0.0
                front.bonus[b, node, k] = np.float32(noise)


@kernel
def reprice(tree: Tree, rules: FrontierRules, front: Frontier, rows: Ids, nodes: Ids) -> None:
    """Give nodes with rewritten candidates the places in the heap that their new scores deserve."""
    for i in range(rows.shape[0]):
        b, node = int(rows[i]), int(nodes[i])
        set_bonus(tree, rules, front, b, node)
        if front.where[b, node] == NONE:
            wait(tree, rules, front, b, node)
            continue
        offer_next(tree, rules, front, b, node)


@kernel
def read_root(tree: Tree, front: Frontier, places: Ids) -> None:
    """Bring the statistics of the root's edges up to date, for whoever reads them."""
    for i in range(places.shape[0]):
        b = int(places[i])
        for k in range(tree.child.shape[2]):
            child = tree.child[b, ROOT, k]
            if child >= 0:
                tree.edge_visits[b, ROOT, k] = tree.visits[b, child]
                tree.edge_q[b, ROOT, k] = np.float32(tree.value_sum[b, child] / tree.visits[b, child])

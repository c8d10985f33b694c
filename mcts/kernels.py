"""Compiled kernels of the search: choose, descend, expand, back up, summarise.

They trust their inputs (`pool.py` checks them), draw no random numbers, call no evaluator and write only the
tree and the buffers passed in. Ties go to the lowest slot. Scores are float32 with the roundings of mctx, so
that visit counts agree; every operation gives the same bits compiled and interpreted.

Loops over slots are written so that the compiler turns them into vector instructions: no branches, few arrays
written at once, and sums and extremes taken over integers (`ordered`, `rank`), since floats may not be
reordered. All kernels that call each other live in this file because cached compilation does not see changes
in other files.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.compiled import kernel
from tokenzero.mcts.records import Leaves, Progress, RootRules, Rows, Rules
from tokenzero.mcts.tree import NONE, ROOT, Tree

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

NOTHING = np.int32(0)
SIGN_BIT, OTHER_BITS = np.int32(31), np.int32(0x7FFFFFFF)
NO_SLOT = np.int64(1 - 2**63)  # below every rank (at the very least integer the compiler makes branches)
LOW_HALF = np.int64(0xFFFFFFFF)
HALF = np.int64(32)

LOG2_E, LN_2 = np.float64(1 / math.log(2)), np.float64(math.log(2))
TO_WHOLE = np.float64(1.5 * 2**52)  # adding and taking it away rounds a float64 to a whole number
LEAST_EXPONENT = np.float64(-104.0)  # exp of it rounds to 0 in float32
PARTS = np.float64(2**40)  # what 1 is made of where shares are summed
MANTISSA_BITS, EXPONENT_BIAS = np.int64(52), np.int64(1023)


@kernel
def exp(x: np.float32) -> np.float32:
    """exp(x) for x <= 0: a Taylor series in float64 on what is left of x after whole powers of 2, exact to
    1e-14. Calls no library, so that loops around it become vector code.
    """
    power = max(np.float64(x), LEAST_EXPONENT) * LOG2_E
    whole = (power + TO_WHOLE) - TO_WHOLE
    r = (power - whole) * LN_2
    r2 = r * r
    r4 = r2 * r2
    tail = (1 / 40320 + r * (1 / 362880)) + r2 * (1 / 3628800 + r * (1 / 39916800))
    series = (1 / 24 + r * (1 / 120)) + r2 * (1 / 720 + r * (1 / 5040)) + r4 * tail
    series = ((1.0 + r) + r2 * (1 / 2 + r * (1 / 6))) + r4 * series
    scale = np.int64((np.int64(whole) + EXPONENT_BIAS) << MANTISSA_BITS).view(np.float64)
    return np.float32(series * scale)


@kernel
def ordered(x: np.float32) -> np.int32:
    """An integer that compares as `x` does among numbers that are not NaN. Its own inverse on the bits."""
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ ((bits >> SIGN_BIT) & OTHER_BITS))


@kernel
def unordered(i: np.int32) -> np.float32:
    """The number that `ordered` made `i` of."""
    return np.int32(i ^ ((i >> SIGN_BIT) & OTHER_BITS)).view(np.float32)


@kernel
def rank(score: np.float32, slot: int) -> np.int64:
    """An integer that compares by score first, and then puts the lowest slot highest."""
    return (np.int64(ordered(score)) << HALF) - np.int64(slot)


@kernel
def slot_of(best: np.int64) -> int:
    """Slot of a rank; NONE for NO_SLOT."""
    return NONE if best == NO_SLOT else int(-best & LOW_HALF)


@kernel
def node_value(tree: Tree, b: int, node: int) -> np.float32:
    return np.float32(tree.value_sum[b, node] / np.float64(tree.visits[b, node]))


@kernel
def total_visits(count: Counts) -> int:
    total = NOTHING
    for k in range(count.shape[0]):
        total = np.int32(total + max(count[k], NOTHING))
    return int(total)


@kernel
def exploration(rules: Rules) -> None:
    """Fill `rules.explore` f32 [V]: PUCT's factor on the prior for a node of v visits, v from 0
    (MuZero, Appendix B, arXiv:1911.08265).
    """
    for v in range(rules.explore.shape[0]):
        visits = np.float32(v)
        growth = np.float32((visits + rules.c_base + ONE) / rules.c_base)
        c = rules.c_init + np.float32(math.log(np.float64(growth)))
        rules.explore[v] = np.float32(math.sqrt(np.float64(visits))) * c


@kernel
def first_play(
    rules: Rules, value: np.float32, low: np.float32, spread: np.float32, count: Counts, prior: Floats
) -> np.float32:
    """What an unvisited child is worth on the scale of the rescaled Q (first-play urgency)."""
    if rules.fpu == FPU_MIN:
        return ZERO
    score = np.float32((value - low) / spread)
    if rules.fpu == FPU_REDUCTION:
        mass = ZERO
        for k in range(count.shape[0]):
            mass += prior[k] if count[k] > 0 else ZERO
        score -= rules.fpu_reduction * np.float32(math.sqrt(np.float64(mass)))
    return score


@kernel
def puct_slot(tree: Tree, rules: Rules, b: int, node: int, least: np.int32) -> int:
    """Open slot with at least `least` visits and the highest PUCT score (MuZero, Appendix B,
    arXiv:1911.08265); NONE if there is none.
    """
    count, q, prior = tree.edge_visits[b, node], tree.edge_q[b, node], tree.prior[b, node]
    closed = tree.closed[b, node]
    value = node_value(tree, b, node)
    low, high = tree.q_low[b], tree.q_high[b]
    if rules.rescale == SIBLINGS:
        bottom = top = middle = ordered(value)
        for k in range(count.shape[0]):
            x = ordered(q[k]) if count[k] > 0 else middle
            bottom, top = min(bottom, x), max(top, x)
        low, high = unordered(bottom), unordered(top)
    elif rules.rescale == UNSCALED:
        low, high = -ONE, ONE
    spread = max(np.float32(high - low), rules.min_spread)
    unvisited = first_play(rules, value, low, spread, count, prior)
    explore = rules.explore[tree.visits[b, node] + tree.inflight[b, node]]
    best = NO_SLOT
    for k in range(count.shape[0]):
        n = count[k]
        worth = np.float32((q[k] - low) / spread)
        worth = worth if n > 0 else unvisited
        total = np.float32(worth + np.float32(explore * prior[k]) / np.float32(np.int32(max(n, NOTHING) + 1)))
        mine = rank(total, k)
        best = max(best, NO_SLOT if (n < least) | closed[k] else mine)
    return slot_of(best)


@kernel
def mixed_value(raw: np.float32, count: Counts, q: Floats, prior: Floats) -> np.float32:
    """Value that stands in for unvisited children: Appendix D of Danihelka et al., ICLR 2022."""
    mass, weighted = ZERO, ZERO
    for k in range(count.shape[0]):
        p = max(TINY, prior[k]) if count[k] > 0 else ZERO
        mass += p
        weighted += np.float32(p * q[k])
    if mass == ZERO:
        return raw
    visits = np.float32(total_visits(count))
    return np.float32((raw + visits * np.float32(weighted / mass)) / (visits + ONE))


@kernel
def complete_q(tree: Tree, rules: Rules, b: int, node: int, score: Floats) -> None:
    """Fill `score` [K] with the scaled completed Q of every slot that holds a candidate (masked root slots
    too, as in mctx).
    """
    count, q, raw = tree.edge_visits[b, node], tree.edge_q[b, node], tree.raw_value[b, node]
    missing = mixed_value(raw, count, q, tree.prior[b, node]) if rules.use_mixed_value else raw
    low, high, most = tree.q_low[b], tree.q_high[b], NOTHING
    highest, lowest, middle = ordered(-MINUS_INF), ordered(MINUS_INF), ordered(missing)
    bottom, top = highest, lowest
    for k in range(count.shape[0]):
        n = count[k]
        x = ordered(q[k]) if n > 0 else middle
        bottom = min(bottom, x if n >= 0 else highest)
        top = max(top, x if n >= 0 else lowest)
        most = max(most, n)
    if rules.rescale == SIBLINGS:
        low, high = unordered(bottom), unordered(top)
    spread = max(np.float32(high - low), rules.min_spread)
    if rules.rescale == UNSCALED:
        low, spread = ZERO, ONE
    scale = np.float32((rules.maxvisit_init + np.float32(most)) * rules.value_scale)
    for k in range(count.shape[0]):
        worth = q[k] if count[k] > 0 else missing
        score[k] = scale * np.float32((worth - low) / spread)


@kernel
def improved_policy(closed: Flags, logit: Floats, score: Floats) -> None:
    """Turn `score` from completed Q into softmax(logits + completed Q); 0 in closed slots, which empty ones
    are.
    """
    top = ordered(MINUS_INF)
    for k in range(score.shape[0]):
        x = np.float32(logit[k] + score[k])
        x = MINUS_INF if closed[k] else x
        score[k] = x
        top = max(top, ordered(x))
    most = unordered(top)
    most = ZERO if most == MINUS_INF else most
    parts = np.int64(0)
    for k in range(score.shape[0]):
        p = exp(np.float32(score[k] - most))
        score[k] = p
        parts += np.int64(np.float64(p) * PARTS)
    total = np.float32(np.float64(parts) / PARTS)
    total = total if total > ZERO else ONE
    for k in range(score.shape[0]):
        score[k] = score[k] / total


@kernel
def gumbel_interior_slot(least: np.int32, closed: Flags, count: Counts, score: Floats) -> int:
    """Open slot with at least `least` visits that brings visit shares closest to the policy in `score`
    (Section 5, Danihelka et al.); NONE if there is none.
    """
    share = np.float32(1 + total_visits(count))
    best = NO_SLOT
    for k in range(count.shape[0]):
        lead = np.float32(score[k] - np.float32(count[k]) / share)
        mine = rank(lead, k)
        best = max(best, NO_SLOT if (count[k] < least) | closed[k] else mine)
    return slot_of(best)


@kernel
def best_considered(
    wanted: np.int32,
    least: np.int32,
    closed: Flags,
    gumbel: Floats,
    count: Counts,
    logit: Floats,
    score: Floats,
) -> int:
    """Open root slot with the highest gumbel + logit + completed Q among those with `wanted` visits.

    If none of these has at least `least` visits, which takes a full tree, the best of the others that do.
    `score` holds the completed Q.
    """
    top = ordered(MINUS_INF)
    for k in range(count.shape[0]):
        top = max(top, ordered(MINUS_INF if closed[k] else logit[k]))
    most = unordered(top)
    most = ZERO if most == MINUS_INF else most
    matching, other = NO_SLOT, NO_SLOT
    for k in range(count.shape[0]):
        total = np.float32(np.float32(gumbel[k] + np.float32(logit[k] - most)) + score[k])
        mine = rank(max(LOW_SCORE, total), k)
        mine = NO_SLOT if (count[k] < least) | closed[k] else mine
        matching = max(matching, mine if count[k] == wanted else NO_SLOT)
        other = max(other, mine)
    return slot_of(other if matching == NO_SLOT else matching)


@kernel
def choose(tree: Tree, rules: Rules, root: RootRules, b: int, node: int, score: Floats) -> int:
    """Slot to follow from `node`, NONE if none can be chosen. `score` [K] is scratch."""
    least = np.int32(tree.size[b] >= rules.capacity)  # a full tree follows only what it has
    if rules.method == PUCT:
        return puct_slot(tree, rules, b, node, least)
    count, logit, closed = tree.edge_visits[b, node], tree.logit[b, node], tree.closed[b, node]
    complete_q(tree, rules, b, node, score)
    if node == ROOT:
        wanted = root.plan[b, min(total_visits(count), root.plan.shape[1] - 1)]
        return best_considered(wanted, least, closed, root.gumbel[b], count, logit, score)
    improved_policy(closed, logit, score)
    return gumbel_interior_slot(least, closed, count, score)


@kernel
def descend(tree: Tree, rules: Rules, root: RootRules, b: int, score: Floats) -> tuple[int, int]:
    """Walk down to (node, slot): a new leaf under `node`, or slot NONE to back `node` up again, or slot
    COLLISION.
    """
    node = ROOT
    while True:
        ended = rules.stop_at_terminal and tree.terminal[b, node]
        if ended or tree.depth[b, node] >= rules.max_depth:
            return node, NONE
        slot = choose(tree, rules, root, b, node, score)
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
def clear(tree: Tree, b: int, leaf: int, node: int, slot: int) -> None:
    """Make `leaf` the newest node of tree `b`, below `slot` of `node` (NONE at the root), with nothing in
    it.
    """
    tree.size[b] = leaf + 1
    tree.parent[b, leaf] = node
    tree.parent_slot[b, leaf] = slot
    depth = np.int32(0) if leaf == ROOT else np.int32(tree.depth[b, node] + 1)
    tree.depth[b, leaf] = depth
    tree.deepest[b] = depth if leaf == ROOT else max(tree.deepest[b], depth)
    tree.visits[b, leaf] = 0
    tree.inflight[b, leaf] = 0
    tree.value_sum[b, leaf] = 0.0
    tree.terminal[b, leaf] = False
    tree.exhausted[b, leaf] = False


@kernel
def reserve(tree: Tree, rules: Rules, b: int, node: int, slot: int) -> int:
    """Give a new leaf its slot in the tree and, if more may follow in this step, mark the path to it as in
    flight.
    """
    leaf = int(tree.size[b])
    clear(tree, b, leaf, node, slot)
    tree.child[b, node, slot] = leaf
    if rules.leaves == 1:
        return leaf
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
def close(rules: Rules, progress: Progress, b: int) -> None:
    """End the search of tree `b` if its budget is spent, or a solution is found and enough."""
    if progress.done[b] >= progress.budget[b] or (rules.stop_on_solution and progress.solution[b] != NONE):
        progress.over[b] = True


@kernel
def settle(tree: Tree, progress: Progress, b: int, leaf: int) -> None:
    """Close the way into a terminal leaf, and into every node above that has no open slot left. A root
    without one ends the search of its tree.
    """
    node = leaf
    tree.exhausted[b, node] = True
    while node != ROOT:
        above = int(tree.parent[b, node])
        tree.closed[b, above, tree.parent_slot[b, node]] = True
        if not tree.closed[b, above].all():
            return
        node = above
        tree.exhausted[b, node] = True
    progress.over[b] = True


@kernel
def select(
    tree: Tree, rules: Rules, root: RootRules, progress: Progress, leaves: Leaves, score: Floats
) -> int:
    """Collect up to `rules.leaves` new leaves per unfinished tree; returns how many there are in all.

    Selections that end in a known node are backed up on the spot, so every unfinished tree contributes at
    least one new leaf or ends here. A selection that meets a leaf pending in this step ends the tree's share
    of the step, uncounted: nothing has been marked for it, and it would only be repeated.
    """
    total = 0
    for b in range(tree.size.shape[0]):
        if progress.over[b]:
            continue
        fresh = 0
        while fresh < rules.leaves and progress.done[b] < progress.budget[b]:
            node, slot = descend(tree, rules, root, b, score)
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
        if fresh == 0:
            close(rules, progress, b)
    return total


@kernel
def store(tree: Tree, b: int, node: int, rows: Rows, i: int) -> None:
    """Write row `i` of an evaluation into a node. Slots without a candidate are closed."""
    tree.raw_value[b, node] = rows.value[i]
    tree.terminal[b, node] = rows.terminal[i]
    tree.state[b, node] = rows.states[i]
    actions, logits = rows.actions[i], rows.logits[i]
    action, logit, count = tree.action[b, node], tree.logit[b, node], tree.edge_visits[b, node]
    closed = tree.closed[b, node]
    for k in range(actions.shape[0]):
        action[k] = actions[k]
    for k in range(actions.shape[0]):
        x = logits[k]
        logit[k] = ZERO if actions[k] == NONE else x
    for k in range(actions.shape[0]):
        closed[k] = actions[k] == NONE
    for k in range(actions.shape[0]):
        count[k] = -np.int32(closed[k])
    tree.edge_q[b, node, :] = ZERO
    tree.reward[b, node, :] = ZERO
    tree.prior[b, node, :] = ZERO
    tree.child[b, node, :] = NONE


@kernel
def plant(tree: Tree, rules: Rules, root: RootRules, progress: Progress, places: Ids, rows: Rows) -> None:
    """Make row `i` of the root evaluation the root of tree `places[i]`, visited once."""
    for i in range(places.shape[0]):
        b = places[i]
        clear(tree, b, ROOT, NONE, NONE)
        store(tree, b, ROOT, rows, i)
        for k in range(tree.closed.shape[2]):
            tree.closed[b, ROOT, k] |= root.blocked[b, k]
        improved_policy(tree.closed[b, ROOT], tree.logit[b, ROOT], tree.prior[b, ROOT])
        tree.visits[b, ROOT] = 1
        tree.value_sum[b, ROOT] = np.float64(rows.value[i])
        tree.q_low[b] = rows.value[i]
        tree.q_high[b] = rows.value[i]
        progress.solution[b] = NONE
        progress.over[b] = rules.stop_at_terminal and rows.terminal[i]
        note_solution(tree, rules, progress, b, ROOT)
        if root.blocked[b].all():
            progress.over[b] = True
        close(rules, progress, b)


@kernel
def expand(tree: Tree, rules: Rules, progress: Progress, leaves: Leaves, rows: Rows) -> None:
    """Fill the pending leaves of a step from their evaluation and back each one up, in order."""
    landed = 0 if rules.leaves == 1 else 1
    for i in range(rows.value.shape[0]):
        b, node = int(leaves.row[i]), int(leaves.node[i])
        store(tree, b, node, rows, i)
        improved_policy(tree.closed[b, node], tree.logit[b, node], tree.prior[b, node])
        tree.reward[b, tree.parent[b, node], tree.parent_slot[b, node]] = rows.reward[i]
        back_up(tree, rules, b, node, landed)
        if rules.skip_exhausted and rules.stop_at_terminal and rows.terminal[i]:
            settle(tree, progress, b, node)
        note_solution(tree, rules, progress, b, node)
        close(rules, progress, b)


@kernel
def gumbel_answer(
    tree: Tree, rules: Rules, root: RootRules, places: Ids, avoided: Flags, weights: Floats, chosen: Ids
) -> None:
    """softmax(logits + completed Q) into `weights` f32 [R, K]; the best slot among the most visited that are
    not `avoided` bool [R, K] into `chosen` i64 [R]; row `i` is tree `places[i]`.
    """
    for i in range(places.shape[0]):
        b = places[i]
        count, logit = tree.edge_visits[b, ROOT], tree.logit[b, ROOT]
        score = weights[i]
        complete_q(tree, rules, b, ROOT, score)
        most = NOTHING
        for k in range(count.shape[0]):
            most = most if avoided[i, k] else max(most, count[k])
        chosen[i] = best_considered(most, NOTHING, avoided[i], root.gumbel[b], count, logit, score)
        improved_policy(root.blocked[b], logit, score)


@kernel
def improved_policies(tree: Tree, rules: Rules, b: int, nodes: Ids, weights: Floats) -> None:
    """softmax(logits + completed Q) of `nodes` i64 [M] of tree `b` into `weights` f32 [M, K]."""
    for i in range(nodes.shape[0]):
        node = nodes[i]
        complete_q(tree, rules, b, node, weights[i])
        improved_policy(tree.closed[b, node], tree.logit[b, node], weights[i])

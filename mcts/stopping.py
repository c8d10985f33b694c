"""Ends a PUCT search before its budget is spent, when going on would change little or nothing.

Both rules look at the visits of the root's children between steps, when no evaluation is pending, and not
while carried simulations are being made again. They do not know why a search is made: see `SearchConfig` for
when not to use them. This kernel calls no other, so it can be cached in a file of its own.
"""

from __future__ import annotations

import math

from tokenzero.mcts.compiled import kernel
from tokenzero.mcts.records import Progress, Rules
from tokenzero.mcts.tree import ROOT, Tree


@kernel
def stop_early(tree: Tree, rules: Rules, progress: Progress) -> None:
    """Set `progress.over` for every tree that a rule ends.

    Smart pruning (Lc0): no other child can become the most visited one in the simulations left, ties going to
    the lowest slot. KLD gain (Lc0's KLDGainStopper): since the last look, at least `kld_interval` visits ago,
    KL(visits then || visits now) per new visit is below `min_kld_gain`; in this direction it is finite,
    since visits only grow.
    """
    for b in range(tree.size.shape[0]):
        if progress.over[b] or progress.done[b] < 0:
            continue
        count, before = tree.edge_visits[b, ROOT], progress.before[b]
        best, total, total_before = 0, 0, 0
        for k in range(count.shape[0]):
            total += max(count[k], 0)
            total_before += before[k]
            if count[k] > count[best]:
                best = k
        if rules.smart_pruning and total > 0:
            left = progress.budget[b] - progress.done[b]
            rivals = 0
            for k in range(count.shape[0]):
                lead = count[best] - count[k] - left  # over a child that gets every simulation left
                if k != best and count[k] >= 0 and (lead < 0 or (lead == 0 and k < best)):
                    rivals += 1
            if rivals == 0:
                progress.over[b] = True
        if rules.min_kld_gain > 0.0 and total - total_before >= rules.kld_interval:
            gain = 0.0
            for k in range(count.shape[0]):
                if before[k] > 0:
                    share = before[k] / total_before
                    gain += share * math.log(share / (count[k] / total))
                before[k] = max(count[k], 0)
            if total_before > 0 and gain / (total - total_before) < rules.min_kld_gain:
                progress.over[b] = True

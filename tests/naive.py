"""The search once more, slowly and plainly: one object per node, one tree at a time, no arrays shared with
the kernels.

It is the truth that the compiled kernels are compared with, bit for bit, so it rounds to float32 where they
do. It checks no input, draws no noise and is not part of the package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokenzero.mcts import Evaluator, SearchConfig

f32 = np.float32
ZERO = f32(0)


def exp32(x: np.float32) -> np.float32:
    return f32(math.exp(float(x)))


def softmax(values: dict[int, np.float32]) -> dict[int, np.float32]:
    """The sum is taken in whole parts of 2**-40, as in the kernels."""
    top = max(values.values(), default=f32(0))
    powers = {k: exp32(x - top) for k, x in values.items()}
    total = f32(sum(int(float(p) * 2**40) for p in powers.values()) / 2**40)
    return {k: p / total for k, p in powers.items()}


@dataclass
class Node:
    state: int
    raw: np.float32
    terminal: bool
    actions: dict[int, int]  # slot -> action, empty slots left out
    logits: dict[int, np.float32]
    prior: dict[int, np.float32]
    depth: int = 0
    parent: Node | None = None
    slot: int = -1
    reward: np.float32 = ZERO
    returns: list[np.float32] = field(default_factory=list)
    inflight: int = 0
    stand_in: np.float32 = ZERO  # Q while it waits for its first evaluation
    children: dict[int, Node] = field(default_factory=dict)

    @property
    def value(self) -> np.float32:
        return f32(sum(float(r) for r in self.returns) / len(self.returns))

    @property
    def count(self) -> int:
        return len(self.returns) + self.inflight


def visited(node: Node) -> list[int]:
    return [k for k in node.actions if k in node.children and node.children[k].count > 0]


class NaiveTree:
    """One tree. `evaluation` and `row` give the root; `blocked` are masked root slots."""

    def __init__(
        self, evaluation: Any, row: int, config: SearchConfig, blocked: set[int], gumbel: np.ndarray | None
    ) -> None:
        self.config = config
        self.blocked = blocked
        self.gumbel = gumbel
        self.root = self.new_node(evaluation, row, blocked)
        self.root.returns.append(self.root.raw)
        self.nodes = [self.root]
        self.low = self.high = self.root.raw
        self.done = 0
        self.solution = -1
        self.settled = False
        self.before: dict[int, int] = {}
        self.note_solution(self.root)

    @staticmethod
    def new_node(evaluation: Any, row: int, blocked: set[int]) -> Node:
        actions = {k: int(a) for k, a in enumerate(evaluation.actions[row]) if a != -1}
        logits = {k: f32(evaluation.logits[row][k]) for k in actions}
        prior = softmax({k: x for k, x in logits.items() if k not in blocked})
        prior = {k: prior.get(k, f32(0)) for k in actions}
        value, terminal = f32(evaluation.value[row]), bool(evaluation.terminal[row])
        return Node(int(evaluation.states[row]), value, terminal, actions, logits, prior)

    def q(self, node: Node, slot: int) -> np.float32:
        child = node.children[slot]
        if not child.returns:
            return child.stand_in
        mean = child.value
        if child.inflight:
            mean = f32(mean - f32(self.config.virtual_loss) * (f32(child.inflight) / f32(child.count)))
        return child.reward + f32(self.config.discount) * mean

    def shut(self, node: Node) -> set[int]:
        settled = {k for k, child in node.children.items() if self.exhausted(child)}
        return settled | (self.blocked if node is self.root else set())

    def exhausted(self, node: Node) -> bool:
        """Worked out anew from the leaves each time it is asked."""
        c = self.config
        if not (c.skip_exhausted and c.stop_at_terminal):
            return False
        if node.terminal:
            return bool(node.returns) and node is not self.root
        open_slots = [k for k in node.actions if not (node is self.root and k in self.blocked)]
        return bool(open_slots) and all(
            k in node.children and self.exhausted(node.children[k]) for k in open_slots
        )

    def lost(self) -> set[int]:
        """Root slots known to be lost, unless nothing else is open."""
        lost = {
            k
            for k, child in self.root.children.items()
            if self.exhausted(child) and self.q(self.root, k) < f32(self.config.solution_value)
        }
        return set() if lost | self.blocked >= set(self.root.actions) else lost

    def candidates(self, node: Node) -> list[int]:
        slots = [k for k in node.actions if k not in self.shut(node)]
        if len(self.nodes) >= self.config.nodes:
            slots = [k for k in slots if k in node.children]
        return slots

    def scale(self, node: Node) -> tuple[np.float32, np.float32]:
        """Bottom and width of the scale of Q at `node` under PUCT."""
        c, seen = self.config, [self.q(node, k) for k in visited(node)]
        if c.q_rescale == "siblings":
            low, high = min([node.value, *seen]), max([node.value, *seen])
        else:
            low, high = (self.low, self.high) if c.q_rescale == "tree" else (f32(-1), f32(1))
        return low, max(high - low, f32(c.min_spread))

    def explore(self, node: Node) -> np.float32:
        n, base = f32(node.count), f32(self.config.c_base)
        growth = (n + base + f32(1)) / base
        return f32(math.sqrt(float(n))) * (f32(self.config.c_init) + f32(math.log(float(growth))))

    def puct(self, node: Node) -> int | None:
        c = self.config
        seen = {k: self.q(node, k) for k in visited(node)}
        low, spread = self.scale(node)
        mass = f32(0)
        for k in seen:
            mass += node.prior[k]
        first_play = f32(0) if c.fpu == "min" else (node.value - low) / spread
        if c.fpu == "reduction":
            first_play -= f32(c.fpu_reduction) * f32(math.sqrt(float(mass)))
        explore = self.explore(node)
        best, best_score = None, f32(-np.inf)
        for k in self.candidates(node):
            children = node.children[k].count if k in seen else 0
            score = (seen[k] - low) / spread if k in seen else first_play
            score += explore * node.prior[k] / f32(children + 1)
            if best is None or score > best_score:
                best, best_score = k, score
        return best

    def completed(self, node: Node) -> dict[int, np.float32]:
        c = self.config
        seen = {k: self.q(node, k) for k in visited(node)}
        missing = node.raw
        if c.use_mixed_value and seen:
            visits, mass, weighted = f32(0), f32(0), f32(0)
            for k, q in seen.items():
                p = max(np.finfo(f32).tiny, node.prior[k])
                visits += f32(node.children[k].count)
                mass += p
                weighted += p * q
            missing = (node.raw + visits * (weighted / mass)) / (visits + f32(1))
        full = {k: seen.get(k, missing) for k in node.actions}
        if c.q_rescale == "none":
            low, spread = f32(0), f32(1)
        else:
            tree_wide = c.q_rescale == "tree"
            low, high = (self.low, self.high) if tree_wide else (min(full.values()), max(full.values()))
            spread = max(high - low, f32(c.min_spread))
        most = max([node.children[k].count for k in seen], default=0)
        scale = (f32(c.maxvisit_init) + f32(most)) * f32(c.value_scale)
        return {k: scale * ((q - low) / spread) for k, q in full.items()}

    def interior(self, node: Node) -> int | None:
        completed = self.completed(node) if node.actions else {}
        shut = self.shut(node)
        policy = softmax({k: node.logits[k] + completed[k] for k in node.actions if k not in shut})
        total = sum(node.children[k].count for k in visited(node))
        best, best_score = None, f32(-np.inf)
        for k in self.candidates(node):
            n = node.children[k].count if k in node.children else 0
            score = policy[k] - f32(n) / f32(1 + total)
            if best is None or score > best_score:
                best, best_score = k, score
        return best

    def best_considered(self, slots: list[int], shown: list[int], wanted: int) -> int | None:
        """`slots` may be chosen; `shown` are those and what a full tree has no room for."""
        completed = self.completed(self.root)
        top = max(self.root.logits[k] for k in shown)
        matching = [k for k in slots if self.root_count(k) == wanted]
        best, best_score = None, f32(-np.inf)
        for k in matching or slots:
            score = max(f32(-1e9), self.gumbel[k] + (self.root.logits[k] - top) + completed[k])
            if best is None or score > best_score:
                best, best_score = k, score
        return best

    def root_count(self, slot: int) -> int:
        return self.root.children[slot].count if slot in self.root.children else 0

    def halving(self) -> int | None:
        arms = min(self.config.considered, len(self.root.actions.keys() - self.blocked))
        turn = sum(self.root_count(k) for k in self.root.actions)
        wanted = halving_order(arms, self.config.simulations)[turn]
        shown = [k for k in self.root.actions if k not in self.shut(self.root)]
        return self.best_considered(self.candidates(self.root), shown, wanted)

    def choose(self, node: Node) -> int | None:
        if self.config.method == "puct":
            return self.puct(node)
        return self.halving() if node is self.root else self.interior(node)

    def back_up(self, leaf: Node, landed: bool) -> None:
        value, node = leaf.raw, leaf
        while node is not None:
            node.returns.append(value)
            node.inflight -= int(landed)
            if node.parent is not None and not node.inflight:
                q = self.q(node.parent, node.slot)
                self.low, self.high = min(self.low, q), max(self.high, q)
            value = node.reward + f32(self.config.discount) * value
            node = node.parent
        self.low, self.high = min(self.low, self.root.value), max(self.high, self.root.value)

    def note_solution(self, node: Node) -> None:
        if self.solution < 0 and node.terminal and node.raw >= f32(self.config.solution_value):
            self.solution = self.nodes.index(node) if node is not self.root else 0

    def finished(self) -> bool:
        c = self.config
        stuck = not (self.root.actions.keys() - self.blocked) or (self.root.terminal and c.stop_at_terminal)
        return (
            stuck
            or self.exhausted(self.root)
            or self.done >= c.simulations
            or (c.stop_on_solution and self.solution >= 0)
            or self.settled
        )

    def most_visited(self) -> int:
        return max(self.root.actions, key=lambda k: (self.root_count(k), -k))

    def look(self) -> None:
        """Between two steps: has the search settled? Played out, not worked out: give every other child all
        that is left and see whether it would be the most visited.
        """
        c, counts = self.config, self.root_counts()
        if not counts or not any(counts.values()):
            return
        if c.smart_pruning:
            best, left = self.most_visited(), c.simulations - self.done
            overtaken = False
            for rival in set(counts) - self.blocked - {best}:
                final = {**counts, rival: counts[rival] + left}
                overtaken |= max(final, key=lambda k: (final[k], -k)) == rival
            self.settled |= not overtaken
        new = sum(counts.values()) - sum(self.before.values())
        if c.min_kld_gain and new >= c.kld_interval:
            then, now = sum(self.before.values()), sum(counts.values())
            gain = 0.0
            for k, n in self.before.items():
                if n:
                    gain += n / then * math.log((n / then) / (counts[k] / now))
            self.settled |= then > 0 and gain / new < c.min_kld_gain
            self.before = counts

    def pruned(self) -> dict[int, int]:
        """Root visits without those that only exploration explains, taken away one by one."""
        root = self.root
        counts = self.root_counts()
        best = self.most_visited()
        prior = softmax({k: x for k, x in root.logits.items() if k not in self.blocked})
        low, spread = self.scale(root)

        def score(k: int, n: int) -> np.float32:
            return (self.q(root, k) - low) / spread + self.explore(root) * prior[k] / f32(n + 1)

        bound = score(best, counts[best]) if counts[best] else f32(0)
        for k in set(visited(root)) - {best}:
            while counts[k] > 0 and score(k, counts[k] - 1) < bound:
                counts[k] -= 1
            counts[k] = 0 if counts[k] == 1 else counts[k]
        return counts

    def step(self, evaluator: Evaluator) -> None:
        """Gather up to `leaves` new leaves, then evaluate and back up each."""
        c, pending = self.config, []
        while len(pending) < c.leaves and self.done < c.simulations:
            node, slot = self.root, None
            while True:
                if (node.terminal and c.stop_at_terminal) or (c.max_depth and node.depth >= c.max_depth):
                    slot = None
                    break
                slot = self.choose(node)
                if slot is None or slot not in node.children:
                    break
                node = node.children[slot]
                if not node.returns:
                    break
            if not node.returns:
                break  # met a leaf of this very step
            self.done += 1
            if slot is None:
                self.back_up(node, landed=False)
                continue
            pending.append(self.reserve(node, slot))
        for leaf in pending:
            action = leaf.parent.actions[leaf.slot]
            answer = evaluator.expand(np.array([leaf.parent.state]), np.array([action]))
            fresh = self.new_node(answer, 0, set())
            for name in ("state", "raw", "terminal", "actions", "logits", "prior"):
                setattr(leaf, name, getattr(fresh, name))
            leaf.reward = f32(answer.reward[0])
            self.back_up(leaf, landed=True)
            self.note_solution(leaf)

    def reserve(self, node: Node, slot: int) -> Node:
        leaf = Node(-1, f32(0), False, {}, {}, {}, depth=node.depth + 1, parent=node, slot=slot)
        leaf.stand_in = node.value - f32(self.config.virtual_loss)
        node.children[slot] = leaf
        self.nodes.append(leaf)
        above: Node | None = leaf
        while above is not None:
            above.inflight += 1
            above = above.parent
        return leaf

    def run(self, evaluator: Evaluator) -> NaiveTree:
        while not self.finished():
            self.step(evaluator)
            self.look()
        return self

    def root_counts(self) -> dict[int, int]:
        return {k: self.root_count(k) for k in self.root.actions}

    def weights(self, pruning: bool = True) -> dict[int, np.float32]:
        if self.config.method == "gumbel":
            completed = self.completed(self.root) if self.root.actions else {}
            return softmax(
                {k: self.root.logits[k] + completed[k] for k in self.root.actions if k not in self.blocked}
            )
        total = sum(self.root_count(k) for k in self.root.actions)
        if total == 0:
            return self.root.prior
        counts = self.pruned() if self.config.prune_targets and pruning else self.root_counts()
        return {k: f32(n / sum(counts.values())) for k, n in counts.items()}

    def chosen(self) -> int:
        """The proposed slot; for PUCT at temperature 0."""
        slots = [k for k in self.root.actions if k not in self.blocked]
        if not slots:
            return -1
        slots = [k for k in slots if k not in self.lost()]
        counts = {k: self.root_count(k) for k in slots}
        if self.config.method == "gumbel":
            return self.best_considered(slots, slots, max(counts.values()))
        weights = self.weights(pruning=False)
        if not any(weights[k] for k in slots):
            weights = self.root.prior
        return max(slots, key=lambda k: (weights[k], -k))


def halving_order(arms: int, budget: int) -> list[int]:
    """Sequential halving played out: run the phases and write down how often the arm visited next has been
    visited.
    """
    if arms <= 1:
        return list(range(budget))
    visits, order, phases = [0] * arms, [], math.ceil(math.log2(arms))
    alive = arms
    while len(order) < budget:
        rounds = max(1, int(budget / (phases * alive)))
        for _ in range(rounds):
            for arm in range(alive):
                order.append(visits[arm])
            for arm in range(alive):
                visits[arm] += 1
        alive = max(2, alive // 2)
    return order[:budget]

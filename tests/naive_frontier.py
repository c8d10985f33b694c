"""Frontier search as plainly as it can be written: lists of dictionaries, and a scan over everything each
time.

N and W are counted anew from the list of play-outs whenever a score is asked for. It draws its noise as
`FrontierPool` does (a block of nodes at a time) and rounds where the kernels round; nothing else is shared.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.frontier import NOISE_NODES
from tokenzero.mcts.tree import LOST

f32 = np.float32


class NaiveFrontier:
    """One tree over an environment with `expand`; `run()` searches to the end."""

    def __init__(
        self, root: dict[str, Any], env: Any, config: SearchConfig, rng: np.random.Generator
    ) -> None:
        self.env, self.config, self.rng = env, config, rng
        self.noise: list[tuple[np.ndarray, float]] = []
        self.nodes: list[dict[str, Any]] = []
        self.rollouts: list[dict[str, Any]] = []  # node it has come to, outcome (None: under way)
        self.tokens = 0
        self.add(root, None, None)

    def add(self, row: dict[str, Any], parent: int | None, slot: int | None) -> int:
        if len(self.nodes) >= len(self.noise):
            u = self.rng.random((NOISE_NODES, self.config.candidates), dtype=np.float32)
            gumbel = -np.log(-np.log(np.maximum(u, np.finfo(np.float32).tiny)))
            self.noise += list(zip(gumbel, self.rng.random(NOISE_NODES), strict=True))
        depth = 0 if parent is None else self.nodes[parent]["depth"] + 1
        node = {**row, "parent": parent, "slot": slot, "depth": depth, "children": {}, "revised": False}
        node["gumbel"], node["uniform"] = self.noise[len(self.nodes)]
        self.price(node)
        self.nodes.append(node)
        return len(self.nodes) - 1

    def price(self, node: dict[str, Any]) -> None:
        """Prior and fixed part of the score of every candidate."""
        row, gumbel = node, node["gumbel"]
        slots = [k for k, action in enumerate(row["actions"]) if action != -1]
        top = max((float(row["logits"][k]) for k in slots), default=0.0)
        top = 0.0 if top == -math.inf else top
        odds = {k: math.exp(float(row["logits"][k]) - top) for k in slots}
        total = 0.0
        for k in slots:
            total += odds[k]
        node["prior"] = {k: f32(odds[k] / total) for k in slots}
        tau, g = self.config.prior_exponent, self.config.frontier_noise
        log = {k: math.log(max(float(node["prior"][k]), 1e-30)) for k in slots}
        node["bonus"] = {k: f32(tau * log[k] + g * float(gumbel[k])) for k in slots}

    def revise(self, reviser: Any) -> None:
        """Ask anew about every node that has just had its share of play-outs."""
        for number, node in enumerate(self.nodes[1:], 1):
            visits = sum(number in self.path(rollout["at"]) for rollout in self.rollouts)
            if node["revised"] or visits < self.config.revise_visits:
                continue
            node["revised"] = True
            if not self.exhausted(number):
                node["actions"], node["logits"] = reviser(node["state"])
                self.price(node)

    def path(self, node: int | None) -> list[int]:
        found = []
        while node is not None:
            found.append(node)
            node = self.nodes[node]["parent"]
        return found

    def open_slots(self, node: int) -> list[int]:
        record = self.nodes[node]
        if record["terminal"] or record["depth"] >= self.config.max_depth:
            return []
        return [k for k in record["prior"] if k not in record["children"]]

    def score(self, node: int, slot: int) -> np.float32:
        n, w, kappa = 0, 0.0, self.config.value_weight
        for rollout in self.rollouts:
            if node in self.path(rollout["at"]):
                n += 1
                w += 0.0 if rollout["outcome"] is None else 0.5 * (rollout["outcome"] + 1.0)
        v = 0.5 * (float(self.nodes[node]["value"]) + 1.0)
        chance = (w + kappa * v) / (n + kappa) if n + kappa > 0 else v
        left = max(1, self.config.max_depth - self.nodes[node]["depth"])
        term = math.log(min(1.0, max(0.0, chance)) + 1e-4) - self.config.cost_exponent * math.log(left)
        return f32(term + float(self.nodes[node]["bonus"][slot]))

    def best(self) -> tuple[int, int] | None:
        options = [(node, slot) for node in range(len(self.nodes)) for slot in self.open_slots(node)]
        if not options:
            return None
        # The older node and the lower slot win ties. A node offers its slot of highest bonus.
        return max(options, key=lambda o: (self.score(*o), -o[0], self.nodes[o[0]]["bonus"][o[1]], -o[1]))

    def sampled(self, node: int) -> int | None:
        slots = self.open_slots(node)
        total = 0.0
        for k in slots:
            total += float(self.nodes[node]["prior"][k])
        target, passed = total * self.nodes[node]["uniform"], 0.0
        for k in slots:
            passed += float(self.nodes[node]["prior"][k])
            if passed > target:
                return k
        return slots[-1] if slots else None

    def run(self, reviser: Any = None) -> None:
        config = self.config
        walkers: list[dict[str, Any] | None] = [None] * config.leaves
        while True:
            pending: list[tuple[int, dict[str, Any], int, int]] = []
            for w in range(config.leaves):
                if config.tokens is not None and self.tokens + len(pending) >= config.tokens:
                    break
                rollout, move = walkers[w], None
                if rollout is not None:
                    slot = self.sampled(rollout["at"])
                    if slot is None:
                        rollout["outcome"] = float(self.nodes[rollout["at"]]["value"])
                        rollout = None
                    else:
                        move = (rollout["at"], slot)
                if rollout is None:
                    if config.tokens is None and len(self.rollouts) >= config.simulations:
                        continue
                    move = self.best()
                    if move is None:
                        continue
                    rollout = {"at": move[0], "outcome": None}
                    self.rollouts.append(rollout)
                assert move is not None
                self.nodes[move[0]]["children"][move[1]] = -1  # taken
                pending.append((w, rollout, *move))
            if not pending:
                return
            rows = self.env([self.nodes[node]["state"] for _, _, node, _ in pending],
                            [self.nodes[node]["actions"][slot] for _, _, node, slot in pending])  # fmt: skip
            stop = False
            for (w, rollout, node, slot), row in zip(pending, rows, strict=True):
                leaf = self.add(row, node, slot)
                self.nodes[node]["children"][slot] = leaf
                rollout["at"] = leaf
                walkers[w] = rollout
                self.tokens += not row["terminal"]
                if not self.open_slots(leaf):
                    rollout["outcome"] = float(row["value"])
                    walkers[w] = None
                if row["terminal"] and row["value"] <= -1.0 and config.leaves == 1:
                    self.nodes.pop()  # an end that lost is counted above it and forgotten
                    self.nodes[node]["children"][slot] = LOST
                    rollout["at"] = node
                stop |= bool(row["terminal"] and row["value"] >= 1.0 and config.stop_on_solution)
            if stop or (config.tokens is not None and self.tokens >= config.tokens):
                for left in walkers:
                    if left is not None:
                        left["outcome"] = float(self.nodes[left["at"]]["value"])
                return
            if config.revise_visits:
                self.revise(reviser)

    def statistics(self, node: int) -> tuple[int, float, int]:
        """Play-outs through a node, the sum of their outcomes, distinct solutions at or below it."""
        through = [r for r in self.rollouts if node in self.path(r["at"])]
        solved = [n for n, record in enumerate(self.nodes) if record["terminal"] and record["value"] >= 1.0]
        return (
            len(through),
            sum(r["outcome"] for r in through),
            sum(node in self.path(leaf) for leaf in solved),
        )

    def exhausted(self, node: int) -> bool:
        record = self.nodes[node]
        if not record["prior"] or record["terminal"] or record["depth"] >= self.config.max_depth:
            return True
        below = [record["children"].get(k) for k in record["prior"]]
        return all(child is not None and (child == LOST or self.exhausted(child)) for child in below)

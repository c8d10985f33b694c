"""A search tree as it is kept for people to look at: plain arrays, texts, and the order in which it grew.

It is made from a live tree (``record``); what a stored episode still knows is in ``episode_tree``. It draws
nothing and writes no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import NONE, ROOT, Tree
from tokenzero.mcts.history import History
from tokenzero.mcts.tree import LOST
from tokenzero.selfplay.state_table import StateTable

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Setting = str | int | float | bool | None
Counted = Literal["visits", "states"]


@dataclass(slots=True)
class RecordedTree:
    """A tree of n nodes, parents before their children; node 0 is the state that was searched from.

    ``prompt`` of the problem, ``before`` the answer so far at node 0, ``position`` tokens long. ``parent``
    i32 [n] (-1 at the root); ``actions`` token ids of the action that leads to a node (empty at the root),
    ``text`` its text.
    ``visits`` i32 [n]; ``value`` f32 [n] the mean of what was backed up (Q of the action, from the parent's
    side without the edge's ``reward``), ``raw_value`` f32 [n] of the evaluator. Values are in [-1, 1], NaN
    where none is known. ``prior`` f32 [n] of the edge into the node; ``weight`` f32 [n] its share of the
    improved policy. ``terminal``, ``solved``, ``exhausted`` bool [n]; ``lost`` i32 [n] failed ends right
    below it that have no node; ``judge`` i8 [n] verdict, None where no judge was asked.
    ``proposers`` are names and ``shares`` f32 [n, proposers] whose proposals led there.
    ``ended`` i32 [S], ``outcome`` f32 [S]: where each simulation ended and the value backed up from there,
    with ``discount`` per edge; empty where nobody kept it (see ``mcts.history``).
    ``committed``: nodes of the answer, as far as this tree holds it. ``counted`` says what ``visits`` are:
    those of the search, or where they were not kept, states at or below. ``note`` says what is missing.
    """

    prompt: str
    method: str
    parent: I32
    actions: list[list[int]]
    text: list[str]
    visits: I32
    value: F32
    raw_value: F32
    prior: F32
    terminal: Flags
    solved: Flags
    exhausted: Flags
    before: str = ""
    settings: dict[str, Setting] = field(default_factory=dict)
    weight: F32 | None = None
    reward: F32 | None = None
    lost: I32 | None = None
    judge: npt.NDArray[np.int8] | None = None
    proposers: list[str] = field(default_factory=list)
    shares: F32 | None = None
    ended: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    outcome: F32 = field(default_factory=lambda: np.zeros(0, np.float32))
    discount: float = 1.0
    committed: list[int] = field(default_factory=list)
    position: int = 0
    counted: Counted = "visits"
    note: str = ""

    def depths(self) -> I32:
        """Edges from the root to each node, i32 [n]."""
        depth = np.zeros(len(self.parent), np.int32)
        for node, above in enumerate(self.parent.tolist()):
            depth[node] = 0 if above == NONE else depth[above] + 1
        return depth

    def follow(self, tokens: Sequence[int]) -> list[int]:
        """Nodes on the way of an answer's ``tokens`` from the root, until the tree holds no more of it."""
        child = {(above, tuple(self.actions[node])): node for node, above in enumerate(self.parent.tolist())}
        path: list[int] = []
        node, at = ROOT, 0
        lengths = sorted({len(action) for action in self.actions[1:]}, reverse=True)
        while at < len(tokens):
            steps = (child.get((node, tuple(tokens[at : at + length]))) for length in lengths)
            found = next((step for step in steps if step is not None), None)
            if found is None:
                break
            node, at = found, at + len(self.actions[found])
            path.append(node)
        return path

    def created(self) -> I32:
        """The simulation that first went through each node, i32 [n]; -1 where the order was not kept."""
        made = np.full(len(self.parent), NONE, np.int32)
        for number, end in enumerate(self.ended.tolist()):
            node = end
            while node != NONE and made[node] == NONE:
                made[node] = number
                node = int(self.parent[node])
        return made


def record(
    tree: Tree,
    place: int,
    history: History | None,
    *,
    prompt: str,
    method: str,
    actions: Callable[[int], Sequence[int]],
    text: Callable[[int], str],
    settings: Mapping[str, Setting] | None = None,
    solution_value: float = 1.0,
    discount: float = 1.0,
    table: StateTable | None = None,
    judged: bool = False,
    proposers: Sequence[str] = (),
    weights: F32 | None = None,
) -> RecordedTree:
    """A copy of the tree at ``place`` of a pool, taken before its states are released.

    ``actions(state)`` are the tokens of the last action before a state and ``text(state)`` is the answer
    there, the state being the evaluator's handle. From the ``table`` come who proposed a node (``proposers``
    names its columns, the student first) and, if leaves were ``judged``, the judge's verdicts. ``weights``
    f32 [K] are the improved policy at the root.
    """
    nodes = int(tree.size[place])
    above, slot = tree.parent[place, :nodes].copy(), tree.parent_slot[place, :nodes].astype(np.int64)
    states = tree.state[place, :nodes].copy()
    texts = [text(state) for state in states.tolist()]
    visits = tree.visits[place, :nodes].copy()
    sums = tree.value_sum[place, :nodes]
    raw, terminal = tree.raw_value[place, :nodes].copy(), tree.terminal[place, :nodes].copy()
    ways = np.maximum(above, ROOT), np.maximum(slot, 0)
    prior, reward = tree.prior[place][ways].copy(), tree.reward[place][ways].copy()
    prior[ROOT], reward[ROOT] = 1.0, 0.0
    lost = (tree.child[place, :nodes] == LOST).sum(axis=1).astype(np.int32)
    found = RecordedTree(
        prompt=prompt,
        method=method,
        settings=dict(settings or {}),
        before=texts[ROOT],
        parent=above,
        actions=[[], *(list(actions(state)) for state in states[1:].tolist())],
        text=added_texts(above, texts),
        visits=visits,
        value=np.where(visits > 0, sums / np.maximum(visits, 1), np.nan).astype(np.float32),
        raw_value=raw,
        prior=prior,
        reward=reward if reward.any() else None,
        terminal=terminal,
        solved=terminal & (raw >= solution_value),
        exhausted=tree.exhausted[place, :nodes].copy(),
        lost=lost if lost.any() else None,
        discount=discount,
    )
    if weights is not None:
        at_root = above == ROOT
        found.weight = np.full(nodes, np.nan, np.float32)
        found.weight[at_root] = weights[slot[at_root]]
    if history is not None:
        found.ended = np.asarray(history.ended, np.int32)
        found.outcome = np.asarray(history.outcome, np.float32)
    if table is not None and proposers:
        shares = table.responsibility[states[np.maximum(above, ROOT)], np.maximum(slot, 0)].copy()
        shares[ROOT] = 0.0
        found.proposers, found.shares = list(proposers), shares
    if table is not None and judged:
        found.judge = _verdicts(table, states)
    return found


def added_texts(parent: I32, texts: Sequence[str]) -> list[str]:
    """What each action adds to the text of the answer; all of it where a token changed what stood before."""
    pieces = [""]
    for node in range(1, len(texts)):
        before = texts[int(parent[node])]
        whole = texts[node]
        pieces.append(whole[len(before) :] if whole.startswith(before) else whole)
    return pieces


def _verdicts(table: StateTable, states: Ids) -> npt.NDArray[np.int8]:
    """What the judge said of each state: the sign of its shift, 0 where the state was never judged."""
    judged = table.slot[states] >= 0  # finished states are not forwarded, nor shown to a judge
    shifted = np.sign(table.value[states].astype(np.float64) - table.unjudged[states])
    return np.where(judged, shifted, 0).astype(np.int8)

"""Frontier search: a fixed number of trees in which play-outs begin at the best unexpanded child anywhere.

Nothing is committed: one search answers a whole problem. A play-out goes on from its child to a terminal
state, drawing each next slot from the prior; a subtree whose every leaf is terminal is never entered again; a
search ends when its tokens are spent. It needs an evaluator that knows what a finished state is worth. It
forwards nothing itself and does not know what a token is: a state that is not terminal counts as one.

Life of a place: free -> `plant` -> searching -> over (`ended` names it) -> `answer` -> free. `finish` ends a
search before its time, `forget` frees a place whose search nobody waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts import frontier_kernels as kernels
from tokenzero.mcts.compiled import call
from tokenzero.mcts.config import SCORES, SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.evaluation import Evaluation, Evaluator, checked
from tokenzero.mcts.history import History
from tokenzero.mcts.records import Frontier, FrontierProgress, FrontierRules, Walkers
from tokenzero.mcts.revision import Revisions, rewrite
from tokenzero.mcts.tree import NONE, ROOT, Tree

NOISE_NODES = 64  # nodes for which noise is drawn at a time
Ids = NDArray[np.int64]


@dataclass
class FrontierResult:
    """What R frontier searches came to. Node numbers are those of `tree` at `places`.

    solution: int32 [R], first terminal node found with value >= `solution_value`, NONE if none;
    solution_state: int64 [R], the evaluator's handle of it. solutions: int32 [R, N], distinct solutions at or
    below each node. tokens: int64 [R], states forwarded below the root. simulations: int64 [R], play-outs.
    nodes: int32 [R]. tree: visits are play-outs through a node, value_sum their outcomes; good until the
    places are planted again.
    """

    solution: NDArray[np.int32]
    solution_state: Ids
    solutions: NDArray[np.int32]
    tokens: Ids
    simulations: Ids
    depth: NDArray[np.int32]
    nodes: NDArray[np.int32]
    tree: Tree
    places: Ids


class FrontierPool:
    """`places` trees searched together; each has a random stream of its own, so they do not influence each
    other.

    `config.leaves` play-outs of a tree are under way at once; one that has not ended counts as lost. If an
    evaluator raises, or answers with something that is no evaluation, the pool is lost and says so.
    `paid_ends`: terminal states are forwarded too, and count as tokens. Raises InputError for a config of
    another method, or without `max_depth`.
    """

    def __init__(self, places: int, config: SearchConfig, paid_ends: bool = False) -> None:
        if config.method != "frontier":
            raise InputError(f'search.method is "{config.method}"; frontier search needs method "frontier"')
        if config.max_depth is None:
            raise InputError("search.max_depth is missing; frontier search needs the longest answer's length")
        self._config = config
        self._longest = config.max_depth
        self._rules = FrontierRules(
            score=SCORES.index(config.frontier_score),
            paid_ends=paid_ends,
            stop_on_solution=bool(config.stop_on_solution),
            solution_value=np.float32(config.solution_value),
            cost_exponent=float(config.cost_exponent),
            prior_exponent=float(config.prior_exponent),
            value_weight=float(config.value_weight),
            noise=float(config.frontier_noise),
        )
        expected = NOISE_NODES if config.tokens is None else min(config.tokens + NOISE_NODES, 4096)
        nodes = NOISE_NODES * -(-expected // NOISE_NODES)
        self._tree = Tree.allocate(places, nodes, config.candidates)
        self._front = _frontier(places, nodes, config.candidates, config.leaves)
        self._progress = FrontierProgress(
            spent=np.zeros(places, np.int64),
            budget=np.zeros(places, np.int64),
            done=np.zeros(places, np.int64),
            rollouts=np.zeros(places, np.int64),
            solution=np.full(places, NONE, np.int32),
            over=np.ones(places, np.bool_),
        )
        room = places * config.leaves
        self._leaves = Walkers(
            row=np.zeros(room, np.int32),
            walker=np.zeros(room, np.int32),
            node=np.zeros(room, np.int32),
            state=np.zeros(room, np.int64),
            action=np.zeros(room, np.int64),
        )
        self._revisions = Revisions(places, config.revise_visits)
        self._watched: dict[int, History] = {}
        self._planted = np.zeros(places, np.bool_)
        self._drawn = np.zeros(places, np.int64)  # nodes that have their noise
        self._rngs: list[np.random.Generator | None] = [None] * places
        self._lost = False

    @property
    def tree(self) -> Tree:
        """The trees of all places, live. A step that needs more nodes replaces the arrays."""
        return self._tree

    def plant(
        self,
        places: Ids,
        root: Evaluation,
        rngs: Sequence[np.random.Generator],
        *,
        tokens: Ids | None = None,
        simulations: Ids | None = None,
        longest: Ids | None = None,
    ) -> None:
        """Begin R searches at free `places` int64 [R], from R evaluated roots at most K slots wide.

        rngs: a generator for each. tokens: int64 [R], states each may forward; None is `config.tokens`, or no
        limit where that is None. simulations: int64 [R], play-outs; None is `config.simulations` where there
        is no limit on tokens. longest: int64 [R], the longest answer of each; None is `config.max_depth`.
        Raises InputError for a busy place and for an evaluation that is none.
        """
        self._usable()
        if self._planted[places].any():
            raise InputError(f"one of the places {places.tolist()} is busy; answer it first")
        found = checked(root, len(places), self._config.candidates, "root")
        if not len(places):
            return
        unlimited = np.iinfo(np.int64).max
        limit = self._config.tokens
        if tokens is None:
            tokens = np.full(len(places), unlimited if limit is None else limit)
        if simulations is None:
            counted = limit is None
            simulations = np.full(len(places), self._config.simulations if counted else unlimited)
        self._progress.budget[places], self._progress.rollouts[places] = tokens, simulations
        self._front.longest[places] = self._longest if longest is None else longest
        self._planted[places] = True
        self._drawn[places] = 0
        self._revisions.clear(places)
        for place, rng in zip(places.tolist(), rngs, strict=True):
            self._rngs[place] = rng
            self._draw(place)
        call(kernels.plant, self._tree, self._rules, self._front, self._progress, places, found)

    def step(self, evaluator: Evaluator) -> int:
        """One state further in every play-out under way; the number of states evaluated, 0 if none is.

        Raises InputError if the evaluator answers with something that is no evaluation. After that, and after
        anything the evaluator itself raises, the pool is lost.
        """
        self._usable()
        self._make_room()
        tree, front, leaves = self._tree, self._front, self._leaves
        count: int = call(kernels.select, tree, self._rules, front, self._progress, leaves)
        if count == 0:
            self._note()
            return 0
        self._lost = True
        answer = evaluator.expand(leaves.state[:count].copy(), leaves.action[:count].copy())
        found = checked(answer, count, self._config.candidates, "evaluation")
        call(kernels.expand, tree, self._rules, front, self._progress, leaves, found)
        if self._config.revise_visits:
            self._revise(evaluator)
        self._lost = False
        self._note()
        return count

    def watch(self, place: int) -> History:
        """Keep from now on where the play-outs of the search at `place` end, until it is answered. To be
        called between `plant` and the first step."""
        self._watched[place] = history = History()
        return history

    def _note(self) -> None:
        for place, history in self._watched.items():
            history.note(self._tree, place, 1.0, self._front.cursor[place])

    def _revise(self, evaluator: Evaluator) -> None:
        tree, front = self._tree, self._front
        rows, nodes = self._revisions.due(tree, self._progress.over)
        if not rows.size:
            return
        new = self._revisions.asked(evaluator, tree, rows, nodes)
        call(kernels.strip_bonus, tree, self._rules, front, rows, nodes)
        call(rewrite, tree, rows, nodes, new.actions, new.logits)
        call(kernels.reprice, tree, self._rules, front, rows, nodes)

    def ended(self) -> Ids:
        """Places, ascending, int64, whose search is over and not yet answered."""
        return np.flatnonzero(self._planted & self._progress.over)

    def finish(self, places: Ids) -> None:
        """End the searches at `places` int64 [R] now, between two steps; a play-out that is cut short counts
        as its last state's value. Free places are left alone."""
        going = places[self._planted[places] & ~self._progress.over[places]]
        call(kernels.finish, self._tree, self._rules, self._front, self._progress, going)
        self._note()

    def forget(self, places: Ids) -> Ids:
        """Free `places` int64 [R] without an answer; the play-outs begun there, int64 [R]."""
        begun = np.where(self._planted[places], self._progress.done[places], 0)
        self._progress.over[places] = True
        self._planted[places] = False
        for place in places.tolist():
            self._rngs[place] = None
            self._watched.pop(place, None)
        return begun

    def answer(self, places: Ids) -> FrontierResult:
        """The results at `places` int64 [R], which are then free. Raises InputError for one that is not
        over."""
        self._usable()
        if not (self._planted[places] & self._progress.over[places]).all():
            raise InputError(f"not all places {places.tolist()} are over; answer those that ended() names")
        call(kernels.read_root, self._tree, self._front, places)
        self._planted[places] = False
        if self._watched:
            self._note()  # a search that was finished early has changed since its last step
            for place in places.tolist():
                self._watched.pop(place, None)
        solution = self._progress.solution[places]
        state = self._tree.state[places, np.maximum(solution, 0)]
        return FrontierResult(
            solution=solution,
            solution_state=np.where(solution == NONE, NONE, state),
            solutions=self._front.solutions[places],
            tokens=self._progress.spent[places],
            simulations=self._progress.done[places],
            depth=self._tree.deepest[places],
            nodes=self._tree.size[places],
            tree=self._tree,
            places=places,
        )

    def _usable(self) -> None:
        if self._lost:
            raise InputError("the pool is lost: its evaluator failed in a step; make a new FrontierPool")

    def _make_room(self) -> None:
        """Nodes, and noise for them, for whatever the next step may take."""
        sizes = self._tree.size + self._config.leaves
        short = np.flatnonzero(self._planted & ~self._progress.over & (sizes > self._drawn))
        if not short.size:
            return
        if int(self._drawn[short].max()) + NOISE_NODES > self._tree.parent.shape[1]:
            nodes = 2 * self._tree.parent.shape[1]
            self._tree, self._front = self._tree.enlarged(nodes), _enlarged(self._front, nodes)
        for place in short.tolist():
            self._draw(place)

    def _draw(self, place: int) -> None:
        """Noise for the next nodes of a tree, from its own stream: what others need does not change it."""
        rng, first = self._rngs[place], int(self._drawn[place])
        assert rng is not None
        nodes = slice(first, first + NOISE_NODES)
        shape = (NOISE_NODES, self._config.candidates)
        uniform = np.maximum(rng.random(shape, dtype=np.float32), np.finfo(np.float32).tiny)
        self._front.bonus[place, nodes] = -np.log(-np.log(uniform))
        self._front.uniform[place, nodes] = rng.random(NOISE_NODES)
        self._drawn[place] = first + NOISE_NODES


def _frontier(places: int, nodes: int, candidates: int, walkers: int) -> Frontier:
    return Frontier(
        heap=np.zeros((places, nodes), np.int32),
        where=np.zeros((places, nodes), np.int32),
        waiting=np.zeros(places, np.int32),
        longest=np.zeros(places, np.int32),
        key=np.zeros((places, nodes), np.float32),
        best=np.zeros((places, nodes), np.int32),
        bonus=np.zeros((places, nodes, candidates), np.float32),
        uniform=np.zeros((places, nodes), np.float64),
        likely=np.zeros((places, nodes), np.float64),
        perturbed=np.zeros((places, nodes), np.float64),
        solutions=np.zeros((places, nodes), np.int32),
        cursor=np.full((places, walkers), NONE, np.int32),
    )


def _enlarged(front: Frontier, nodes: int) -> Frontier:
    places, before, candidates = front.bonus.shape
    wide = _frontier(places, nodes, candidates, front.cursor.shape[1])
    for name in front._fields:
        new, old = getattr(wide, name), getattr(front, name)
        if new.shape == old.shape:
            new[:] = old
        else:
            new[:, :before] = old
    return wide


def root_statistics(
    result: FrontierResult,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Of the roots' children, [R, K] each: play-outs through them, their mean outcome, solutions below
    them."""
    tree, places = result.tree, result.places
    child = tree.child[places, ROOT]
    below = np.take_along_axis(result.solutions, np.maximum(child, 0).astype(np.int64), axis=1)
    visits = np.maximum(tree.edge_visits[places, ROOT], 0)
    return visits, tree.edge_q[places, ROOT], np.where(child < 0, 0, below).astype(np.int32)

"""A fixed number of searches that go on together, each of which can end and be planted anew on its own.

One step selects new leaves in every unfinished tree, has them evaluated in one call, and backs them up. A
place whose search is over is answered and planted again while the others go on, so that evaluations stay full
(continuous batching). The pool draws no random numbers: noise is handed in.

Life of a place: free -> `plant` -> searching -> over (`ended` names it) -> `answer` -> free. `finish` ends a
search before its time, `forget` frees a place whose search nobody waits for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts import kernels
from tokenzero.mcts.answer import SearchResult, read_answer
from tokenzero.mcts.compiled import call
from tokenzero.mcts.config import FPUS, METHODS, RESCALES, SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.mcts.evaluation import Evaluation, Evaluator, check_logits, checked
from tokenzero.mcts.history import History
from tokenzero.mcts.records import Leaves, Progress, RootRules, Rules
from tokenzero.mcts.revision import Revisions, rewrite
from tokenzero.mcts.sequential_halving import considered_table
from tokenzero.mcts.stopping import stop_early
from tokenzero.mcts.tree import NONE, ROOT, Tree

UNLIMITED = 2**31 - 1
GROWTH = (
    1.25  # at least this much more at a time, so that slowly rising needs do not copy the trees each time
)


class SearchPool:
    """`places` trees under one `config`. The pool owns them; the state handles in them belong to the caller.

    The trees do not influence each other: a search in a pool gives the same bits as `search()` alone. If an
    evaluator raises, or answers with something that is no evaluation, the pool is lost and says so.
    """

    def __init__(self, places: int, config: SearchConfig) -> None:
        if isinstance(places, bool) or not isinstance(places, int) or places < 1:
            raise InputError(f"places is {places!r}; give a whole number of at least 1")
        if config.method == "frontier":
            raise InputError('search.method is "frontier"; use a FrontierPool')
        width = config.candidates
        self._config = config
        self._rules = rules_of(config)
        self._tree = Tree.allocate(places, 1, width)  # the first plant knows how many nodes it needs
        self._root = RootRules(
            blocked=np.zeros((places, width), np.bool_),
            gumbel=np.zeros((places, width), np.float32),
            plan=np.zeros((places, 1), np.int32),
        )
        self._progress = Progress(
            done=np.zeros(places, np.int64),
            budget=np.zeros(places, np.int64),
            solution=np.full(places, NONE, np.int32),
            over=np.ones(places, np.bool_),
            before=np.zeros((places, width), np.int32),
        )
        room = places * config.leaves
        self._leaves = Leaves(
            row=np.zeros(room, np.int32),
            node=np.zeros(room, np.int32),
            state=np.zeros(room, np.int64),
            action=np.zeros(room, np.int64),
        )
        self._revisions = Revisions(places, config.revise_visits)
        self._watched: dict[int, History] = {}
        self._planted = np.zeros(places, np.bool_)
        self._score = np.zeros(width, np.float32)
        self._steps = 0
        self._lost = False

    @property
    def tree(self) -> Tree:
        """The trees of all places, live. A plant that needs more nodes replaces the arrays."""
        return self._tree

    def plant(
        self,
        places: NDArray[np.int64],
        root: Evaluation,
        *,
        invalid: NDArray[np.bool_] | None = None,
        gumbel: NDArray[np.float32] | None = None,
        dirichlet: NDArray[np.floating[Any]] | None = None,
        simulations: NDArray[np.int64] | None = None,
        carried: NDArray[np.int64] | None = None,
    ) -> None:
        """Begin R searches at free `places` int64 [R], from R evaluated roots at most K slots wide.

        invalid: bool [R, K], slots that must not be chosen at the root.
        gumbel: float32 [R, K], root noise, already scaled (Gumbel method only); None is no noise.
        dirichlet: float [R, K], a draw per row, mixed into the root prior by `config.dirichlet_fraction`
            (PUCT only); what it holds in closed slots is ignored; None is no noise.
        simulations: int64 [R], budget of each search; None is `config.simulations`. Budgets drawn at random
            are playout cap randomisation (arXiv:1902.10565, section 3.1).
        carried: int64 [R], simulations that an earlier search already made below each root: see `search()`.

        K is the width of `root.actions` or `config.candidates`. Raises InputError for a place that is busy,
        named twice or does not exist, and for input of the wrong shape or kind; then nothing is planted.
        """
        self._usable()
        config, width = self._config, self._config.candidates
        at = self._places(places)
        if self._planted[at].any():
            busy = int(at[np.argmax(self._planted[at])])
            raise InputError(f"place {busy} is busy; answer it first")
        count = len(at)
        found = checked(root, count, width, "root")
        given = np.asarray(root.actions).shape
        closed = found.actions == -1
        if invalid is not None:
            closed |= _mask(invalid, given, width)
        check_logits(~closed, found.logits, "root")
        noise = self._gumbel(gumbel, given)
        mixture = self._dirichlet(dirichlet, given)
        budget = _counts("simulations", simulations, count, config.simulations)
        again = _counts("carried", carried, count, 0)
        if count == 0:
            return

        self._grow(budget, again)
        self._planted[at] = True
        self._revisions.clear(at)
        self._root.blocked[at] = closed
        self._root.gumbel[at] = 0.0 if noise is None else noise
        self._progress.done[at] = -again
        self._progress.budget[at] = budget
        self._progress.before[at] = 0
        self._plan(at, closed, budget)
        call(kernels.plant, self._tree, self._rules, self._root, self._progress, at, found)
        if mixture is not None:
            share, prior = config.dirichlet_fraction, self._tree.prior[at, ROOT]
            mixed = (1.0 - share) * prior + share * np.where(closed, 0.0, mixture)
            self._tree.prior[at, ROOT] = mixed

    def step(self, evaluator: Evaluator) -> int:
        """Select, evaluate and back up once; the number of leaves evaluated, 0 if no place is searching.

        Raises InputError if the evaluator answers with something that is no evaluation. After that, and
        after anything the evaluator itself raises, the pool is lost.
        """
        self._usable()
        tree, rules, progress, leaves = self._tree, self._rules, self._progress, self._leaves
        count: int = call(kernels.select, tree, rules, self._root, progress, leaves, self._score)
        if count == 0:
            self._note()
            return 0
        self._lost = True
        self._steps += 1
        answer = evaluator.expand(leaves.state[:count].copy(), leaves.action[:count].copy())
        found = checked(answer, count, self._config.candidates, "evaluation")
        call(kernels.expand, tree, rules, progress, leaves, found)
        if self._config.revise_visits:
            rows, nodes = self._revisions.due(tree, progress.over)
            if rows.size:
                new = self._revisions.asked(evaluator, tree, rows, nodes)
                call(rewrite, tree, rows, nodes, new.actions, new.logits)
        if rules.smart_pruning or rules.min_kld_gain > 0.0:
            call(stop_early, tree, rules, progress)
        self._lost = False
        self._note()
        return count

    def watch(self, place: int) -> History:
        """Keep from now on where the simulations of the search at `place` end, until it is answered. To be
        called between `plant` and the first step."""
        self._watched[place] = history = History()
        history.note(self._tree, place, self._config.discount)
        return history

    def _note(self) -> None:
        for place, history in self._watched.items():
            history.note(self._tree, place, self._config.discount)

    def ended(self) -> NDArray[np.int64]:
        """Places, ascending, int64, whose search is over and not yet answered."""
        return np.flatnonzero(self._planted & self._progress.over)

    def left(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Simulations that the searches at `places` int64 [R] may still make, carried ones too, int64 [R]."""
        done, budget = self._progress.done[places], self._progress.budget[places]
        return np.where(self._planted[places] & ~self._progress.over[places], budget - done, 0)

    def solved(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the searches at `places` int64 [R] have found a solution, bool [R]."""
        found: NDArray[np.bool_] = self._planted[places] & (self._progress.solution[places] != NONE)
        return found

    def finish(self, places: NDArray[np.int64]) -> None:
        """End the searches at `places` int64 [R] now, between two steps; they are answered as they stand, by
        the prior where nothing was visited. Free places are left alone."""
        self._progress.over[places] = True

    def forget(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Free `places` int64 [R] without an answer; the simulations made there, int64 [R]."""
        made = np.where(self._planted[places], np.maximum(self._progress.done[places], 0), 0)
        self._progress.over[places] = True
        self._planted[places] = False
        for place in places.tolist():
            self._watched.pop(place, None)
        return made

    def answer(
        self, places: NDArray[np.int64], *, uniform: NDArray[np.float64] | None = None
    ) -> SearchResult:
        """The results at `places` int64 [R], in that order; the places are then free.

        uniform: float64 [R] in [0, 1), the draw behind PUCT's choice; the Gumbel method needs none. Raises
        InputError for a place that is not over, named twice or does not exist; then nothing is freed.
        """
        self._usable()
        at = self._places(places)
        over = self._planted[at] & self._progress.over[at]
        if not over.all():
            early = int(at[np.argmin(over)])
            what = "still searching" if self._planted[early] else "free"
            raise InputError(f"place {early} is {what}; answer places that ended() names")
        result = read_answer(
            self._tree, self._rules, self._root, self._progress, self._config,
            at, self._uniform(uniform, len(at)), self._steps,
        )  # fmt: skip
        self._planted[at] = False
        if self._watched:
            self._note()  # a search that was finished early has changed since its last step
            for place in at.tolist():
                self._watched.pop(place, None)
        return result

    def policies(self, place: int, nodes: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the search came to at `nodes` int64 [M] of the tree at `place`, as it says of its root: shares
        of the visits (PUCT; the prior where there are none) or softmax(logits + completed Q) (Gumbel); f32
        [M, K], 0 in slots without a candidate. Good until the place is planted again.
        """
        tree = self._tree
        if self._config.method == "puct":
            visits = np.maximum(tree.edge_visits[place, nodes], 0)
            total = visits.sum(axis=1, keepdims=True)
            shares = np.where(total > 0, visits / np.maximum(total, 1), tree.prior[place, nodes])
            return np.asarray(shares, np.float32)
        weights = np.zeros((len(nodes), self._config.candidates), np.float32)
        call(kernels.improved_policies, tree, self._rules, place, nodes, weights)
        return weights

    def _usable(self) -> None:
        if self._lost:
            raise InputError("the pool is lost: its evaluator failed in a step; make a new SearchPool")

    def _places(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        at, room = np.asarray(places), len(self._planted)
        if at.ndim != 1 or (at.dtype.kind not in "iu" and at.size):
            raise InputError(f"places is {at.dtype} {at.shape}; give whole numbers [R]")
        at = at.astype(np.int64)
        wrong = (at < 0) | (at >= room)
        if wrong.any():
            raise InputError(f"place {at[np.argmax(wrong)]} does not exist; choose one of 0 to {room - 1}")
        if len(at) > 1 and len(np.unique(at)) < len(at):
            raise InputError(f"places {at.tolist()} name one twice; give each once")
        return at

    def _gumbel(self, noise: Any, given: tuple[int, ...]) -> NDArray[Any] | None:
        if noise is not None and self._config.method != "gumbel":
            raise InputError(
                'gumbel noise is given but search.method is "puct"; leave it out or use method "gumbel"'
            )
        return _noise("gumbel", noise, given, self._config.candidates)

    def _dirichlet(self, noise: Any, given: tuple[int, ...]) -> NDArray[Any] | None:
        if noise is not None and self._config.method != "puct":
            raise InputError(
                'dirichlet noise is given but search.method is "gumbel"; leave it out or use method "puct"'
            )
        mixture = _noise("dirichlet", noise, given, self._config.candidates)
        if mixture is not None and (mixture < 0).any():
            raise InputError("dirichlet has negative numbers; give draws of a Dirichlet distribution")
        return mixture

    def _uniform(self, uniform: Any, count: int) -> NDArray[np.float64]:
        if uniform is None:
            if self._config.method == "puct":
                raise InputError("uniform is missing; give one number in [0, 1) per place for PUCT's choice")
            return np.zeros(count)
        drawn = np.asarray(uniform, np.float64)
        if drawn.shape != (count,) or not ((drawn >= 0.0) & (drawn < 1.0)).all():
            raise InputError(f"uniform has shape {drawn.shape}; give {count} numbers in [0, 1)")
        return drawn

    def _grow(self, budget: NDArray[np.int64], again: NDArray[np.int64]) -> None:
        """Make room for the longest search; a capacity given in the config is never exceeded."""
        capacity = self._tree.parent.shape[1]
        needed = self._config.nodes
        if self._config.node_capacity is None:
            needed = max(needed, int((budget + again).max()) + 1)
        if needed > capacity:
            if self._steps:
                needed = max(needed, int(GROWTH * capacity))
            self._tree = self._tree.enlarged(needed)
        visits = int((budget + again).max()) + self._config.leaves + 2  # of a root, those in flight included
        if visits > len(self._rules.explore):
            self._rules = self._rules._replace(explore=np.zeros(visits, np.float32))
            kernels.exploration(self._rules)

    def _plan(self, at: NDArray[np.int64], closed: NDArray[np.bool_], budget: NDArray[np.int64]) -> None:
        """Write the order of sequential halving for each search; the last entry holds beyond the budget."""
        if self._config.method != "gumbel":
            return
        longest, room = int(budget.max()), self._root.plan.shape[1]
        if longest > room:
            wide = np.zeros((len(self._planted), longest), np.int32)
            wide[:, :room] = self._root.plan
            wide[:, room:] = self._root.plan[:, -1:]
            self._root = self._root._replace(plan=wide)
        arms = np.minimum(self._config.considered, (~closed).sum(axis=1))
        for turns in np.unique(budget).tolist():
            rows = np.flatnonzero(budget == turns)
            # A search without a budget of its own may still have carried simulations to make.
            table = considered_table(min(self._config.considered, self._config.candidates), max(turns, 1))
            self._root.plan[at[rows], : table.shape[1]] = table[arms[rows]]
            self._root.plan[at[rows], table.shape[1] :] = table[arms[rows], -1:]


def rules_of(config: SearchConfig) -> Rules:
    """The configuration as the kernels read it."""
    return Rules(
        method=METHODS.index(config.method),
        max_depth=UNLIMITED if config.max_depth is None else config.max_depth,
        capacity=UNLIMITED if config.node_capacity is None else config.node_capacity,
        leaves=config.leaves,
        stop_at_terminal=bool(config.stop_at_terminal),
        stop_on_solution=bool(config.stop_on_solution),
        skip_exhausted=bool(config.skip_exhausted),
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
        use_mixed_value=bool(config.use_mixed_value),
        smart_pruning=bool(config.smart_pruning),
        min_kld_gain=float(config.min_kld_gain),
        kld_interval=config.kld_interval,
        explore=np.zeros(0, np.float32),
    )


def _counts(name: str, counts: Any, rows: int, default: int) -> NDArray[np.int64]:
    if counts is None:
        return np.full(rows, default, np.int64)
    numbers = np.asarray(counts)
    if numbers.shape != (rows,) or numbers.dtype.kind not in "iu" or (numbers < 0).any():
        raise InputError(
            f"{name} is {numbers.dtype} {numbers.shape}; give {rows} whole numbers of at least 0"
        )
    return numbers.astype(np.int64)


def _mask(invalid: Any, given: tuple[int, ...], width: int) -> NDArray[np.bool_]:
    mask = np.asarray(invalid)
    if mask.dtype != np.bool_ or mask.shape not in (given, (given[0], width)):
        raise InputError(f"invalid is {mask.dtype} {mask.shape}; give bool {given} like root.actions")
    return _widened(mask, width)


def _noise(name: str, noise: Any, given: tuple[int, ...], width: int) -> NDArray[Any] | None:
    if noise is None:
        return None
    drawn = np.asarray(noise)
    if drawn.dtype.kind not in "fiu" or drawn.shape not in (given, (given[0], width)):
        raise InputError(
            f"{name} has shape {drawn.shape} of {drawn.dtype}; give finite numbers of shape {given} "
            "like root.actions"
        )
    if not np.isfinite(drawn).all():
        raise InputError(f"{name} has shape {drawn.shape} but not only finite numbers; give finite numbers")
    return _widened(drawn, width)


def _widened(array: NDArray[Any], width: int) -> NDArray[Any]:
    wide = np.zeros((array.shape[0], width), array.dtype)
    wide[:, : array.shape[1]] = array
    return wide

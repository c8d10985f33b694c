"""A Player: an evaluator plus a search config, playing problems to the end.

Self-play is a Player that explores and records; test-time inference is a Player that does neither; the arena
is two Players. With zero simulations a Player is the raw policy: greedy with ``gumbel_scale`` 0, sampling
with 1. It does not score against gold answers (a ``Grader`` handed in by self-play may) and does not learn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tokenzero.mcts import NONE, SearchConfig, SearchResult, search
from tokenzero.policy.engine import Ids
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.evaluator import Grader, LeafConfig, LeafEvaluator, Parts
from tokenzero.tasks import PublicProblem

F32 = npt.NDArray[np.float32]


@dataclass
class Move:
    """One searched position: candidate ``actions`` i64 [K], the visit distribution ``weights`` f32 [K], the
    root value after search, and the chosen action's ``responsibility`` f32 [1 + teachers].
    """

    actions: Ids
    weights: F32
    visits: npt.NDArray[np.int32]
    q: F32
    prior: F32
    value: float
    chosen: int
    responsibility: F32


@dataclass
class Game:
    """One problem played to its end.

    ``tokens`` the answer; ``moves[i]`` the search before ``tokens[i]`` (fewer moves than tokens when a
    solution found in the tree was played out at once). ``verdict`` is the public verifier's score, None when
    only gold could tell. ``forwarded`` tokens went through the student for this game alone, prompt included;
    ``depth`` is the deepest node any of its trees reached.
    """

    problem: PublicProblem
    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    text: str = ""
    value: float = 0.0
    verdict: float | None = None
    forwarded: int = 0
    simulations: int = 0
    depth: int = 0
    terminal_value: float | None = None


class Player:
    """Plays batches of problems with one search configuration.

    ``on_games(n)`` is called as games finish, for progress bars. ``ledger`` is the total over everything
    played.
    """

    def __init__(
        self,
        parts: Parts,
        search_config: SearchConfig,
        leaf: LeafConfig | None = None,
        *,
        games_in_flight: int = 512,
    ) -> None:
        self.ledger = Ledger()
        self._parts = parts
        self._config = search_config
        self._leaf = leaf or LeafConfig()
        self._in_flight = games_in_flight

    def play(
        self,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        *,
        grader: Grader | None = None,
        on_games: Callable[[int], None] | None = None,
    ) -> list[Game]:
        """Play every problem, in order; the games come back in that order."""
        games: list[Game] = []
        started = time.perf_counter()
        for start in range(0, len(problems), self._in_flight):
            batch = problems[start : start + self._in_flight]
            bound = None if grader is None else (lambda game, text, start=start: grader(start + game, text))
            games.extend(self._play_batch(batch, rng, bound, on_games))
        self.ledger.wall_s += time.perf_counter() - started
        return games

    def _play_batch(
        self,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        grader: Grader | None,
        on_games: Callable[[int], None] | None,
    ) -> list[Game]:
        evaluator = LeafEvaluator(self._parts, self._leaf, self._config.candidates, rng)
        try:
            return self._play_out(evaluator, problems, rng, grader, on_games)
        finally:  # also when a verifier or the model fails: the engine serves others after us
            self.ledger.add(evaluator.close())

    def _play_out(
        self,
        evaluator: LeafEvaluator,
        problems: Sequence[PublicProblem],
        rng: np.random.Generator,
        grader: Grader | None,
        on_games: Callable[[int], None] | None,
    ) -> list[Game]:
        rows = evaluator.start(problems, grader)
        goals = np.full(len(rows), NONE, np.int64)
        carried = np.zeros(len(rows), np.int64)
        games = [Game(problem, evaluator.prompt(index)) for index, problem in enumerate(problems)]
        live = np.arange(len(games))
        while live.size:
            known = carried[live] if self._config.reuse_subtree else None
            result = search(evaluator.view(rows[live]), evaluator, self._config, rng, carried=known)
            self.ledger.simulations += int(result.simulations.sum())
            goals[live] = np.where(goals[live] == NONE, _solutions(result), goals[live])
            slots = _committed(evaluator, result, rows[live], goals[live])
            for tree, game in enumerate(live.tolist()):
                _record(games[game], evaluator, result, tree, int(slots[tree]), int(rows[game]))
            chosen = np.take_along_axis(result.actions, slots[:, None], axis=1)[:, 0]
            visits = np.take_along_axis(result.visits, slots[:, None], axis=1)[:, 0]
            carried[live] = np.maximum(visits - 1, 0)
            done = (goals[live] != NONE) & self._config.stop_on_solution
            rows[live[done]] = goals[live[done]]
            if not done.all():
                rows[live[~done]] = evaluator.expand(rows[live[~done]], chosen[~done]).states
            ended = evaluator.table.terminal[rows[live]]
            if on_games is not None and ended.any():
                on_games(int(ended.sum()))
            live = live[~ended]
        for index, finished in enumerate(games):
            _finish(
                finished,
                evaluator,
                int(rows[index]),
                int(evaluator.spent[index]),
                self._parts.task.public_verifier,
            )
        return games


def _solutions(result: SearchResult) -> Ids:
    """State of the first solution each tree holds, i64 [B]; NONE where there is none."""
    node = np.maximum(result.solution, 0)[:, None]
    states = np.take_along_axis(result.tree.state, node, axis=1)[:, 0]
    return np.where(result.solution == NONE, NONE, states)


def _committed(evaluator: LeafEvaluator, result: SearchResult, rows: Ids, goals: Ids) -> Ids:
    """Root slot each game commits to, i64 [B]: the next step towards a solution once one is known, else the
    search's choice. Every position on the way is still searched, so that it can be learnt from.
    """
    slots = result.chosen.copy()
    for tree in np.flatnonzero(goals != NONE).tolist():
        step = int(goals[tree])
        while evaluator.table.parent[step] != rows[tree]:
            step = int(evaluator.table.parent[step])
        slots[tree] = np.flatnonzero(result.actions[tree] == evaluator.table.token[step])[0]
    return slots


def _record(
    game: Game, evaluator: LeafEvaluator, result: SearchResult, tree: int, slot: int, row: int
) -> None:
    width = evaluator.table.actions.shape[1]  # the search pads its answer to the slots it was told
    nodes = int(result.tree.size[tree])
    game.depth = max(game.depth, len(game.moves) + int(result.tree.depth[tree, :nodes].max()))
    game.simulations += int(result.simulations[tree])
    game.moves.append(
        Move(
            actions=result.actions[tree, :width],
            weights=result.weights[tree, :width],
            visits=result.visits[tree, :width],
            q=result.q[tree, :width],
            prior=np.exp(evaluator.table.logits[row]),
            value=float(result.value[tree]),
            chosen=int(result.actions[tree, slot]),
            responsibility=evaluator.table.responsibility[row, slot].copy(),
        )
    )


def _finish(game: Game, evaluator: LeafEvaluator, row: int, forwarded: int, public: bool) -> None:
    game.tokens = evaluator.table.answer(row)
    game.text = evaluator.table.text[row].strip()
    game.forwarded = forwarded
    game.terminal_value = float(evaluator.table.value[row])
    game.value = game.moves[0].value
    if public:
        game.verdict = (game.terminal_value + 1.0) / 2.0

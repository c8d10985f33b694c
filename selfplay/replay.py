"""The replay window as arrays, and training batches cut from it.

Episodes are laid out once per round so that a batch costs a few array look-ups. One forward then trains every
state in it: an episode is a path of answer tokens or a tree of them, and a state is what a token leads to.
This file does not know the losses, nor how sequences share the rows of a forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tree_packing import PackedTrees
from tokenzero.selfplay.episode import Episode
from tokenzero.tasks import Task
from tokenzero.value import mix_targets

Ids = npt.NDArray[np.int64]
Pack = Callable[[Sequence[Ids], Sequence[Ids]], PackedTrees]
"""(tokens, parents) of each sequence, i64 [T] -> where they lie in a forward; see
``TrainingForward.pack``."""


class Batch(NamedTuple):
    """What one forward reads (``packed``) and what is learnt from it. A cell is an index into its tokens.

    P policy targets: ``cells`` i64 [P], ``actions`` i64 [P, K], ``weights`` f32 [P, K] (0 at pads),
    ``importance`` f32 [P]. V value targets: ``value_cells`` i64 [V], ``value_targets`` f32 [V].
    """

    packed: PackedTrees
    cells: torch.Tensor
    actions: torch.Tensor
    weights: torch.Tensor
    importance: torch.Tensor
    value_cells: torch.Tensor
    value_targets: torch.Tensor


class Totals(NamedTuple):
    """Sum of the policy targets' importance, number of policy targets, number of value targets."""

    importance: float
    positions: int
    values: int


class Replay:
    """E episodes. State j of an episode follows its answer token j - 1; state 0 follows the prompt.

    lost_weight: policy loss of lost games. root_value_mix: share of root values in the value targets of
    paths. played_share: share of the move played in the policy targets of won paths. sharpness: exponent on
    the weights of trees. count_exponent: exponent on how many solutions are below a position (0: every
    position alike). value_states: states without a policy target that are kept of each tree, drawn by ``rng``
    (None: all).
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        student: Student,
        *,
        lost_weight: float = 1.0,
        root_value_mix: float = 0.0,
        played_share: float = 0.0,
        sharpness: float = 1.0,
        count_exponent: float = 1.0,
        value_states: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        if not episodes:
            raise InputError("there are no episodes to learn from; play at least one game")
        self._student = student
        self._lost_weight, self._played_share = lost_weight, played_share
        self._root_value_mix, self._sharpness, self._count_exponent = (
            root_value_mix,
            sharpness,
            count_exponent,
        )
        self._prompt_texts = [episode.prompt for episode in episodes]
        self._prompts = [np.asarray(episode.tokens[: episode.prompt_len]) for episode in episodes]
        self._answers: list[Ids] = []
        self._parents: list[Ids] = []
        columns: list[list[Any]] = [[], [], [], []]  # of `_targets_of`
        counts, values = [], []
        for episode in episodes:
            kept = _kept(episode, value_states, rng)
            answer, parents = _answer(episode, kept)
            self._answers.append(answer)
            self._parents.append(parents)
            targets = list(self._targets_of(episode, kept))
            counts.append(len(targets))
            for target in targets:
                for column, entry in zip(columns, target, strict=True):
                    column.append(entry)
            values.append(self._values_of(episode, kept))
        # Rows of targets lie one after the other; those of episode e begin at `_first[e]`.
        self._count = np.asarray(counts, np.int64)
        self._first = np.cumsum(self._count) - self._count
        state, actions, weights, importance = columns
        self._state = np.asarray(state, np.int64)
        self._importance = np.asarray(importance, np.float32)
        self._actions, self._weights = _table(actions, weights)
        self._states = np.asarray([len(answer) + 1 for answer in self._answers], np.int64)
        self._first_state = np.cumsum(self._states) - self._states
        self._values = np.concatenate(values)

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def states(self) -> int:
        """States that are trained on."""
        return int(self._states.sum())

    @property
    def taught(self) -> Ids:
        """Episodes, i64, that have a policy target."""
        total = np.add.reduceat(
            np.append(self._importance, 0.0), np.minimum(self._first, len(self._importance))
        )
        return np.flatnonzero((self._count > 0) & (total > 0))

    def totals(self, chosen: Ids) -> Totals:
        """How much there is to learn from the episodes ``chosen`` i64 [N]."""
        importance = self._importance[_ranges(self._first[chosen], self._count[chosen])]
        return Totals(
            importance=float(importance.sum(dtype=np.float64)),
            positions=int(np.count_nonzero(importance)),
            values=int(self._states[chosen].sum()),
        )

    def mix_values(self, chosen: Ids, values: npt.NDArray[np.float32], share: float) -> None:
        """Move the value targets of states whose end is not known (strictly between -1 and 1) by ``share``
        towards ``values`` f32, one for each state of the episodes ``chosen`` i64 [N], in order.
        """
        states = _ranges(self._first_state[chosen], self._states[chosen])
        old = self._values[states]
        self._values[states] = np.where(np.abs(old) < 1.0, old + np.float32(share) * (values - old), old)

    def batch(self, chosen: Ids, task: Task | None, rng: np.random.Generator, pack: Pack) -> Batch:
        """The episodes ``chosen`` i64 [N], laid out by ``pack``. With a ``task`` each prompt is replaced by
        an equivalent one (its ``augment``).
        """
        prompts = self._equivalent(chosen, task, rng)
        ids, parents = [], []
        for index, prompt in zip(chosen.tolist(), prompts, strict=True):
            ids.append(np.concatenate((prompt, self._answers[index])))
            before = np.arange(-1, len(prompt) - 1)
            parents.append(np.concatenate((before, self._parents[index] + len(prompt))))
        packed = pack(ids, parents)
        sizes = np.asarray([len(tokens) for tokens in ids], np.int64)
        # Token after which each episode's answer begins, among all tokens: its state 0.
        start = np.cumsum(sizes) - sizes + np.asarray([len(prompt) for prompt in prompts], np.int64) - 1
        rows = _ranges(self._first[chosen], self._count[chosen])
        tokens = np.repeat(start, self._count[chosen]) + self._state[rows]
        learnt = self._importance[rows] > 0
        rows, tokens = rows[learnt], tokens[learnt]
        states = _ranges(self._first_state[chosen], self._states[chosen])
        within = states - np.repeat(self._first_state[chosen], self._states[chosen])
        arrays = (
            packed.cells[tokens],
            self._actions[rows],
            self._weights[rows],
            self._importance[rows],
            packed.cells[np.repeat(start, self._states[chosen]) + within],
            self._values[states],
        )
        return Batch(packed, *(torch.from_numpy(array).to(self._student.device) for array in arrays))

    def _targets_of(self, episode: Episode, kept: Ids) -> Any:
        """(state, actions, weights, importance) of each policy target."""
        won, eos = episode.outcome > 0, self._student.eos_id
        tree = bool(episode.parents)
        played = self._played_share if won and not tree else 0.0
        answer = episode.tokens[episode.prompt_len :]
        number = np.cumsum(kept) - 1  # of the states that are kept
        weight = 1.0 if won else self._lost_weight
        for index, position in enumerate(episode.positions):
            state = position - (episode.prompt_len - 1)
            actions, shares = list(episode.actions[index]), np.asarray(episode.weights[index])
            if tree and self._sharpness != 1.0:
                shares = shares**self._sharpness / (shares**self._sharpness).sum()
            if played:
                shares = np.append(shares * (1.0 - played), played)
                actions.append(answer[state])
            below = episode.importance[index] ** self._count_exponent if episode.importance else 1.0
            yield int(number[state]), actions, shares, weight * below
        if not won or eos is None:
            return
        # The task's verdict ended the game; the policy learns to end the answer by itself.
        for end in _ends(episode, answer):
            if not answer or end == 0 or answer[end - 1] != eos:
                yield int(number[end]), [eos], np.ones(1), 1.0

    def _values_of(self, episode: Episode, kept: Ids) -> npt.NDArray[np.float32]:
        states = len(episode.tokens) - episode.prompt_len + 1
        believed = np.full(states, episode.outcome, np.float32)
        believed[: len(episode.root_values)] = episode.root_values
        if episode.parents:
            return believed[kept]
        return mix_targets(episode.outcome, believed, self._root_value_mix)[kept]

    def _equivalent(self, chosen: Ids, task: Task | None, rng: np.random.Generator) -> list[Ids]:
        own = [self._prompts[index] for index in chosen.tolist()]
        if task is None:
            return own
        texts = [task.augment(self._prompt_texts[index], rng) for index in chosen.tolist()]
        # An equivalent of a prompt that was checked when it was played needs no second check, only speed.
        encodings = self._student.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        bos = self._student.tokenizer.bos_token_id
        return [
            np.asarray(([bos] if old[0] == bos else []) + encoding.ids, np.int64)
            for old, encoding in zip(own, encodings, strict=True)
        ]


def _kept(episode: Episode, value_states: int | None, rng: np.random.Generator | None) -> Any:
    """Which states of an episode are learnt from, bool [n + 1]: of a tree those with policy targets, a few
    more, and whatever stands above them.
    """
    states = len(episode.tokens) - episode.prompt_len + 1
    if not episode.parents or value_states is None or rng is None:
        return np.ones(states, np.bool_)
    kept = np.zeros(states, np.bool_)
    kept[0] = True
    kept[np.asarray(episode.positions, np.int64) - (episode.prompt_len - 1)] = True
    kept[_ends(episode, episode.tokens[episode.prompt_len :])] = True
    others = np.flatnonzero(~kept)
    kept[rng.choice(others, size=min(value_states, len(others)), replace=False)] = True
    above = np.asarray(episode.parents) + 1
    for state in range(states - 1, 0, -1):
        if kept[state]:
            kept[above[state - 1]] = True
    return kept


def _answer(episode: Episode, kept: Any) -> tuple[Ids, Ids]:
    """Answer tokens of the kept states, and the number of the token before each (-1 for the prompt)."""
    answer = np.asarray(episode.tokens[episode.prompt_len :], np.int64)
    if not episode.parents:
        return answer, np.arange(-1, len(answer) - 1)
    number = np.cumsum(kept) - 2  # of the answer token behind a state
    wanted = kept[1:]
    return answer[wanted], number[np.asarray(episode.parents, np.int64)[wanted] + 1]


def _ends(episode: Episode, answer: Sequence[int]) -> Ids:
    """States in which a solution ends: of a won path its last one, of a tree its solved leaves."""
    if not episode.parents:
        return np.asarray([len(answer)] if episode.outcome > 0 else [], np.int64)
    leaf = np.ones(len(answer) + 1, np.bool_)
    leaf[np.asarray(episode.parents) + 1] = False
    return np.flatnonzero(leaf & (np.asarray(episode.root_values) >= 1.0))


def _table(actions: list[Any], weights: list[Any]) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Rows of different lengths side by side, padded with weight 0."""
    lengths = np.asarray([len(row) for row in actions], np.int64)
    width = int(lengths.max(initial=1))
    shape = (len(actions), width)
    used = np.arange(width) < lengths[:, None]
    table, shares = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    if len(actions):
        table[used] = [action for row in actions for action in row]
        shares[used] = np.concatenate(weights)
    return table, shares


def _ranges(first: Ids, count: Ids) -> Ids:
    """first[0], first[0] + 1, ..., ``count[0]`` of them, then those of the next."""
    total = int(count.sum())
    offset = np.repeat(first - (np.cumsum(count) - count), count)
    return offset + np.arange(total)

"""The replay window as arrays, and training batches cut from it.

Episodes are laid out once per round so that a batch costs a few array look-ups. One causal forward per
sequence then trains every searched position in it. This file does not know the losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.sequence_packing import Layout, pad, place
from tokenzero.policy.student import Student
from tokenzero.selfplay.episode import Episode
from tokenzero.tasks import Task
from tokenzero.value import mix_targets


class Batch(NamedTuple):
    """``ids`` i64 [R, W]; ``positions`` i64 [R, W], None when each row holds one sequence. A cell is an index
    into the R * W tokens, row by row. P policy targets: ``cells`` i64 [P], ``actions`` i64 [P, K],
    ``weights`` f32 [P, K] (0 at pads), ``importance`` f32 [P]. V value targets: ``value_cells`` i64 [V],
    ``value_targets`` f32 [V]. ``starts`` i64 [N]: the cell at which each episode begins.
    """

    ids: torch.Tensor
    positions: torch.Tensor | None
    cells: torch.Tensor
    actions: torch.Tensor
    weights: torch.Tensor
    importance: torch.Tensor
    value_cells: torch.Tensor
    value_targets: torch.Tensor
    starts: torch.Tensor


class Totals(NamedTuple):
    """Sum of the policy targets' importance, number of policy targets, number of value targets."""

    importance: float
    positions: int
    values: int


class Replay:
    """E episodes, at most M searched positions each.

    Answer arrays are indexed by answer position j: the state after j answer tokens. ``_actions`` i64 and
    ``_weights`` f32 [E, M, K] hold the visit distributions (M counts one position more than any answer, for
    the end mark), ``_importance`` f32 [E, M] the policy loss's weight (0: not searched), ``_believed`` f32
    [E, M] root values. In won games ``played_share`` of each visit distribution goes to the move played.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        student: Student,
        *,
        lost_weight: float = 1.0,
        root_value_mix: float = 0.0,
        played_share: float = 0.0,
    ) -> None:
        if not episodes:
            raise InputError("there are no episodes to learn from; play at least one game")
        self._student = student
        self._prompt_texts = [episode.prompt for episode in episodes]
        self._prompts = [episode.tokens[: episode.prompt_len] for episode in episodes]
        self._answers = [episode.tokens[episode.prompt_len :] for episode in episodes]
        self._lengths = np.asarray([len(answer) for answer in self._answers])
        longest = int(self._lengths.max()) + 1
        slots = max((len(actions) for e in episodes for actions in e.actions), default=1)
        shape = (len(episodes), longest)
        # One slot more than any search had, for the move that was played.
        self._actions = np.zeros((*shape, slots + 1), np.int64)
        self._weights = np.zeros((*shape, slots + 1), np.float32)
        self._importance = np.zeros(shape, np.float32)
        self._targets = np.zeros(shape, np.float32)
        for row, episode in enumerate(episodes):
            self._lay_out(row, episode, lost_weight, root_value_mix, played_share)

    def __len__(self) -> int:
        return len(self._prompts)

    def _lay_out(
        self, row: int, episode: Episode, lost_weight: float, root_value_mix: float, played_share: float
    ) -> None:
        won = episode.outcome > 0
        played = played_share if won else 0.0
        for position, actions, weights in zip(
            episode.positions, episode.actions, episode.weights, strict=True
        ):
            place = position - (episode.prompt_len - 1)
            self._actions[row, place, : len(actions)] = actions
            self._weights[row, place, : len(weights)] = np.multiply(weights, 1.0 - played)
            self._actions[row, place, -1] = episode.tokens[position + 1]
            self._weights[row, place, -1] = played
            self._importance[row, place] = 1.0 if won else lost_weight
        end, answer, eos = len(self._answers[row]), self._answers[row], self._student.eos_id
        if won and eos is not None and (not answer or answer[-1] != eos):
            # The task's verdict ended the game; the policy learns to end the answer by itself.
            self._actions[row, end, 0], self._weights[row, end, 0], self._importance[row, end] = eos, 1.0, 1.0
        believed = np.full(self._targets.shape[1], episode.outcome, np.float32)
        believed[: len(episode.root_values)] = episode.root_values
        self._targets[row] = mix_targets(episode.outcome, believed, root_value_mix)

    def totals(self, chosen: npt.NDArray[np.int64]) -> Totals:
        """How much there is to learn from the episodes ``chosen`` i64 [N]."""
        importance = self._importance[chosen]
        return Totals(
            importance=float(importance.sum()),
            positions=int(np.count_nonzero(importance)),
            values=int(self._lengths[chosen].sum()) + len(chosen),
        )

    def batch(
        self,
        chosen: npt.NDArray[np.int64],
        task: Task | None,
        rng: np.random.Generator,
        layout_of: Callable[[npt.NDArray[np.int64]], Layout] = pad,
    ) -> Batch:
        """The episodes ``chosen`` i64 [N], laid out by ``layout_of`` their lengths. With a ``task`` each
        prompt is replaced by an equivalent one (its ``augment``).
        """
        prompts = self._equivalent(chosen, task, rng)
        lengths = self._lengths[chosen]
        before = np.asarray([len(prompt) for prompt in prompts])
        layout = layout_of(before + lengths)
        answers = (self._answers[index] for index in chosen.tolist())
        sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        ids, positions = place(sequences, layout, self._student.pad_id)
        first = layout.starts + before - 1  # the cell after which an answer begins
        importance = self._importance[chosen]
        rows, places = np.nonzero(importance)
        source = chosen[rows]
        value_rows, value_places = np.nonzero(np.arange(self._targets.shape[1]) <= lengths[:, None])
        arrays = (
            ids,
            positions,
            first[rows] + places,
            self._actions[source, places],
            self._weights[source, places],
            importance[rows, places],
            first[value_rows] + value_places,
            self._targets[chosen[value_rows], value_places],
            layout.starts,
        )
        batch = Batch(*(torch.from_numpy(array).to(self._student.device) for array in arrays))
        return batch if layout.packed else batch._replace(positions=None)

    def _equivalent(
        self, chosen: npt.NDArray[np.int64], task: Task | None, rng: np.random.Generator
    ) -> list[list[int]]:
        own = [self._prompts[index] for index in chosen.tolist()]
        if task is None:
            return own
        texts = [task.augment(self._prompt_texts[index], rng) for index in chosen.tolist()]
        # An equivalent of a prompt that was checked when it was played needs no second check, only speed.
        encodings = self._student.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        bos = self._student.tokenizer.bos_token_id
        return [
            ([bos] if old[0] == bos else []) + encoding.ids
            for old, encoding in zip(own, encodings, strict=True)
        ]

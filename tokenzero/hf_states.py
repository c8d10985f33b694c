"""What lets the search work on token ids that somebody else encoded, as ``model.generate`` hands them over.

A prompt is a row of ids, and stands as the text of its numbers ("17 4 230"), so that every method can be used
as it is. Logits processors and stopping criteria of transformers are asked about every state that a method
looks at, with the whole ids of the state, padding included, as they are in ``generate``. Nothing here
searches, and no text is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tokenzero.answer_limits import FreeText
from tokenzero.policy.engine import Engine, Ids, Step
from tokenzero.tasks import ONGOING, Automaton, PublicProblem, Verdict, Verdicts

ENDED = Verdict(True, None)


@lru_cache(maxsize=4)
def id_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose token i is the word "i", for ``size`` tokens; none of them is special."""
    backend = Tokenizer(models.WordLevel({str(index): index for index in range(size)}))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


def written(tokens: Iterable[int]) -> str:
    """The text of ids."""
    return " ".join(map(str, tokens))


def read_ids(text: str) -> list[int]:
    """The ids of a text."""
    return [int(word) for word in text.split()]


class Paths:
    """Every sequence of tokens that was met, as a trie: node r is row r of the batch, the others are found
    by (node, token), so whoever comes to the same sequence comes to the same node.

    ``rows`` i64 [R, T] are the prompts with their padding, ``prompts`` the same without it, ``pad`` the token
    that fills ended rows. Of equal prompts the first one's node stands for all. ``ended`` are the nodes that
    the stopping criteria end.
    """

    def __init__(self, rows: torch.Tensor, prompts: Sequence[Sequence[int]], pad: int = 0) -> None:
        self.device = rows.device
        self.ended: set[int] = set()
        self._pad = pad
        self._rows = rows.cpu().numpy()
        self._root: dict[tuple[int, ...], int] = {}
        self._equal: dict[int, list[int]] = {}  # rows of one prompt, by the first of them
        for row, prompt in enumerate(prompts):
            self._equal.setdefault(self._root.setdefault(tuple(prompt), row), []).append(row)
        self._child: dict[tuple[int, int], int] = {}
        self._count = len(prompts)
        # parent, token, answer length and batch row of each node
        self._nodes = np.zeros((4, max(1024, 2 * self._count)), np.int64)
        self._nodes[3, : self._count] = np.arange(self._count)

    def root(self, prompt: Sequence[int]) -> int:
        """The node of a prompt of the batch, given without padding."""
        return self._root[tuple(prompt)]

    def children(self, nodes: Ids, tokens: Ids) -> Ids:
        """The nodes after ``nodes`` by ``tokens``, all i64 [L]."""
        found = np.empty(len(nodes), np.int64)
        for index, key in enumerate(zip(nodes.tolist(), tokens.tolist(), strict=True)):
            found[index] = self._child[key] if key in self._child else self._add(*key)
        return found

    def _add(self, parent: int, token: int) -> int:
        node = self._count
        if node == self._nodes.shape[1]:
            self._nodes = np.concatenate([self._nodes, np.zeros_like(self._nodes)], axis=1)
        self._nodes[:, node] = parent, token, self._nodes[2, parent] + 1, self._nodes[3, parent]
        self._count += 1
        self._child[parent, token] = node
        return node

    def by_length(self, nodes: Ids) -> Iterator[tuple[Ids, torch.Tensor]]:
        """``nodes`` i64 [L] in groups of one length: their indices i64 [G] and whole ids i64 [G, T + answer],
        on the device of the batch.
        """
        lengths = self._nodes[2, nodes]
        for length in np.unique(lengths).tolist():
            index = np.flatnonzero(lengths == length)
            yield index, torch.from_numpy(self._ids(nodes[index], length)).to(self.device)

    def _ids(self, nodes: Ids, length: int) -> Ids:
        width = self._rows.shape[1]
        ids = np.empty((len(nodes), width + length), np.int64)
        ids[:, :width] = self._rows[self._nodes[3, nodes]]
        for column in range(width + length - 1, width - 1, -1):
            ids[:, column] = self._nodes[1, nodes]
            nodes = self._nodes[0, nodes]
        return ids

    def batches(self, nodes: Ids) -> Iterator[tuple[Ids, Ids, torch.Tensor]]:
        """``nodes`` i64 [L] as batches like those of ``generate``: indices i64 [G] of some of them, the rows
        i64 [G] they are in, and ids i64 [R, T + answer], where row r holds what continues row r of the batch.
        Rows without a node look ended: the prompt, then padding.
        """
        for index, ids in self.by_length(nodes):
            roots, width = self._nodes[3, nodes[index]].tolist(), self._rows.shape[1]
            turn: dict[int, int] = dict.fromkeys(roots, 0)
            places = np.empty((2, len(index)), np.int64)  # which batch, which row
            for k, root in enumerate(roots):
                equal = self._equal[root]
                places[:, k] = turn[root] // len(equal), equal[turn[root] % len(equal)]
                turn[root] += 1
            for batch in range(places[0].max() + 1):
                among = np.flatnonzero(places[0] == batch)
                shown = torch.full((len(self._rows), ids.shape[1]), self._pad, dtype=ids.dtype)
                shown[:, :width] = torch.from_numpy(self._rows)
                shown[places[1, among]] = ids[among].cpu()
                yield index[among], places[1, among], shown.to(self.device)


class Criteria:
    """The stopping criteria, asked about any states; what they say is kept in ``paths.ended``."""

    def __init__(self, criteria: Iterable[Any], paths: Paths) -> None:
        self._criteria = list(criteria)
        self._paths = paths

    def end(self, nodes: Ids) -> NDArray[np.bool_]:
        """Whether one of the criteria ends each of ``nodes`` i64 [L]."""
        done = np.zeros(len(nodes), np.bool_)
        for index, ids in self._paths.by_length(nodes):
            for criterion in self._criteria:
                done[index] |= _said(criterion, ids)
        self._paths.ended.update(nodes[done].tolist())
        return done


def _said(criterion: Any, ids: torch.Tensor) -> NDArray[np.bool_]:
    """What a criterion says of each row; one that gives a single truth is asked row by row."""
    said = criterion(ids, None)
    if isinstance(said, torch.Tensor) and said.shape == ids.shape[:1]:
        return np.asarray(said.cpu().numpy(), np.bool_)
    if len(ids) == 1:
        return np.asarray([bool(said)])
    return np.asarray([bool(criterion(row[None], None)) for row in ids])


class GivenIds(FreeText):
    """Free text whose answers end where the stopping criteria say, at ``max_answer_tokens`` at the latest."""

    def __init__(self, max_answer_tokens: int, paths: Paths, criteria: Criteria) -> None:
        super().__init__(max_answer_tokens)
        self.name = "transformers"
        self._paths = paths
        self._stops = criteria

    def automaton(self, pieces: Sequence[str]) -> Automaton:
        """The criteria on tokens; an automaton's state is a node of the paths."""
        return _Watch(self._paths, self._stops)

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        """Whether the criteria end this answer; nobody can score it."""
        node = np.asarray([self._paths.root(read_ids(problem.prompt))])
        tokens = read_ids(answer)
        for token in tokens:
            node = self._paths.children(node, np.asarray([token]))
        return ENDED if tokens and self._stops.end(node)[0] else ONGOING


class _Watch:
    def __init__(self, paths: Paths, criteria: Criteria) -> None:
        self._paths = paths
        self._criteria = criteria

    def begin(self, problems: Sequence[PublicProblem]) -> tuple[Ids, Ids]:
        roots = [self._paths.root(read_ids(problem.prompt)) for problem in problems]
        return np.asarray(roots, np.int64), np.zeros(len(roots), np.int64)

    def advance(self, states: Ids, tokens: Ids, goals: Ids) -> tuple[Ids, Verdicts]:
        nodes = self._paths.children(states, tokens)
        return nodes, Verdicts(self._criteria.end(nodes), np.full(len(nodes), np.nan))


class ProcessedEngine:
    """An `Engine` whose logits have gone through logits processors, ended states excepted.

    Processors see batches of as many rows as the prompts, row r a state after prompt r, because some of
    transformers' own hold a number for each row. Which states come together, and when, is not promised.
    """

    def __init__(self, engine: Engine, processors: Iterable[Any], paths: Paths) -> None:
        self.ledger = engine.ledger
        self._engine = engine
        self._processors = list(processors)
        self._paths = paths
        self._node: dict[int, int] = {}  # a state that is given out anew is written anew

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        """Forward prompts of the batch, given without padding; one state each."""
        nodes = np.asarray([self._paths.root(prompt) for prompt in prompts], np.int64)
        return self._processed(self._engine.prefill(prompts), nodes)

    def extend(self, states: Ids, tokens: Ids) -> Step:
        """Forward one token after each state."""
        parents = np.asarray([self._node[state] for state in states.tolist()], np.int64)
        return self._processed(self._engine.extend(states, tokens), self._paths.children(parents, tokens))

    def release(self, states: Ids) -> None:
        """Forget states."""
        self._engine.release(states)

    def _processed(self, step: Step, nodes: Ids) -> Step:
        self._node.update(zip(step.states.tolist(), nodes.tolist(), strict=True))
        if not self._processors:
            return step
        logits = step.logits.to(self._paths.device, torch.float32, copy=True)
        going = np.flatnonzero([node not in self._paths.ended for node in nodes.tolist()])
        for index, rows, ids in self._paths.batches(nodes[going]):
            states = torch.from_numpy(going[index]).to(logits.device)
            scores = logits[states[:1]].repeat(len(ids), 1)
            scores[rows] = logits[states]
            for processor in self._processors:
                scores = processor(ids, scores)
            logits[states] = scores[rows].to(logits)
        return Step(step.states, logits.to(step.logits.device), step.hidden)

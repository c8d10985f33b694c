"""Struct of arrays for the states of one batch of games: a growing trie of answers.

Holds what a state is (game, parent, token, text) and what its evaluation said. It computes nothing.
"""

from __future__ import annotations

import numpy as np


class StateTable:
    """Rows are states; a row's number is the handle that search carries around.

    Arrays (S rows in use, K candidates, n proposers): ``game``, ``parent``, ``token``, ``length`` (answer
    tokens), ``slot`` (engine state, -1 when never forwarded) i64 [S]; ``terminal`` bool [S]; ``value`` f32
    [S]; ``actions`` i64 [S, K], ``logits`` f32 [S, K]; ``responsibility`` f32 [S, K, n] (column 0 the
    student). ``text[s]`` is the partial answer.
    """

    def __init__(self, games: int, candidates: int, proposers: int) -> None:
        self.size = 0
        self.text: list[str] = []
        self._allocate(max(64, 64 * games), candidates, proposers)

    def _allocate(self, rows: int, candidates: int, proposers: int) -> None:
        self.game = np.zeros(rows, np.int64)
        self.parent = np.full(rows, -1, np.int64)
        self.token = np.full(rows, -1, np.int64)
        self.length = np.zeros(rows, np.int64)
        self.slot = np.full(rows, -1, np.int64)
        self.terminal = np.zeros(rows, np.bool_)
        self.value = np.zeros(rows, np.float32)
        self.actions = np.full((rows, candidates), -1, np.int64)
        self.logits = np.zeros((rows, candidates), np.float32)
        self.responsibility = np.zeros((rows, candidates, proposers), np.float32)
        self.responsibility[:, :, 0] = 1.0

    def add(self, game: int, parent: int, token: int, text: str) -> int:
        """Append a row and return its number."""
        row = self.size
        if row == len(self.game):
            self._grow()
        self.size = row + 1
        self.game[row] = game
        self.parent[row] = parent
        self.token[row] = token
        if parent >= 0:
            self.length[row] = self.length[parent] + 1
        self.text.append(text)
        return row

    def answer(self, row: int) -> list[int]:
        """Answer tokens from the end of the prompt to this state."""
        tokens = []
        while self.parent[row] >= 0:
            tokens.append(int(self.token[row]))
            row = int(self.parent[row])
        return tokens[::-1]

    def _grow(self) -> None:
        old = {name: array for name, array in vars(self).items() if isinstance(array, np.ndarray)}
        self._allocate(2 * self.size, self.actions.shape[1], self.responsibility.shape[2])
        for name, array in old.items():
            getattr(self, name)[: self.size] = array[: self.size]

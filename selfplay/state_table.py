"""Struct of arrays for the states of the games in play: a trie of answers per game, in rows that are used
again.

Holds what a state is (game, parent, token, text) and what its evaluation said, finds the child of a state by
its token, and frees whole subtrees. It evaluates nothing.

The kernels are compiled without reference counts and do not allocate; `StateTable` grows the arrays for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
Ids = NDArray[np.int64]
I32 = NDArray[np.int32]
F32 = NDArray[np.float32]

NONE = -1
LOWEST = np.float32(np.finfo(np.float32).min)
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


def kernel(function: F) -> F:
    """Compile a kernel that neither allocates nor counts references to its arrays."""
    options: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
    return cast("F", njit(**options)(function))


@kernel
def _find_slots(game: Ids, actions: Ids, states: Ids, tokens: Ids, slots: Ids) -> int:
    """Candidate slot of each of ``tokens`` under its state; returns the first index without one, NONE if
    none.
    """
    for i in range(states.shape[0]):
        state, token = states[i], tokens[i]
        if state < 0 or state >= game.shape[0] or game[state] < 0 or token < 0:
            return i
        slots[i] = NONE
        for k in range(actions.shape[1]):
            if actions[state, k] == token:
                slots[i] = k
                break
        if slots[i] == NONE:
            return i
    return NONE


@kernel
def _find_or_add(
    game: Ids,
    parent: Ids,
    token: Ids,
    length: Ids,
    slot: Ids,
    terminal: NDArray[np.bool_],
    actions: Ids,
    logits: NDArray[np.float32],
    child: I32,
    free: I32,
    left: Ids,
    states: Ids,
    slots: Ids,
    rows: Ids,
    fresh: Ids,
) -> int:
    """The row behind each (state, slot), made where there is none; new ones go to ``fresh``, in order, and
    are counted.
    """
    count = 0
    for i in range(states.shape[0]):
        state, k = states[i], slots[i]
        row = child[state, k]
        if row == NONE:
            left[0] -= 1
            row = free[left[0]]
            child[state, k] = row
            game[row] = game[state]
            parent[row] = state
            token[row] = actions[state, k]
            length[row] = length[state] + 1
            slot[row] = NONE
            terminal[row] = False
            for j in range(actions.shape[1]):
                actions[row, j] = -1
                logits[row, j] = 0.0
                child[row, j] = NONE
            fresh[count] = row
            count += 1
        rows[i] = row
    return count


@kernel
def _fill(
    actions: Ids,
    logits: F32,
    value: F32,
    terminal: NDArray[np.bool_],
    rows: Ids,
    tokens: Ids,
    shares: F32,
    values: F32,
) -> bool:
    good = True
    for i in range(rows.shape[0]):
        row = rows[i]
        good &= not np.isnan(values[i])
        # An end that nobody verified must not pass for a solution, whose value is 1.
        highest = BELOW_ONE if terminal[row] else np.float32(1.0)
        value[row] = max(np.float32(-1.0), min(highest, values[i]))
        for k in range(tokens.shape[1]):
            good &= not np.isnan(shares[i, k])
            offered = shares[i, k] > -np.inf
            actions[row, k] = tokens[i, k] if offered else NONE
            logits[row, k] = shares[i, k] if offered else LOWEST
    return good


@kernel
def _revise(
    actions: Ids,
    logits: F32,
    responsibility: F32,
    child: I32,
    rows: Ids,
    new: Ids,
    new_logits: F32,
    new_responsibility: F32,
) -> None:
    """``new`` is used up: what has found its slot becomes NONE there."""
    for i in range(rows.shape[0]):
        row, least = rows[i], np.float32(0.0)
        for j in range(new.shape[1]):
            if new[i, j] != NONE:
                least = min(least, new_logits[i, j])
        for k in range(actions.shape[1]):
            found = NONE
            for j in range(new.shape[1]):
                if new[i, j] != NONE and new[i, j] == actions[row, k]:
                    found = j
            if found != NONE:
                logits[row, k] = new_logits[i, found]
                for p in range(responsibility.shape[2]):
                    responsibility[row, k, p] = new_responsibility[i, found, p]
                new[i, found] = NONE
            elif child[row, k] != NONE:
                logits[row, k] = least
            else:
                actions[row, k] = NONE
                logits[row, k] = LOWEST
                for p in range(responsibility.shape[2]):
                    responsibility[row, k, p] = 0.0
        slot = 0
        for j in range(new.shape[1]):
            if new[i, j] == NONE:
                continue
            while slot < actions.shape[1] and actions[row, slot] != NONE:
                slot += 1
            if slot == actions.shape[1]:
                break
            actions[row, slot] = new[i, j]
            logits[row, slot] = new_logits[i, j]
            for p in range(responsibility.shape[2]):
                responsibility[row, slot, p] = new_responsibility[i, j, p]


@kernel
def _free_below(
    game: Ids, slot: Ids, child: I32, free: I32, left: Ids, top: int, out: Ids, count: int
) -> int:
    """Free ``top`` and everything below it; engine states go to ``out`` from ``count`` on, the new count
    back.

    Freed rows are pushed on the free stack, and the stack itself is the queue of what is still to be looked
    at.
    """
    seen = int(left[0])
    free[left[0]] = top
    left[0] += 1
    game[top] = NONE
    while seen < left[0]:
        row = free[seen]
        seen += 1
        if slot[row] >= 0:
            out[count] = slot[row]
            count += 1
        for k in range(child.shape[1]):
            below = child[row, k]
            if below != NONE:
                game[below] = NONE
                free[left[0]] = below
                left[0] += 1
    return count


@kernel
def _free_siblings(
    game: Ids, parent: Ids, slot: Ids, child: I32, free: I32, left: Ids, kept: Ids, out: Ids
) -> int:
    """Free what lies beside each of ``kept``, with everything below; engine states into ``out``, counted."""
    count = 0
    for i in range(kept.shape[0]):
        above = parent[kept[i]]
        if above == NONE:
            continue
        for k in range(child.shape[1]):
            row = child[above, k]
            if row != NONE and row != kept[i]:
                child[above, k] = NONE
                count = _free_below(game, slot, child, free, left, row, out, count)
    return count


@kernel
def _free_subtrees(
    game: Ids, parent: Ids, slot: Ids, child: I32, free: I32, left: Ids, tops: Ids, out: Ids
) -> int:
    """Free each of ``tops`` with everything below; engine states into ``out``, counted. Free ones are
    skipped.
    """
    count = 0
    for i in range(tops.shape[0]):
        top = tops[i]
        if game[top] == NONE:
            continue
        above = parent[top]
        if above != NONE:
            for k in range(child.shape[1]):
                if child[above, k] == top:
                    child[above, k] = NONE
        count = _free_below(game, slot, child, free, left, top, out, count)
    return count


class StateTable:
    """Rows are states; a row's number is the handle that search carries around until the row is freed.

    Arrays (S rows of room, K candidates, n proposers): ``game`` (place of the game, -1 in a free row),
    ``parent``, ``token``, ``length`` (answer tokens), ``slot`` (engine state, -1 when never forwarded) i64
    [S]; ``terminal`` bool [S]; ``end`` i8 [S], what ended a terminal state (see `outcomes.ENDS`); ``value``
    f32 [S]; ``actions`` i64 [S, K], ``logits`` f32 [S, K]; ``child`` i32 [S, K] (row reached by the action in
    the same slot, -1 unknown); ``responsibility`` f32 [S, K, n] (column 0 the student); ``asked`` bool [S],
    whether a teacher spoke on it; ``unjudged`` f32 [S], the value without the judge's shift, where there is a
    judge; ``reward`` f32 [S] of the edge into a state and ``log_prob`` f64 [S] of the answer so far, where
    there are edge rewards; ``reading`` i64 [S] (state of the task's automaton). ``text[s]`` is the partial
    answer where the task has no automaton.
    """

    def __init__(self, rows: int, candidates: int, proposers: int) -> None:
        self.free = np.zeros(0, np.int32)
        self.left = np.zeros(1, np.int64)
        self.text: list[str] = []
        self._allocate(max(64, rows), candidates, proposers)
        self._push(0)

    def _allocate(self, rows: int, candidates: int, proposers: int) -> None:
        self.game = np.full(rows, NONE, np.int64)
        self.parent = np.full(rows, NONE, np.int64)
        self.token = np.full(rows, NONE, np.int64)
        self.length = np.zeros(rows, np.int64)
        self.reading = np.zeros(rows, np.int64)
        self.slot = np.full(rows, NONE, np.int64)
        self.terminal = np.zeros(rows, np.bool_)
        self.end = np.zeros(rows, np.int8)
        self.value = np.zeros(rows, np.float32)
        self.actions = np.full((rows, candidates), -1, np.int64)
        self.logits = np.zeros((rows, candidates), np.float32)
        self.child = np.full((rows, candidates), NONE, np.int32)
        self.responsibility = np.zeros((rows, candidates, proposers), np.float32)
        self.responsibility[:, :, 0] = 1.0
        self.asked = np.zeros(rows, np.bool_)
        self.unjudged = np.zeros(rows, np.float32)
        self.reward = np.zeros(rows, np.float32)
        self.log_prob = np.zeros(rows, np.float64)

    @property
    def used(self) -> int:
        """Rows that hold a state."""
        return len(self.game) - int(self.left[0])

    def plant(self, games: Ids) -> Ids:
        """A root row for each of ``games`` i64 [R], the places of games that begin; i64 [R]."""
        self._make_room(len(games))
        self.left[0] -= len(games)
        rows = self.free[self.left[0] : self.left[0] + len(games)][::-1].astype(np.int64)
        self.game[rows] = games
        self.parent[rows] = self.token[rows] = self.slot[rows] = NONE
        self.length[rows] = 0
        self.log_prob[rows] = 0.0
        self.terminal[rows] = False
        self.child[rows] = NONE
        return rows

    def children(self, states: Ids, tokens: Ids) -> tuple[Ids, Ids]:
        """Rows of the children of ``states`` by ``tokens`` (both i64 [L]), i64 [L], and those among them that
        are new, in the order of their first mention.

        Raises InputError for a state that is not in use, and for a token that is no candidate there.
        """
        slots, rows = np.empty(len(states), np.int64), np.empty(len(states), np.int64)
        wrong = _find_slots(self.game, self.actions, states, tokens, slots)
        if wrong != NONE:
            raise InputError(
                f"state {states[wrong]} was released or offers no action {tokens[wrong]}; "
                "expand states in use by actions of their evaluation"
            )
        self._make_room(len(states))
        fresh = np.empty(len(states), np.int64)
        count = _find_or_add(
            self.game, self.parent, self.token, self.length, self.slot, self.terminal,
            self.actions, self.logits, self.child, self.free, self.left, states, slots, rows, fresh,
        )  # fmt: skip
        return rows, fresh[:count]

    def fill(self, rows: Ids, tokens: Ids, shares: F32, values: F32) -> bool:
        """Write what the student said of ``rows`` i64 [L]: candidates ``tokens`` i64 [L, K] with
        log-probabilities ``shares`` f32 [L, K] (those of -inf are no candidates), and ``values`` f32 [L],
        clipped to [-1, 1].

        Returns whether all of it is numbers.
        """
        arrays = self.actions, self.logits, self.value, self.terminal
        return bool(_fill(*arrays, rows, tokens, shares, values))

    def revise(self, rows: Ids, actions: Ids, logits: F32, responsibility: F32) -> None:
        """Write new candidates [L, K] over those of ``rows`` i64 [L]. An action stays in its slot: one that
        was expanded even if it is no candidate any more, as unlikely as the least of the new ones.
        """
        _revise(self.actions, self.logits, self.responsibility, self.child, rows, actions.copy(), logits,
                responsibility)  # fmt: skip

    def free_siblings(self, kept: Ids) -> Ids:
        """Free everything beside the states ``kept`` i64 [R]; returns the engine states to release, i64."""
        out = np.empty(self.used, np.int64)
        count = _free_siblings(self.game, self.parent, self.slot, self.child, self.free, self.left, kept, out)
        return out[:count]

    def free_subtrees(self, tops: Ids) -> Ids:
        """Free ``tops`` i64 [R] and everything below; returns the engine states to release, i64.

        Those that are free already are left alone. Raises InputError for a number that is no row.
        """
        if len(tops) and not 0 <= tops.min() <= tops.max() < len(self.game):
            raise InputError(f"states {tops.tolist()} are not all of this table; release what it gave out")
        out = np.empty(self.used, np.int64)
        count = _free_subtrees(self.game, self.parent, self.slot, self.child, self.free, self.left, tops, out)
        return out[:count]

    def write(self, rows: Ids, texts: Sequence[str]) -> None:
        """Set the partial answers of ``rows`` i64 [L]."""
        for row, text in zip(rows.tolist(), texts, strict=True):
            self.text[row] = text

    def answer(self, row: int) -> list[int]:
        """Answer tokens from the end of the prompt to this state."""
        tokens = []
        while self.parent[row] >= 0:
            tokens.append(int(self.token[row]))
            row = int(self.parent[row])
        return tokens[::-1]

    def _make_room(self, rows: int) -> None:
        """Grow until ``rows`` rows are free; no kernel runs with fewer than it may take."""
        old = len(self.game)
        if rows <= self.left[0]:
            return
        arrays = {name: array for name, array in vars(self).items() if isinstance(array, np.ndarray)}
        kept = {name: array for name, array in arrays.items() if name not in ("free", "left")}
        self._allocate(max(2 * old, old + rows), self.actions.shape[1], self.responsibility.shape[2])
        for name, array in kept.items():
            getattr(self, name)[:old] = array
        self._push(old)

    def _push(self, first: int) -> None:
        """Put the rows from ``first`` on below those that are free already, the lowest on top."""
        self.text += [""] * (len(self.game) - len(self.text))
        free = np.zeros(len(self.game), np.int32)
        new, before = np.arange(len(self.game) - 1, first - 1, -1, dtype=np.int32), int(self.left[0])
        free[: len(new)] = new
        free[len(new) : len(new) + before] = self.free[:before]
        self.free = free
        self.left[0] = before + len(new)

"""Compiled work on n-gram tables: checking one, looking contexts up. Counting is in ngram_counting.py.

Kernels trust their inputs (indices of a table that came from a file are checked by `sound` first), allocate
nothing and draw nothing. They stand in one file because cached compilation does not see changes in other
files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
I32 = NDArray[np.int32]
Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

NONE = -1


def kernel(function: F) -> F:
    """Compile a kernel that neither allocates nor holds the interpreter's lock."""
    options: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True, "_nrt": False}
    return cast("F", njit(**options)(function))


class Table(NamedTuple):
    """Contexts of all lengths and what followed them, smoothed. Every array is read-only.

    Contexts are numbered by length and then in the order of their tokens read backwards; 0 is the empty one.
    ``older`` i32 [n] is a context's oldest token; those that are one token longer than context h are
    children[h] .. children[h + 1], ascending in ``older`` (children i64 [n + 1]). Its followers are entries
    followers[h] .. followers[h + 1] (i64 [n + 1]), at least one, of ``tokens`` i32 [m], ascending, and
    ``counts`` i32 [m], as often as the smoothing says they were seen. With ``discounts`` f64 [order, 4] by
    length and min(count, 3), ``total`` i64 [n] and ``backoff`` f64 [n]:
    P(w | h) = (count - discount) / total[h] (0 for no follower) + backoff[h] * P(w | h without its oldest
    token), and below the empty context lies 1 / vocabulary.
    """

    older: Any
    children: Any
    followers: Any
    tokens: Any
    counts: Any
    total: Any
    backoff: Any
    discounts: Any


class Work(NamedTuple):
    """Room for one look-up at a time: by length of the context [order], by token [V]; ``mark`` is all 0
    between calls.
    """

    nodes: Ids
    entries: Ids
    totals: Floats
    scales: Floats
    value: Floats
    mark: NDArray[np.uint8]


# ---- checking


@kernel
def sound(table: Table, vocab_size: int) -> bool:
    """Whether every index points inside, contexts and followers ascend, and all numbers are in range."""
    contexts, entries = len(table.older), len(table.tokens)
    if contexts < 1 or table.children[0] != 1 or table.children[contexts] != contexts:
        return False
    if table.followers[0] != 0 or table.followers[contexts] != entries or entries > 2**62:
        return False
    for context in range(contexts):
        first, end = table.followers[context], table.followers[context + 1]
        begin, stop = table.children[context], table.children[context + 1]
        if first >= end or end > entries or begin > stop or begin <= context or stop > contexts:
            return False
        if table.total[context] < 1 or not 0 <= table.backoff[context] <= 1:
            return False
        last = np.int64(NONE)
        for entry in range(first, end):
            if not last < table.tokens[entry] < vocab_size or table.counts[entry] < 1:
                return False
            last = table.tokens[entry]
        last = np.int64(NONE)
        for child in range(begin, stop):
            if not last < table.older[child] < vocab_size:
                return False
            last = table.older[child]
    return True


# ---- looking up


@kernel
def find(values: I32, first: int, end: int, wanted: int) -> int:
    """Where ``wanted`` stands among values[first:end], which ascend; NONE if it is not there."""
    low, high = first, end
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    if low < end and values[low] == wanted:
        return low
    return NONE


@kernel
def descend(table: Table, text: Ids, end: int, visible: int, nodes: Ids) -> int:
    """The contexts of each length before text[end], of whose last ``visible`` tokens may be read. Returns how
    many are known, at least 1: the empty one.
    """
    known = 1
    nodes[0] = 0
    while known < len(nodes) and known <= visible:
        above = nodes[known - 1]
        below = find(table.older, table.children[above], table.children[above + 1], text[end - known])
        if below == NONE:
            break
        nodes[known] = below
        known += 1
    return known


@kernel
def deepest(table: Table, text: Ids, ends: Ids, nodes: Ids, out: Ids) -> None:
    """The longest known context before each of text[ends], for ``out`` [P]: two places with the same one
    have the same distribution.
    """
    for row in range(len(ends)):
        out[row] = nodes[descend(table, text, ends[row], ends[row], nodes) - 1]


@kernel
def follower(table: Table, context: int, token: int) -> int:
    """The entry of ``token`` after ``context``, NONE if it never followed."""
    return find(table.tokens, table.followers[context], table.followers[context + 1], token)


@kernel
def log_probs_of_text(
    table: Table, vocab_size: int, text: Ids, begin: int, held_out: bool, nodes: Ids, out: Floats
) -> None:
    """ln P of text[begin:] into ``out``, each token given those before it. ``held_out``: each by the table
    without that one occurrence (Witten-Bell only); what was never counted stays as it is.
    """
    for end in range(begin, len(text)):
        known = descend(table, text, end, end, nodes)
        probability = 1.0 / vocab_size
        entry = 0
        for length in range(known):
            context = nodes[length]
            if entry != NONE:
                entry = follower(table, context, text[end])
            if entry == NONE:
                probability *= table.backoff[context]
                continue
            count = table.counts[entry]
            if held_out:
                gone = 1 if count == 1 else 0
                total = table.total[context] - 1 - gone
                if total == 0:  # the context was seen this once: it is unknown, and so are longer ones
                    break
                kinds = table.followers[context + 1] - table.followers[context] - gone
                probability = (count - 1 + kinds * probability) / total
            else:
                seen = (count - table.discounts[length, min(count, 3)]) / table.total[context]
                probability = seen + table.backoff[context] * probability
        out[end - begin] = math.log(probability)


@kernel
def weigh(table: Table, known: int, truth: int, work: Work) -> int:
    """Set ``work.totals`` and ``scales`` of the contexts in ``work.nodes``, and ``work.entries`` to the
    entries that lose one count: those of ``truth``, NONE without one. Returns how many contexts are known
    then.

    The scale of a length is the product of the back-offs of all longer ones.
    """
    found = truth != NONE
    for length in range(known):
        context = work.nodes[length]
        work.totals[length] = table.total[context]
        work.scales[length] = table.backoff[context]
        entry = NONE
        if found:
            entry = follower(table, context, truth)
            found = entry != NONE
        work.entries[length] = entry
        if found:
            gone = 1 if table.counts[entry] == 1 else 0
            total = table.total[context] - 1 - gone
            work.totals[length] = total
            if total == 0:
                known = max(1, length)
                break
            kinds = table.followers[context + 1] - table.followers[context] - gone
            work.scales[length] = kinds / total
    product = 1.0
    for length in range(known - 1, -1, -1):
        own = work.scales[length]
        work.scales[length] = product
        product *= own
    return known


@kernel
def unigram_change(table: Table, vocab_size: int, work: Work) -> tuple[float, float, float]:
    """What leaving out a token does to the empty context: P of every other token becomes P * factor - less;
    third is the token's own.
    """
    entry = work.entries[0]
    if entry == NONE:
        return 1.0, 0.0, 0.0
    total = work.totals[0]
    if total == 0:  # it was the only token of all
        return 0.0, -1.0 / vocab_size, 1.0 / vocab_size
    gone = 1 if table.counts[entry] == 1 else 0
    kinds = table.followers[1] - gone
    own = (table.counts[entry] - 1 + kinds / vocab_size) / total
    return table.total[0] / total, gone / (vocab_size * total), own


@kernel
def gather(table: Table, known: int, truth: int, change: Any, unigram: Floats, work: Work) -> None:
    """P of every follower of the context of length 1, into ``work.value``. Whatever followed a longer context
    followed that one, so all other tokens have their unigram probability times scales[0].
    """
    factor, less, own = change
    context = work.nodes[1]
    for entry in range(table.followers[context], table.followers[context + 1]):
        token = table.tokens[entry]
        base = own if token == truth and work.entries[0] != NONE else unigram[token] * factor - less
        work.value[token] = work.scales[0] * base
    for length in range(1, known):
        context, total, scale = work.nodes[length], work.totals[length], work.scales[length]
        for entry in range(table.followers[context], table.followers[context + 1]):
            count = table.counts[entry]
            seen = count - table.discounts[length, min(count, 3)]
            if entry == work.entries[length]:
                seen -= 1.0
            work.value[table.tokens[entry]] += scale * (seen / total)


@kernel
def log_probs_after(
    table: Table,
    unigram: Floats,
    log_unigram: Floats,
    text: Ids,
    ends: Ids,
    visible: Ids,
    truth: Ids,
    work: Work,
    out: Any,
) -> None:
    """ln P of every token at text[end], for each of ``ends`` [P], into ``out`` f32 or f64 [P, V].
    ``truth`` [P]: the occurrence to leave out, NONE for none.
    """
    for row in range(len(ends)):
        known = descend(table, text, ends[row], visible[row], work.nodes)
        known = weigh(table, known, truth[row], work)
        change = unigram_change(table, len(unigram), work)
        factor, less, own = change
        if less == 0.0:
            shift = math.log(work.scales[0] * factor)
            for token in range(len(unigram)):
                out[row, token] = log_unigram[token] + shift
        else:
            for token in range(len(unigram)):
                out[row, token] = math.log(work.scales[0] * (unigram[token] * factor - less))
        if work.entries[0] != NONE:
            out[row, truth[row]] = math.log(work.scales[0] * own)
        if known > 1:
            gather(table, known, truth[row], change, unigram, work)
            context = work.nodes[1]
            for entry in range(table.followers[context], table.followers[context + 1]):
                token = table.tokens[entry]
                out[row, token] = math.log(work.value[token])


@kernel
def insert(actions: Any, probs: Any, size: int, token: int, probability: np.float32) -> int:
    """Put a token into a list kept by probability, ties to the lowest token. Returns how many it holds."""
    last = len(actions) - 1
    if size > last:
        if probs[last] > probability or (probs[last] == probability and actions[last] < token):
            return size
        size = last
    at = size
    while at > 0 and (
        probs[at - 1] < probability or (probs[at - 1] == probability and actions[at - 1] > token)
    ):
        probs[at] = probs[at - 1]
        actions[at] = actions[at - 1]
        at -= 1
    probs[at] = probability
    actions[at] = token
    return size + 1


@kernel
def likeliest_after(
    table: Table,
    unigram: Floats,
    common: Ids,
    text: Ids,
    ends: Ids,
    visible: Ids,
    work: Work,
    actions: Ids,
    probs: NDArray[np.float32],
) -> None:
    """The likeliest tokens at text[end] with their probabilities, best first, into ``actions`` and ``probs``
    [P, k]. ``common`` [V] are all tokens by unigram probability: beside the followers of a context only the
    commonest others can be among the best.
    """
    k = actions.shape[1]
    change = (1.0, 0.0, 0.0)
    for row in range(len(ends)):
        known = descend(table, text, ends[row], visible[row], work.nodes)
        known = weigh(table, known, NONE, work)
        size = 0
        first = end = np.int64(0)
        if known > 1:
            gather(table, known, NONE, change, unigram, work)
            first, end = table.followers[work.nodes[1]], table.followers[work.nodes[1] + 1]
        for entry in range(first, end):
            token = table.tokens[entry]
            work.mark[token] = 1
            size = insert(actions[row], probs[row], size, token, np.float32(work.value[token]))
        others = 0
        for token in common:
            if others == k:
                break
            if work.mark[token] == 0:
                others += 1
                probability = np.float32(work.scales[0] * unigram[token])
                size = insert(actions[row], probs[row], size, token, probability)
        for entry in range(first, end):
            work.mark[table.tokens[entry]] = 0

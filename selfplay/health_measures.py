"""What a round's health is measured from: forwards over finished games, and the figures drawn from them.

``probe`` asks the nets about every state of some games; ``measure`` turns that, the learner's losses and the
round's episodes into one number for each measure. Thresholds and alarms are in ``health``. It plays no games
and changes no weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pretrain import Example
from tokenzero.policy.sequence_packing import pad, place
from tokenzero.policy.student import Student
from tokenzero.selfplay.calibration import calibration_error, explained_variance, overconfidence_error
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.learner import Losses
from tokenzero.value import ValueHead

F32 = npt.NDArray[np.float32]

LOGITS = 1 << 24
"""Logits that one forward may write, so that a large vocabulary does not fill the memory."""
LOWEST = 5
"""Percentile of ``entropy_min``: the plain minimum would be that of one odd problem."""


class Probe(NamedTuple):
    """What the nets say at the S states of some games, those after the prompt and after each answer token.

    ``game`` i64 [S], the number of its game; ``last`` bool [S], whether the answer ends there; ``target`` f32
    [S] in [-1, 1], the outcome z or what else is known to be the state's worth; ``value`` f32 [S] in [-1, 1]
    and ``value_loss`` f32 [S], the head's own loss against ``target``. The policy's, over the whole
    vocabulary, in nats, and of no use where ``last``: ``log_probability`` f32 [S] of the token that was
    played, probability ``confidence`` f32 [S] of the likeliest, ``entropy`` f32 [S], and ``kl`` f32 [S] from
    the reference, None without one.
    """

    game: npt.NDArray[np.int64]
    last: npt.NDArray[np.bool_]
    target: F32
    value: F32
    value_loss: F32
    log_probability: F32
    confidence: F32
    entropy: F32
    kl: F32 | None


@torch.inference_mode()
def probe(
    student: Student,
    value_head: ValueHead,
    games: Sequence[Example],
    outcomes: Sequence[float | Sequence[float]],
    *,
    reference: Student | None = None,
) -> Probe:
    """Forward ``games`` (prompt and answer tokens; an answer may be empty), each once by ``student`` and once
    by ``reference``, of the same vocabulary.

    ``outcomes`` in [-1, 1]: of each game its z, or a value target for each of its states.

    Raises:
        InputError: no games, another number of outcomes or targets, or one outside [-1, 1].
    """
    if not games or len(games) != len(outcomes):
        raise InputError(
            f"there are {len(games)} games and {len(outcomes)} outcomes; give some, one for each"
        )
    lengths = np.asarray([len(game.tokens) for game in games])
    prompts = np.asarray([game.prompt_length for game in games])
    states = lengths - prompts + 1
    targets = _targets(outcomes, states)
    offsets = np.cumsum(states) - states
    number = np.repeat(np.arange(len(games)), states)
    last = np.zeros(len(number), np.bool_)
    last[offsets + states - 1] = True
    found = np.zeros((6, len(number)), np.float32)
    for chosen in _batches(lengths, student.vocab_size):
        rows = np.repeat(np.arange(len(chosen)), states[chosen])
        within = np.concatenate([np.arange(states[index]) for index in chosen.tolist()])
        columns = prompts[chosen][rows] - 1 + within
        layout = pad(lengths[chosen])
        ids, _ = place([games[index].tokens for index in chosen.tolist()], layout, student.pad_id)
        after = np.minimum(columns + 1, layout.width - 1)
        cells = [torch.from_numpy(a).to(student.device) for a in (rows, columns, ids[rows, after])]
        places = offsets[chosen][rows] + within
        target = torch.from_numpy(targets[places]).to(student.device)
        told = _asked(student, value_head, torch.from_numpy(ids), cells, target, reference)
        found[:, places] = told.float().cpu().numpy()
    value, value_loss, played, confidence, entropy, kl = found
    played[last] = 0.0  # no token follows there
    drift = None if reference is None else kl
    return Probe(number, last, targets, value, value_loss, played, confidence, entropy, drift)


def _targets(outcomes: Sequence[float | Sequence[float]], states: npt.NDArray[np.int64]) -> F32:
    """Value target of every state, f32 [S]."""
    columns = []
    for outcome, count in zip(outcomes, states.tolist(), strict=True):
        column = np.asarray(outcome, np.float32)
        if column.ndim and len(column) != count:
            raise InputError(f"a game of {count} states has {len(column)} value targets; give one for each")
        columns.append(np.broadcast_to(column, count))
    return np.concatenate(columns)


def path_of(episode: Episode, rng: np.random.Generator) -> tuple[Example, list[float]]:
    """An episode as one sequence and the value target of each of its states: itself with its outcome, or of
    a tree a path to an end drawn by ``rng``, with the tree's own targets.
    """
    first, parents = episode.prompt_len, episode.parents
    if not parents:
        return Example(episode.tokens, first), [episode.outcome] * (len(episode.tokens) - first + 1)
    ends = sorted(set(range(len(parents))) - set(parents))
    node, path = ends[int(rng.integers(len(ends)))], []
    while node >= 0:
        path.append(node)
        node = parents[node]
    path.reverse()
    answer = [episode.tokens[first + node] for node in path]
    targets = [episode.root_values[0], *(episode.root_values[node + 1] for node in path)]
    return Example([*episode.tokens[:first], *answer], first), targets


def _batches(lengths: npt.NDArray[np.int64], vocabulary: int) -> Iterator[npt.NDArray[np.int64]]:
    """Games of similar lengths together, as many as their logits allow."""
    order = np.argsort(-lengths, kind="stable")
    while order.size:
        room = max(1, LOGITS // (int(lengths[order[0]]) * vocabulary))
        yield order[:room]
        order = order[room:]


def _asked(
    student: Student,
    value_head: ValueHead,
    ids: torch.Tensor,
    cells: Sequence[torch.Tensor],
    target: torch.Tensor,
    reference: Student | None,
) -> torch.Tensor:
    """One batch ``ids`` i64 [R, W] at ``cells`` (rows, columns, next tokens; i64 [P] each), f32 [6, P]: the
    columns of a ``Probe``. What follows a token cannot change what is said at it, so rows are padded on the
    right and need no mask.
    """
    rows, columns, following = cells
    output = student.forward(ids.to(student.device), use_cache=False)
    log_policy = output.logits[rows, columns].log_softmax(-1)
    policy = log_policy.exp()
    raw = value_head(output.hidden[rows, columns])
    kl = torch.zeros_like(target)
    if reference is not None:
        logits = reference.forward(ids.to(reference.device), use_cache=False).logits.to(student.device)
        kl = _mean(policy, log_policy - logits[rows, columns].log_softmax(-1))
    told = [
        value_head.value(raw),
        value_head.loss(raw, target),
        log_policy.gather(1, following[:, None])[:, 0],
        policy.amax(1),
        -_mean(policy, log_policy),
        kl,
    ]
    return torch.stack(told)


def _mean(policy: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
    """Mean of ``logs`` [P, V] under ``policy`` [P, V], [P]; a token without probability has no weight."""
    return torch.where(policy == 0, 0.0, policy * logs).sum(1)


def measure(
    losses: Losses | None = None,
    episodes: Sequence[Episode] = (),
    *,
    held_out: Probe | None = None,
    fresh: Probe | None = None,
    learnt: Probe | None = None,
    dropped: int = 0,
) -> dict[str, float]:
    """The round's health, by measure. What there is no source for is left out.

    From ``losses``, of this round's learning: ``gradient_norm`` (mean before clipping) and
    ``gradient_variance`` (variance / squared mean over the round's steps).

    From ``episodes``, this round's games: ``duplicate_answers``, share whose (problem, answer) came before;
    ``target_entropy``, mean over the policy targets, nats; ``all_won`` and ``all_lost``, share of the
    problems all of whose games were won (z > 0) or lost; ``dropped`` more were lost and left no episode.

    From ``held_out``, greedy answers to held-out problems, probed after learning: ``confidence``, mean
    probability of the likeliest token; ``entropy``, mean over the states, and ``entropy_min``, fifth
    percentile over the games of each game's mean, nats; ``kl_from_reference``, mean over the states, nats;
    ``policy_calibration_error``, by how much the answers' probabilities exceed the share solved (see
    ``overconfidence_error``). Less is no error there: of several right answers each must get less than one.

    From ``fresh``, this round's games probed before learning from them: ``value_calibration_error`` of
    (value + 1) / 2 against (target + 1) / 2 and ``value_explained_variance``, both at unfinished states,
    where search asks; ``value_loss_unseen``, the head's loss at every state. From ``learnt``, games of
    earlier rounds, probed with the same weights: ``value_loss_seen``.
    """
    health: dict[str, float] = {}
    if losses is not None:
        health["gradient_norm"] = losses.gradient
        health["gradient_variance"] = losses.gradient_variance
    if episodes:
        health |= _of_episodes(episodes, dropped)
    if held_out is not None and not held_out.last.all():
        health |= _of_policy(held_out)
    if fresh is not None:
        health |= _of_value(fresh)
    if learnt is not None:
        health["value_loss_seen"] = float(learnt.value_loss.mean(dtype=np.float64))
    return health


def _of_episodes(episodes: Sequence[Episode], dropped: int) -> dict[str, float]:
    won: dict[str, list[bool]] = defaultdict(list)
    for episode in episodes:  # a demonstration has no problem to name
        won[episode.problem or episode.prompt].append(episode.outcome > 0)
    distinct = len({(episode.problem or episode.prompt, episode.answer) for episode in episodes})
    problems = len(won) + dropped
    health = {
        "duplicate_answers": 1.0 - distinct / len(episodes),
        "all_won": sum(all(games) for games in won.values()) / problems,
        "all_lost": (dropped + sum(not any(games) for games in won.values())) / problems,
    }
    entropies = [_entropy(weights) for episode in episodes for weights in episode.weights]
    if entropies:
        health["target_entropy"] = float(np.mean(entropies))
    return health


def _entropy(weights: Sequence[float]) -> float:
    shares = np.asarray([weight for weight in weights if weight > 0])
    return float(-(shares * np.log(shares)).sum())


def _of_policy(held_out: Probe) -> dict[str, float]:
    moves = ~held_out.last
    game, entropy = held_out.game[moves], held_out.entropy[moves].astype(np.float64)
    score = (held_out.target[held_out.last] + 1.0) / 2.0  # by game, as each ends once
    count = np.bincount(game, minlength=len(score))
    played = count > 0
    of_game = np.bincount(game, entropy, len(count))[played] / count[played]
    answer = np.exp(np.bincount(game, held_out.log_probability[moves], len(count)))
    health = {
        "confidence": float(held_out.confidence[moves].mean(dtype=np.float64)),
        "entropy": float(entropy.mean()),
        "entropy_min": float(np.percentile(of_game, LOWEST)),
    }
    if np.isfinite(answer).all():
        right = np.minimum(answer[played], 1.0)  # rounding may leave a certain answer above 1
        health["policy_calibration_error"] = overconfidence_error(right, score[played])
    if held_out.kl is not None:
        health["kl_from_reference"] = float(held_out.kl[moves].mean(dtype=np.float64))
    return health


def _of_value(fresh: Probe) -> dict[str, float]:
    health = {"value_loss_unseen": float(fresh.value_loss.mean(dtype=np.float64))}
    open_states = ~fresh.last
    value, target = fresh.value[open_states], fresh.target[open_states]
    if not value.size or not np.isfinite(value).all():
        return health
    health["value_calibration_error"] = calibration_error((value + 1.0) / 2.0, (target + 1.0) / 2.0)
    explained = explained_variance(value, target)
    if explained is not None:
        health["value_explained_variance"] = explained
    return health

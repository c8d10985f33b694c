"""Games of a run as HTML: the problem, the answer, and what search knew at each position.

It reads episodes and a tokenizer, and draws nothing by chance: the first games of each outcome are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from transformers import PreTrainedTokenizerBase

from tokenzero.selfplay.episode import Episode

SHOWN = 6
"""Games of each kind, won and lost."""
POSITIONS = 24
CANDIDATES = 8


@dataclass(frozen=True)
class Position:
    """A searched state: the answer's ``text`` so far, its ``value``, and the candidates (text, weight,
    taken), the heaviest first; ``taken`` says whether the answer went on with it.
    """

    text: str
    value: float | None
    candidates: list[tuple[str, float, bool]]


def samples(episodes: Sequence[Episode], tokenizer: PreTrainedTokenizerBase) -> str:
    """Some won and some lost games, each to be unfolded."""
    won = [episode for episode in episodes if episode.outcome > 0][:SHOWN]
    lost = [episode for episode in episodes if episode.outcome <= 0][:SHOWN]
    return "".join(game(episode, tokenizer, episode.outcome > 0) for episode in [*won, *lost])


def positions(episode: Episode, tokenizer: PreTrainedTokenizerBase) -> list[Position]:
    """The searched states of a game in the order they were stored, ``POSITIONS`` at most."""
    found = []
    for index, position in enumerate(episode.positions[:POSITIONS]):
        state = position - episode.prompt_len + 1  # state 0 is the prompt
        taken = {episode.tokens[episode.prompt_len + child] for child in _children(episode, state - 1)}
        ranked = sorted(
            zip(episode.actions[index], episode.weights[index], strict=True), key=lambda pair: -pair[1]
        )
        value = episode.root_values[state] if state < len(episode.root_values) else None
        candidates = [
            (_text(tokenizer, [action]), weight, action in taken) for action, weight in ranked[:CANDIDATES]
        ]
        found.append(Position(_text(tokenizer, _before(episode, state - 1)), value, candidates))
    return found


def _text(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens))


def _children(episode: Episode, token: int) -> list[int]:
    """Answer tokens that follow answer token ``token`` (-1: the prompt)."""
    if episode.parents:
        return [child for child, parent in enumerate(episode.parents) if parent == token]
    following = token + 1
    return [following] if episode.prompt_len + following < len(episode.tokens) else []


def _before(episode: Episode, token: int) -> list[int]:
    """The answer up to and with its token ``token``."""
    if not episode.parents:
        return episode.tokens[episode.prompt_len : episode.prompt_len + token + 1]
    path: list[int] = []
    while token >= 0:
        path.append(episode.tokens[episode.prompt_len + token])
        token = episode.parents[token]
    return path[::-1]


def game(episode: Episode, tokenizer: PreTrainedTokenizerBase, won: bool, *notes: str) -> str:
    """One game to be unfolded; ``notes`` are said of it in its head."""
    kind, said = ("yes", "won") if won else ("bad", "lost")
    rows = "".join(_row(position) for position in positions(episode, tokenizer))
    left = len(episode.positions) - POSITIONS
    more = f'<p class="note">{left} more positions</p>' if left > 0 else ""
    remarks = "".join(f'<span class="note">{escape(note)}</span>' for note in notes)
    return (
        f'<details><summary><span class="{kind}">{said}</span><code>{escape(episode.prompt)}</code>'
        f"<code><b>{escape(episode.answer) or '(nothing)'}</b></code>"
        f'<span class="note">{episode.simulations:,} simulations, {episode.forwarded_tokens:,} tokens'
        f"{', tree' if episode.parents else ''}</span>{remarks}</summary>"
        '<div class="scroll"><table><tr><th class="words">answer so far</th><th>value</th>'
        f'<th class="words">candidates and their weights</th></tr>{rows}</table></div>{more}</details>'
    )


def _row(position: Position) -> str:
    value = "" if position.value is None else f"{position.value:+.2f}"
    bars = "".join(
        f'<span class="bar{" taken" if taken else ""}"><i style="width:{100 * min(weight, 1.0):.0f}%"></i>'
        f"<code>{escape(text) or '&nbsp;'}</code> <span>{100 * weight:.0f} %</span></span>"
        for text, weight, taken in position.candidates
    )
    return (
        f'<tr><td class="words"><code>{escape(position.text) or "(the prompt)"}</code></td><td>{value}</td>'
        f'<td class="words"><div class="bars">{bars}</div></td></tr>'
    )

"""What each problem came to under each setting and seed: played, kept in a Parquet file, and as rows.

Everything that a benchmark says can be computed from its outcomes again. It takes no differences and draws
no pictures: see ``bench_curves`` and ``plots``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenzero.answering import build_method
from tokenzero.bench_settings import Setting
from tokenzero.checkpoint import Opened
from tokenzero.policy.atomic import write_bytes
from tokenzero.selfplay.evaluation import play_and_score, wilson
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import SampledGame
from tokenzero.selfplay.methods.config import DRAWING
from tokenzero.tasks import Problem

OUTCOMES_FILE = "outcomes.parquet"
ROW_KEYS = (
    "method",
    "simulations",
    "n",
    "seed",
    "accuracy",
    "ci95",
    "mean_tokens",
    "p95_tokens",
    "wall_s",
    "mean_depth",
)

WARM_UP = 4
"""Problems that are played before the clock runs."""

Row = dict[str, Any]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outcomes:
    """R settings, S seeds, P problems (``ids``).

    ``solved`` bool [R, S, P]; ``tokens`` i64 [R, S, P] forwarded for a problem, its prompt included;
    ``shared`` i64 [R, S, P], what that would be if samples of a problem shared what they begin with (see
    :func:`shared_tokens`);
    ``depth`` i64 [R, S, P], how many tokens past the prompt a method looked at most; ``wall_s`` f64 [R, S],
    seconds for all problems together. A setting that draws nothing was played with one seed and stands under
    each.
    """

    settings: list[Setting]
    seeds: list[int]
    ids: list[str]
    solved: npt.NDArray[np.bool_]
    tokens: Counts
    shared: Counts
    depth: Counts
    wall_s: npt.NDArray[np.float64]


def measure(
    opened: Opened,
    settings: Sequence[Setting],
    problems: Sequence[Problem],
    seeds: Sequence[int],
    on_setting: Callable[[str], None] | None = None,
    on_games: Callable[[int], None] | None = None,
    most_tokens: float | None = None,
) -> Outcomes:
    """Play ``problems`` by every setting with every seed. Same arguments, same outcomes (``wall_s`` apart).

    Settings that follow one of their method which took more than ``most_tokens`` a problem are left out.
    ``on_setting`` hears what is played next, ``on_games`` how many games have ended. Raises InputError for a
    setting that the model and its task cannot serve, before anything is played.
    """
    _warm_up(opened, settings, problems[:WARM_UP])
    shape = (len(seeds), len(problems))
    played: list[Setting] = []
    beyond: set[str] = set()
    columns: list[list[npt.NDArray[Any]]] = [[], [], [], [], []]
    for setting in settings:
        if setting.method in beyond:
            if on_games is not None:
                on_games(games_of([setting], seeds, len(problems)))
            continue
        row = (np.zeros(shape, np.bool_), *(np.zeros(shape, np.int64) for _ in range(3)))
        seconds = np.zeros(len(seeds))
        for s, seed in enumerate(seeds if setting.draws else seeds[:1]):
            if on_setting is not None:
                on_setting(f"{setting.label}, seed {seed}" if setting.draws else setting.label)
            method = build_method(opened, setting.config)
            score, games, scores = play_and_score(
                method, opened.parts.task, problems, setting.rng(seed), on_games
            )
            rest = slice(s, s + 1) if setting.draws else slice(None)
            row[0][rest] = [value >= 1.0 for value in scores]
            row[1][rest] = [game.forwarded for game in games]
            row[2][rest] = [shared_tokens(game, setting.method) for game in games]
            row[3][rest] = [game.depth for game in games]
            seconds[rest] = score.ledger.wall_s
        played.append(setting)
        for column, values in zip(columns, (*row, seconds), strict=True):
            column.append(values)
        if most_tokens is not None and row[1].mean() > most_tokens:
            beyond.add(setting.method)
    ids = [problem.public.id for problem in problems]
    return Outcomes(played, list(seeds), ids, *(np.stack(column) for column in columns))


def shared_tokens(game: Game, method: str) -> int:
    """Tokens that a game would forward if its samples were one tree, in which what they begin with is paid
    once. It is the count most favourable to sampling: samples that are drawn side by side cannot know what
    they will share. For methods that draw no samples, what they did forward.
    """
    if method not in DRAWING or not isinstance(game, SampledGame):
        return game.forwarded
    prefixes = {
        tuple(answer.tokens[:length]) for answer in game.answers for length in range(1, len(answer.tokens))
    }
    return min(game.forwarded, len(game.prompt) + len(prefixes) + game.ledger.value_tokens)


def _warm_up(opened: Opened, settings: Sequence[Setting], problems: Sequence[Problem]) -> None:
    """Play a few problems by each method unseen: what is compiled or allocated once is nobody's time."""
    firsts = {setting.method: build_method(opened, setting.config) for setting in reversed(settings)}
    for method in firsts.values():
        method.play([problem.public for problem in problems], np.random.default_rng(0))


def games_of(settings: Sequence[Setting], seeds: Sequence[int], problems: int) -> int:
    """How many games :func:`measure` plays."""
    return problems * sum(len(seeds) if setting.draws else 1 for setting in settings)


def as_rows(outcomes: Outcomes) -> list[Row]:
    """One row (see ``ROW_KEYS``) for each setting and seed. ``ci95`` is Wilson's interval; tokens are
    forwarded per problem, prompt included; ``wall_s`` is for all problems together.
    """
    return [
        {
            **budget_of(setting),
            "seed": seed,
            "accuracy": float(outcomes.solved[r, s].mean()),
            "ci95": list(wilson(int(outcomes.solved[r, s].sum()), len(outcomes.ids))),
            "mean_tokens": float(outcomes.tokens[r, s].mean()),
            "p95_tokens": float(np.percentile(outcomes.tokens[r, s], 95)),
            "wall_s": float(outcomes.wall_s[r, s]),
            "mean_depth": float(outcomes.depth[r, s].mean()),
        }
        for r, setting in enumerate(outcomes.settings)
        for s, seed in enumerate(outcomes.seeds)
    ]


def budget_of(setting: Setting) -> Row:
    """The columns that name a setting."""
    return {"method": setting.method, "simulations": setting.simulations, "n": setting.n}


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV; an interval takes two columns, as in ``ci95_low`` and ``ci95_high``, both empty where
    there is none.
    """
    flat = [
        {
            name: value
            for key, cell in row.items()
            for name, value in (_ends(key, cell) if key.endswith("ci95") else [(key, cell)])
        }
        for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def write_outcomes(path: Path, outcomes: dict[str, Outcomes]) -> Path:
    """Write the outcomes of each checkpoint to one Parquet file; returns its path. Raises OutputError.

    One line for a checkpoint, setting, seed and problem; ``seconds`` is an equal share of the wall time of
    all problems that were played together.
    """
    import pyarrow
    import pyarrow.parquet

    tables = [pyarrow.table(_columns(name, one)) for name, one in outcomes.items()]
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), sink)
    write_bytes(path, sink.getvalue().to_pybytes())
    return path


def _columns(checkpoint: str, outcomes: Outcomes) -> dict[str, Any]:
    shape = outcomes.solved.shape
    r, s, p = (index.ravel() for index in np.indices(shape))
    share = np.broadcast_to(outcomes.wall_s[:, :, None] / shape[2], shape)
    named = {
        key: np.asarray([budget_of(setting)[key] for setting in outcomes.settings])[r].tolist()
        for key in ("method", "simulations", "n")
    }
    return {
        "checkpoint": [checkpoint] * len(r),
        **named,
        "seed": np.asarray(outcomes.seeds)[s],
        "problem": np.asarray(outcomes.ids)[p].tolist(),
        "solved": outcomes.solved.ravel(),
        "tokens": outcomes.tokens.ravel(),
        "shared_tokens": outcomes.shared.ravel(),
        "depth": outcomes.depth.ravel(),
        "seconds": share.ravel(),
    }


def _ends(key: str, interval: Sequence[float] | None) -> list[tuple[str, float | None]]:
    low, high = interval or (None, None)
    return [(f"{key}_low", low), (f"{key}_high", high)]

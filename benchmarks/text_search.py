"""What search is worth on plain text: likelihood under a held-out referee, and repetition, by tokens.

    python benchmarks/text_search.py STUDENT --referee MODEL --text FILE --from 0.95 --out DIR \\
        [--teacher PATH]... [--prompts 12] [--seeds 1 2 3] [--simulations 4 16 64]

The same prompts, cut from ``--text`` between two shares of its characters, are continued by every method;
each seed has prompts and draws of its own. The referee, which took no part in writing, says how likely each
continuation is, in nats per character. Repeating is likely to any model, so one rule holds for all methods
alike: a character inside a run of ``--run`` or more characters that stood before, in the prompt or in the
continuation, counts at what a character of the true text costs the referee on average, or at what it says
itself if that is more. Both figures are in the table, repeats priced ("priced nats") and not ("nats").

Rows marked "no repeats" take the search's own price on repeats off the logits of a method that does not
search. Tokens are all that was forwarded, prompts and teachers' models included, in multiples of greedy
decoding's. Intervals are percentiles of 2,000 bootstrap samples of prompts. Finished rows in --out are not
played again. It trains nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.answer_teachers import ensemble_of
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_bytes, write_text
from tokenzero.policy.engine import Engine, Ids, Step
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.progress import print_table
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import BeamSearch, BestOfN, Method, Search, greedy
from tokenzero.selfplay.parts import Parts
from tokenzero.selfplay.session import Asked
from tokenzero.selfplay.text.likelihood_evaluator import LikelihoodConfig, LikelihoodEvaluator
from tokenzero.tasks import ContinuationConfig, ContinuationTask, PublicProblem
from tokenzero.value.continuation_log_probs import continuation_log_probs
from tokenzero.value.text_quality import longest_repeat, quality

BOOTSTRAPS = 2000
CANDIDATES = 8
FIGURES = ("nats", "fresh_nats", "repeated", "longest_repeat", "distinct_2", "distinct_4")
COLUMNS = (
    "method",
    "tokens",
    "priced nats",
    "95 %",
    "nats",
    "repeated",
    "longest",
    "distinct-2",
    "distinct-4",
)

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A prompt and its true continuation, in tokens, of one seed."""

    seed: int
    prompt: list[int]
    truth: list[int]


@dataclass(frozen=True)
class Row:
    """A way to write: its ``name`` and what makes it."""

    name: str
    build: Callable[[], Method]


class NoRepeats:
    """An engine whose logits have ``price.penalty`` nats taken off each token that would end an n-gram of
    ``price.repeat`` tokens which stood in the sequence before."""

    def __init__(self, engine: Engine, price: LikelihoodConfig) -> None:
        self.ledger = engine.ledger
        self._engine, self._price = engine, price
        self._sequences: dict[int, tuple[int, ...]] = {}

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        return self._priced(self._engine.prefill(prompts), [tuple(prompt) for prompt in prompts])

    def extend(self, states: Ids, tokens: Ids) -> Step:
        step = self._engine.extend(states, tokens)
        pairs = zip(states.tolist(), tokens.tolist(), strict=True)
        return self._priced(step, [(*self._sequences[state], token) for state, token in pairs])

    def release(self, states: Ids) -> None:
        self._engine.release(states)

    def _priced(self, step: Step, sequences: list[tuple[int, ...]]) -> Step:
        logits, size = step.logits.clone(), self._price.repeat - 1
        for row, (state, sequence) in enumerate(zip(step.states.tolist(), sequences, strict=True)):
            self._sequences[state] = sequence
            last = sequence[len(sequence) - size :]
            ends = range(size, len(sequence))
            taken = {sequence[end] for end in ends if sequence[end - size : end] == last}
            if taken and len(sequence) >= size:
                logits[row, list(taken)] -= self._price.penalty
        return step._replace(logits=logits)


def windows_of(student: Student, options: argparse.Namespace) -> list[Window]:
    """Windows of the text's part, side by side, different ones for each seed."""
    text = Path(options.text).read_text(encoding="utf-8")
    part = text[int(options.begin * len(text)) : int(options.end * len(text))]
    ids = encode_prompt(student.tokenizer, part)
    width = options.prompt_tokens + options.tokens
    starts = np.random.default_rng(0).permutation(len(ids) // width) * width
    if len(starts) < options.prompts * len(options.seeds):
        raise InputError(f"the text's part holds {len(starts)} windows of {width} tokens; ask for fewer")
    found = []
    for number, start in enumerate(starts[: options.prompts * len(options.seeds)].tolist()):
        window = ids[start : start + width]
        seed = options.seeds[number // options.prompts]
        found.append(Window(seed, window[: options.prompt_tokens], window[options.prompt_tokens :]))
    return found


def rows_of(parts: Parts, helped: Parts | None, simulations: Sequence[int]) -> list[Row]:
    """Every method at every budget; ``helped`` are the parts with teachers."""
    price = LikelihoodConfig()
    quiet = copy(parts)
    quiet.engine = NoRepeats(parts.engine, price)

    def search(own: Parts, method: str, count: int) -> Method:
        config = SearchConfig(method=method, simulations=count, candidates=CANDIDATES)
        return Search(own, config, evaluator=partial(LikelihoodEvaluator, price))

    rows = [
        Row("greedy", partial(greedy, parts)),
        Row("greedy, no repeats", partial(greedy, quiet)),
        Row("sample", partial(BestOfN, parts, 1, choose="first", name="sample")),
    ]
    for count in simulations:
        rows.append(Row(f"best of {count}", partial(BestOfN, parts, count, choose="likelihood")))
        rows.append(Row(f"beam {count}", partial(BeamSearch, parts, count)))
        rows.append(Row(f"beam {count}, no repeats", partial(BeamSearch, quiet, count)))
        for method in ("puct", "gumbel"):
            rows.append(Row(f"{method} {count}", partial(search, parts, method, count)))
            if helped is not None:
                rows.append(Row(f"{method} {count}, teachers", partial(search, helped, method, count)))
    return rows


def played(row: Row, student: Student, windows: Sequence[Window]) -> dict[str, Any]:
    """What a method wrote for all windows, and its ledger."""
    method, began = row.build(), time.perf_counter()
    problems = [PublicProblem(str(at), "text", ids=tuple(one.prompt)) for at, one in enumerate(windows)]
    rngs = [np.random.default_rng([one.seed, at]) for at, one in enumerate(windows)]
    session, games = method.session(len(problems)), dict[int, Game]()
    session.add([Asked(problem, rng) for problem, rng in zip(problems, rngs, strict=True)])
    while session.live:
        games.update(session.step())
    session.close()
    texts = [[token for token in games[at].tokens if token != student.eos_id] for at in range(len(games))]
    return {
        "name": row.name,
        "texts": texts,
        "ledger": method.ledger.as_dict(),
        "forwarded": method.ledger.forwarded_tokens,
        "seconds": time.perf_counter() - began,
    }


def figures(
    texts: Sequence[Sequence[int]], windows: Sequence[Window], referee: Student, run: int, charge: float
) -> dict[str, F64]:
    """Each of FIGURES for each text, f64 [L]; NaN for an empty one."""
    prompts = [window.prompt for window in windows]
    said = continuation_log_probs(referee, prompts, texts, batch_size=64)
    found = np.full((len(FIGURES), len(texts)), np.nan)
    for at, (prompt, text, log_probs) in enumerate(zip(prompts, texts, said, strict=True)):
        if not len(text):
            continue
        one = quality(prompt, text, lambda p, t, given=log_probs: given, n=run, charge=charge)
        measured = one.nats, one.fresh_nats, one.repeated, one.longest_repeat
        found[:, at] = *measured, one.distinct[1], one.distinct[3]
    return dict(zip(FIGURES, found, strict=True))


def interval(values: F64) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over prompts."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(values), (BOOTSTRAPS, len(values)))
    low, high = np.percentile(np.nanmean(values[draws], axis=1), [2.5, 97.5])
    return float(low), float(high)


def summary(name: str, found: dict[str, F64], forwarded: float, unit: float) -> dict[str, Any]:
    """A row of the table; ``unit`` is what greedy decoding forwarded."""
    return {
        "method": name,
        "tokens": forwarded / unit,
        **{key: float(np.nanmean(values)) for key, values in found.items()},
        "fresh_nats_ci95": interval(found["fresh_nats"]),
        "nats_ci95": interval(found["nats"]),
        "each": {key: values.tolist() for key, values in found.items()},
    }


def comparisons(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each search against each other kind of method, at the most tokens that are not more than the search's:
    priced nats of the other less the search's, prompt by prompt, above 0 where the search is better.
    """
    found = []
    searches = [row for row in rows if row["method"].startswith(("puct", "gumbel"))]
    for row in searches:
        for kind in ("best of", "beam", "no repeats"):
            others = [
                one
                for one in rows
                if (kind in one["method"])
                and one not in searches
                and (kind == "no repeats") == ("no repeats" in one["method"])
                and one["tokens"] <= row["tokens"] * 1.05
            ]
            if others:
                other = min(others, key=lambda one: one["fresh_nats"])
                gain = np.asarray(other["each"]["fresh_nats"]) - np.asarray(row["each"]["fresh_nats"])
                found.append(
                    {
                        "search": row["method"],
                        "against": other["method"],
                        "tokens": [row["tokens"], other["tokens"]],
                        "gain": float(np.nanmean(gain)),
                        "ci95": interval(gain),
                    }
                )
    return found


def pages(
    rows: Sequence[dict[str, Any]],
    texts: dict[str, list[list[int]]],
    windows: Sequence[Window],
    student: Student,
) -> str:
    """Sample pages in Markdown: some prompts, and what each method wrote after them."""
    decode = partial(student.tokenizer.decode, skip_special_tokens=True)
    out = ["# Continuations of the same prompts\n"]
    for at in np.linspace(0, len(windows) - 1, 4).astype(int).tolist():
        out.append(f"## Prompt\n\n```text\n{decode(windows[at].prompt)}\n```\n")
        for row in rows:
            told = {key: row["each"][key][at] for key in FIGURES}
            out.append(
                f"**{row['method']}** ({row['tokens']:.1f} times greedy's tokens): "
                f"{told['nats']:.2f} nats a character, {told['fresh_nats']:.2f} with repeats priced, longest "
                f"repeat {told['longest_repeat']:.0f}, distinct-4 {told['distinct_4']:.2f}\n\n"
                f"```text\n{decode(texts[row['method']][at])}\n```\n"
            )
    return "\n".join(out)


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """Priced nats and repeated share against tokens, a line for each family of methods."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        words = row["method"].split(", ")
        stem = words[0].rstrip("0123456789").strip()
        families.setdefault(", ".join([stem, *words[1:]]), []).append(row)
    for axes, key, title in (
        (left, "fresh_nats", "nats a character under the referee, repeats priced (lower is better)"),
        (right, "repeated", "share of characters in repeats"),
    ):
        for name, own in families.items():
            if name == "true text":
                axes.axhline(own[0][key], color="black", linestyle=":", label=name)
                continue
            own = sorted(own, key=lambda one: one["tokens"])
            axes.plot([r["tokens"] for r in own], [r[key] for r in own], marker="o", label=name)
        axes.set_xscale("log")
        axes.set_xlabel("tokens forwarded, multiples of greedy")
        axes.set_title(title, fontsize=9)
    right.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    cells = [
        [
            row["method"],
            f"{row['tokens']:.1f}",
            f"{row['fresh_nats']:.3f}",
            "{:.3f} to {:.3f}".format(*row["fresh_nats_ci95"]),
            f"{row['nats']:.3f}",
            f"{100 * row['repeated']:.1f} %",
            f"{row['longest_repeat']:.1f}",
            f"{row['distinct_2']:.3f}",
            f"{row['distinct_4']:.3f}",
        ]
        for row in rows
    ]
    print_table(COLUMNS, cells, "nats are per character under the held-out referee; lower is likelier")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("student")
    parser.add_argument("--referee", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--from", dest="begin", type=float, default=0.95)
    parser.add_argument("--to", dest="end", type=float, default=1.0)
    parser.add_argument("--teacher", action="append", default=[])
    parser.add_argument("--teacher-share", type=float, default=None)
    for name, default in (("prompts", 12), ("prompt-tokens", 32), ("tokens", 64), ("run", 8), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--simulations", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--out", required=True)
    return parser.parse_args()


def main() -> None:
    """Play, measure, compare, write."""
    options = parsed()
    torch.set_num_threads(options.threads)
    student, referee = Student.load(options.student), Student.load(options.referee)
    out = Path(options.out)
    (out / "rows").mkdir(parents=True, exist_ok=True)
    windows = windows_of(student, options)
    task = ContinuationTask(ContinuationConfig(prompt_tokens=options.prompt_tokens, tokens=options.tokens))
    parts = Parts(student, open_engine(student, EngineConfig()), task)
    helped = None
    if options.teacher:
        helped = copy(parts)
        helped.ensemble = ensemble_of(options.teacher, student, options.teacher_share)
    kept: dict[str, dict[str, Any]] = {}
    for row in rows_of(parts, helped, options.simulations):
        path = out / "rows" / f"{row.name.replace(', ', '-').replace(' ', '-')}.json"
        if not path.is_file():
            write_text(path, json.dumps(played(row, student, windows)))
        kept[row.name] = json.loads(path.read_text(encoding="utf-8"))
        print(f"{row.name}: {kept[row.name]['seconds']:.0f} s", flush=True)

    truth = [window.truth for window in windows]
    prompts = [window.prompt for window in windows]
    charge = -float(np.concatenate(continuation_log_probs(referee, prompts, truth, 64)).mean())
    unit = kept["greedy"]["forwarded"]
    texts = {"true text": truth, **{name: one["texts"] for name, one in kept.items()}}
    costs = {"true text": 0, **{name: one["forwarded"] for name, one in kept.items()}}
    rows = [
        summary(name, figures(own, windows, referee, options.run, charge), costs[name], unit)
        for name, own in texts.items()
    ]
    pairs = comparisons(rows)
    report = {
        "options": vars(options),
        "price": asdict(LikelihoodConfig()),
        "charge": charge,
        "true_longest_repeat": max(longest_repeat(one.truth, one.prompt) for one in windows),
        "rows": rows,
        "comparisons": pairs,
    }
    write_text(out / "text_search.json", json.dumps(report))
    write_text(out / "samples.md", pages(rows, texts, windows, student))
    write_bytes(out / "text_search.png", picture(rows))
    show(rows)
    cells = [
        [
            one["search"],
            one["against"],
            *map("{:.1f}".format, one["tokens"]),
            f"{one['gain']:+.3f}",
            "{:+.3f} to {:+.3f}".format(*one["ci95"]),
        ]
        for one in pairs
    ]
    heads = ("search", "against", "its tokens", "the other's", "gain", "95 %")
    print_table(heads, cells, "priced nats saved at equal tokens")


if __name__ == "__main__":
    main()

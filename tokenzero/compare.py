"""A comparison: the same self-play, from the same warm starts, with one thing changed: the arm.

Every arm is an ordinary ``Run`` with some settings laid over one base config, and a directory holds them all:

    DIR/comparison.json                what is compared: the base config and each arm's
    DIR/seed-1/warm-start/             a run of no rounds: where every arm of that seed begins
    DIR/seed-1/ARM/                    the arm's run
    DIR/seed-1/ARM/test.json           its accuracy on the test split, read once
    DIR/seed-1/ARM.log                 what it said, if it failed

What is done is not done again, so a comparison that was stopped goes on, and takes further arms and seeds.
This file plans and checks; ``compare_processes`` runs, ``compare_table`` reports.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tokenzero.compare_job import TEST_FILE
from tokenzero.compare_processes import Job, read_records
from tokenzero.config import Layer, bind
from tokenzero.config_text import parse
from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import write_text
from tokenzero.selfplay.arms import ARMS
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.run_directory import checkpoint_path
from tokenzero.teachers.ngram import NgramConfig

Values = dict[str, Any]

KEPT_FILE = "comparison.json"
FORMAT = 1
FREE = ("keep", "seed", "tracking")
"""Settings that may change from call to call: runs have seeds of their own, and nothing that is learnt
depends on the others."""
WARM_START = "warm-start"
OWN_DEFAULTS = ("threads=1", "evaluation.search_problems=0", "arena.max_problems=0")
"""Laid under what the user sets: processes side by side rather than threads, no evaluation of searches,
because students are compared without search, and no arena, so that each arm is judged by what it learnt
last."""
SEEDS = (1, 2, 3)
QUICK_SEEDS = (1, 2)
QUICK_PROBLEMS = 500
"""Held-out problems that ``--quick`` uses at most, of the validation and of the test split."""


@dataclass(frozen=True)
class Variant:
    """An arm as it was asked for: ``label`` its word on the command line, ``title`` one for people,
    ``config`` the base config with its settings.
    """

    label: str
    title: str
    config: SelfPlayConfig

    @property
    def folder(self) -> str:
        """The name of its directory: the label, in characters that every file system takes."""
        plain = re.sub(r"[^A-Za-z0-9._=+-]", "_", self.label.replace(":", "+"))
        if plain.replace("+", ":") == self.label and len(plain) <= 100:
            return plain
        return f"{plain[:100]}-{hashlib.sha256(self.label.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Comparison:
    """What is to be compared. ``against`` is the label of the reference arm; ``test_problems`` None reads all
    of the test split; without ``reads_test`` the validation split decides, for tuning.
    """

    directory: Path
    base: SelfPlayConfig
    variants: Sequence[Variant]
    seeds: Sequence[int]
    against: str
    test_problems: int | None = None
    reads_test: bool = True

    def __post_init__(self) -> None:
        labels = [variant.label for variant in self.variants]
        for label in labels:
            if labels.count(label) > 1:
                raise InputError(f"arm {label!r} is listed twice; list each arm once")
        if self.against not in labels:
            raise InputError(
                f"--against is {self.against!r}, which is not compared; use one of {', '.join(labels)}"
            )
        if not self.seeds or min(self.seeds) < 0:
            raise InputError("seeds must be whole numbers of at least 0, and there must be one")
        if not self.base.evaluation.problems:
            raise InputError("evaluation.problems is 0, so there would be no curve to compare; give some")
        if self.base.evaluation.split == "test":
            raise InputError("evaluation.split is test, and the test split is read once; use validation")
        if self.test_problems is not None and self.test_problems < 1:
            raise InputError(f"--test-problems is {self.test_problems}; give at least 1")

    def run_of(self, variant: Variant, seed: int) -> str:
        """The directory of a run, relative to the comparison's."""
        return f"seed-{seed}/{variant.folder}"

    def jobs(self) -> list[Job]:
        """All runs, unfinished or not, warm starts before what begins there; seed by seed, so that whole
        pairs are there early.
        """
        jobs = []
        for seed in self.seeds:
            start = f"seed-{seed}/{WARM_START}"
            jobs.append(Job(f"warm start, seed {seed}", start, replace(self.base, rounds=0, seed=seed)))
            for variant in self.variants:
                jobs.append(
                    Job(
                        f"{variant.label}, seed {seed}",
                        self.run_of(variant, seed),
                        replace(_loading(variant.config, start), seed=seed),
                        needs=start,
                        reads_test=self.reads_test,
                        test_problems=self.test_problems,
                    )
                )
        return jobs

    def keep(self) -> None:
        """Write what is compared to ``DIR/comparison.json``, arms that are there already included.

        Raises InputError when the directory compares something else: another base config, or an arm of the
        same name with other settings; when the test split was read on another number of problems; and when
        the directory holds no comparison but something else.
        """
        kept = read_kept(self.directory)
        if kept is None and self.directory.exists() and any(self.directory.iterdir()):
            raise InputError(f"{self.directory} is not empty and holds no comparison; choose another --out")
        arms = {} if kept is None else dict(kept["arms"])
        base = _values(self.base)
        if kept is not None:
            self._refuse_another("base config", kept["base"], base)
        for variant in self.variants:
            values = _values(variant.config)
            self._refuse_another(f"arm {variant.label!r}", arms.get(variant.label, values), values)
            arms[variant.label] = values
        self._refuse_other_test_problems()
        before = kept or {"seeds": [], "compared": []}
        # A later call without --seeds and --arms reports on all that was ever asked for.
        seeds = dict.fromkeys([*before["seeds"], *self.seeds])
        compared = dict.fromkeys([*before["compared"], *(variant.label for variant in self.variants)])
        content = {"format": FORMAT, "base": base, "arms": arms, "seeds": list(seeds)}
        content |= {"compared": list(compared), "against": self.against}
        content["test_problems"] = self.test_problems
        write_text(self.directory / KEPT_FILE, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def _refuse_another(self, what: str, before: Values, now: Values) -> None:
        old, new = _flat(before), _flat(now)
        names = sorted(
            name
            for name in {*old, *new}
            if old.get(name) != new.get(name) and name.partition(".")[0] not in FREE
        )
        if names:
            first = f"{names[0]} was {old.get(names[0])!r}, now {new.get(names[0])!r}"
            also = f"; also {', '.join(names[1:])}" if names[1:] else ""
            raise InputError(
                f"{self.directory} compares with another {what} ({first}{also}); "
                "give the same settings or choose another --out"
            )

    def _refuse_other_test_problems(self) -> None:
        if not self.reads_test:
            return
        for job in self.jobs():
            path = self.directory / job.run / TEST_FILE
            if not path.is_file():
                continue
            read = json.loads(path.read_text(encoding="utf-8"))
            if read["asked"] != self.test_problems:
                words = "no --test-problems" if read["asked"] is None else f"--test-problems {read['asked']}"
                raise InputError(
                    f"{path} was read on {read['problems']} problems, and the test split is read once; "
                    f"give {words} or choose another --out"
                )


def read_kept(directory: Path) -> Values | None:
    """What ``directory`` compares, or None when it holds no comparison. Raises InputError for a file that
    cannot be read or has another format.
    """
    path = directory / KEPT_FILE
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        written = kept["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore it or choose another --out") from error
    if written != FORMAT:
        raise InputError(f"{path} has format {written!r}, this version reads {FORMAT}; choose another --out")
    return dict(kept)


def kept_base(kept: Values) -> SelfPlayConfig:
    """The base config of what :func:`read_kept` returned."""
    return bind(SelfPlayConfig, kept["base"], [Layer(KEPT_FILE, {})])


def variants(words: str, base: SelfPlayConfig) -> list[Variant]:
    """The arms that ``words`` lists with commas between them, each ``NAME`` or ``NAME:a.b=value:c=value``.

    Raises InputError for an unknown arm or setting, naming the nearest one that exists.
    """
    return [_variant(word.strip(), base) for word in _between_commas(words) if word.strip()]


def quick_overrides(base: SelfPlayConfig) -> list[str]:
    """What ``--quick`` lays under the user's settings: half the rounds, each with half the play and half the
    learner's steps, and at most ``QUICK_PROBLEMS`` validation problems. Warm starts stay whole.
    """
    games, tokens = base.play.games, base.play.tokens
    play = f"play.games={_half(games)}" if tokens is None else f"play.tokens={_half(tokens)}"
    return [
        f"rounds={_half(base.rounds)}",
        f"learner.steps={_half(base.learner.steps)}",
        play,
        f"evaluation.problems={min(base.evaluation.problems, QUICK_PROBLEMS)}",
    ]


def finished(directory: Path, job: Job) -> bool:
    """Whether nothing of ``job`` is left to do."""
    run = directory / job.run
    played = len(read_records(run)) > job.config.rounds
    return played and (not job.reads_test or (run / TEST_FILE).is_file())


def _variant(word: str, base: SelfPlayConfig) -> Variant:
    name, *changes = re.split(r":(?=[A-Za-z_][\w.]*=)", word)
    if name not in ARMS:
        near = get_close_matches(name, ARMS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use some of {', '.join(ARMS)}"
        raise InputError(f"--arms {word}: arm {name!r} does not exist; {hint}")
    settings = dict(ARMS[name].settings)
    for change in changes:
        key, _, text = change.partition("=")
        settings[key] = parse(text, f"--arms {word}")
    # All take effect together: an arm may only be possible with a change.
    values = _values(base)
    for key, value in settings.items():
        _lay(value, key.split("."), values)
    config = bind(SelfPlayConfig, values, [Layer(f"--arms {word}", {})])
    # Every arm begins where the warm start ended, so what made that is of no more use.
    learner = replace(config.learner, value_warmup=0)
    pretrain = replace(config.pretrain, steps=0, demonstrations=0)
    if any(key.startswith("pretrain.") for key in settings):
        pretrain = config.pretrain
    elif any(isinstance(teacher, NgramConfig) for teacher in config.teachers):
        pretrain = replace(config.pretrain, steps=0)
    title = ", ".join([ARMS[name].title, *changes])
    return Variant(word, title, replace(config, learner=learner, pretrain=pretrain))


def _lay(value: Any, path: Sequence[str], values: Values) -> None:
    """Put ``value`` at ``path`` into nested ``values``; binding finds out whether there is such an option."""
    for part in path[:-1]:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    values[path[-1]] = value


def _loading(config: SelfPlayConfig, start: str) -> SelfPlayConfig:
    """``config`` with the student of the finished run ``start``."""
    student = checkpoint_path(Path(start), 0).as_posix()
    return replace(config, model=replace(config.model, load=student, architecture={}, tokenizer=None))


def _between_commas(words: str) -> list[str]:
    """``words`` cut at the commas outside of brackets."""
    parts, depth = [""], 0
    for letter in words:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _half(number: int) -> int:
    return -(-number // 2)


def _values(config: SelfPlayConfig) -> Values:
    """The config as JSON keeps it."""
    values: Values = json.loads(json.dumps(asdict(config)))
    return values


def _flat(values: Values, prefix: str = "") -> Values:
    """The values with nested keys joined by dots, as ``--set`` writes them."""
    flat: Values = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat

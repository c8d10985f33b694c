"""A run on disk: warm start, then rounds of play -> store -> learn -> evaluate -> checkpoint.

A round is finished when its checkpoint directory has its name: that rename is the only commit point. Every
random draw comes from (seed, stage, round), so a run killed anywhere and resumed plays the unfinished round
again and ends with the same bits. Every round's average is promoted. It does not print: see ``Listener``.

    RUN/config.json                      what the run was told
    RUN/episodes/round-0001.parquet      the games of a round
    RUN/checkpoints/round-0001/          Hugging Face directory + value head + training state + round.json
    RUN/metrics.jsonl                    one line a round
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.atomic import replace_directory, sweep, write_text
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.pretrain import clone, pretrain
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import open_engine
from tokenzero.policy.tokenizers import from_spec
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.demonstrations import demonstrate, examples
from tokenzero.selfplay.ensemble import build_teachers
from tokenzero.selfplay.episode import Episode, from_game, read_episodes, write_episodes
from tokenzero.selfplay.evaluation import evaluate
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.learner import Learner, Losses
from tokenzero.selfplay.methods import Search, greedy
from tokenzero.selfplay.player import Player
from tokenzero.tasks import Problem, Task, get_task
from tokenzero.teachers import Teacher
from tokenzero.value import RuleJudge, ValueHead

DEMONSTRATE, PRETRAIN, VALUE_WARMUP, PLAY, LEARN, EVALUATE = range(6)
"""Stages: the second word of every seed."""

Record = dict[str, Any]


class Listener(Protocol):
    """Hears how a run goes: for progress bars and tables. Must not change anything."""

    def stage(self, name: str, total: int) -> None:
        """A stage of ``total`` steps or games begins."""
        ...

    def advance(self, count: int) -> None:
        """``count`` more are done."""
        ...

    def record(self, record: Record) -> None:
        """A round is finished and on disk."""
        ...


class Silence:
    """A listener that does nothing."""

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def record(self, record: Record) -> None: ...


def checkpoint_path(run: Path, round_index: int) -> Path:
    """Where the checkpoint of a round lies."""
    return run / "checkpoints" / f"round-{round_index:04d}"


def shard_path(run: Path, round_index: int) -> Path:
    """Where the games of a round lie."""
    return run / "episodes" / f"round-{round_index:04d}.parquet"


def finished_rounds(run: Path) -> int:
    """How many rounds are finished, the warm start (round 0) included."""
    count = 0
    while (checkpoint_path(run, count) / "round.json").is_file():
        count += 1
    return count


class Run:
    """One self-play run in a directory. Owns the student, the value head and the learner; writes only below
    ``directory``.
    """

    def __init__(self, config: SelfPlayConfig, directory: Path, listener: Listener | None = None) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.directory = directory
        self._listener = listener or Silence()
        self.task: Task = get_task(config.task.name, **config.task.options)
        self._train = self.task.problems("train")
        if not self._train:
            raise InputError(f"task {config.task.name!r} has no training problems; enlarge its train split")
        self._records: list[Record] = []

    def execute(self, *, resume: bool = False) -> list[Record]:
        """Play all rounds; returns their records, the warm start's first.

        Raises:
            InputError: the directory holds another run, or one that ``resume`` was not asked to continue.
            OutputError: something could not be written; what was finished stays.
        """
        done = self._open(resume)
        student, head = self._student(done)
        self._student_now, self._head = student, head
        self._engine = open_engine(student, self.config.engine)
        counted = self._counts_demonstrations()
        self._demonstrations = self._demonstrate() if done == 0 or counted else []
        if done == 0:
            self._warm_start()
            done = 1
        if not counted:
            self._demonstrations = []  # as large as the replay, and of no more use
        learner = self._learner(done)
        for round_index in range(done, self.config.rounds + 1):
            self._round(round_index, learner)
        return self._records

    def _open(self, resume: bool) -> int:
        directory, told = self.directory, json.dumps(asdict(self.config), indent=2, sort_keys=True) + "\n"
        for folder in (directory, directory / "checkpoints", directory / "episodes"):
            if folder.is_dir():
                sweep(folder)
        path = directory / "config.json"
        if path.is_file() and not resume:
            raise InputError(
                f"{directory} already holds a run; continue it with --resume or choose another --out"
            )
        if path.is_file():
            self._refuse_other_config(_read_json(path))
        elif directory.exists() and any(directory.iterdir()):
            raise InputError(f"{directory} is not empty and holds no run; choose another --out")
        write_text(path, told)
        done = finished_rounds(directory)
        self._records = [_read_json(checkpoint_path(directory, r) / "round.json") for r in range(done)]
        self._write_metrics()
        return done

    def _refuse_other_config(self, before: Record) -> None:
        old, now = _flat(before), _flat(json.loads(json.dumps(asdict(self.config))))
        keys = sorted(key for key in {*old, *now} - {"rounds"} if old.get(key) != now.get(key))
        if keys:
            first = f"{keys[0]} (it was {old.get(keys[0])!r}, now {now.get(keys[0])!r})"
            raise InputError(
                f"{self.directory} was started with another {', '.join([first, *keys[1:]])}; "
                "resume with the same config or choose another --out"
            )

    def _student(self, done: int) -> tuple[Student, ValueHead]:
        if done:
            directory = checkpoint_path(self.directory, done - 1)
            return Student.load(directory), ValueHead.load(directory)
        model, seed = self.config.model, self.config.seed
        if model.load is not None:
            student = Student.load(model.load)
        else:
            tokenizer = from_spec(model.tokenizer or self.task.tokenizer_spec())
            student = Student.from_config(model.architecture, tokenizer, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        return student, ValueHead(student.hidden_size, model.value, generator)

    def _demonstrate(self) -> list[Episode]:
        count, rng = self.config.pretrain.demonstrations, self._rng(DEMONSTRATE, 0)
        return demonstrate(self.task, self._student_now, count, rng)

    def _counts_demonstrations(self) -> bool:
        """Whether rounds need the demonstrations too: n-gram teachers are counted on them."""
        kinds = {teacher.kind for teacher in self.config.teachers}
        return self.config.play.leaf.teacher_beta > 0 and "ngram" in kinds

    def _warm_start(self) -> None:
        started = time.perf_counter()
        config = self.config.pretrain
        loss = 0.0
        if config.steps:
            self._listener.stage("warm start", config.steps)
            loss = pretrain(
                self._student_now,
                examples(self._demonstrations, self._student_now),
                config,
                int(self._rng(PRETRAIN, 0).integers(2**31)),
                directory=self.directory / "warm-start" if config.checkpoint_every else None,
                on_step=lambda step, loss: self._listener.advance(1),
            )
        losses = replace(self._value_warmup(), policy=loss)
        record = self._evaluated(0, Ledger(), losses)
        record["wall_s"] = time.perf_counter() - started
        self._commit(0, record, self._learner(0))

    def _value_warmup(self) -> Losses:
        """Teach the value head what the demonstrations came to, before the first search leans on it.

        The policy learns on from all of them alike: which ones hit their target is the value head's to know.
        """
        steps = self.config.learner.value_warmup
        if not steps or not self._demonstrations:
            return Losses()
        self._listener.stage("value warm-up", steps)
        learner = Learner(
            self._student_now,
            self._head,
            self.task,
            replace(self.config.learner, steps=steps, kl_weight=0.0, root_value_mix=0.0, lost_weight=1.0),
            total_steps=steps,
            seed=[self.config.seed, VALUE_WARMUP],
        )
        return learner.learn(self._demonstrations, 0, lambda step: self._listener.advance(1))

    def _learner(self, done: int) -> Learner:
        config = self.config.learner
        reference = None
        if config.kl_weight > 0:
            start = checkpoint_path(self.directory, 0)
            reference = Student.load(start) if done else clone(self._student_now)
        learner = Learner(
            self._student_now,
            self._head,
            self.task,
            config,
            total_steps=config.steps * max(1, self.config.rounds),
            seed=[self.config.seed, LEARN],
            reference=reference,
        )
        if done:
            learner.load(checkpoint_path(self.directory, done - 1))
        return learner

    def _round(self, round_index: int, learner: Learner) -> None:
        started = time.perf_counter()
        teachers = self._teachers(round_index)
        episodes, ledger = self._play(round_index, teachers)
        write_episodes(shard_path(self.directory, round_index), episodes)
        window = range(max(1, round_index - self.config.learner.window + 1), round_index)
        replay = [episode for r in window for episode in read_episodes(shard_path(self.directory, r))]
        self._listener.stage("learn", self.config.learner.steps)
        losses = learner.learn(replay + episodes, round_index, lambda step: self._listener.advance(1))
        record = self._evaluated(round_index, ledger, losses, episodes, teachers)
        record["wall_s"] = time.perf_counter() - started
        self._commit(round_index, record, learner)

    def _play(self, round_index: int, teachers: Sequence[Teacher]) -> tuple[list[Episode], Ledger]:
        config, rng = self.config.play, self._rng(PLAY, round_index)
        chosen = rng.choice(len(self._train), size=config.games, replace=config.games > len(self._train))
        problems = [self._shown(self._train[i], rng) for i in chosen.tolist()]

        def grader(game: int, text: str) -> float:
            return self.task.score(problems[game], text)

        parts = replace(self._parts(), teachers=teachers, teacher_weights=_equal(teachers))
        player = Player(
            parts,
            config.search,
            config.leaf,
            games_in_flight=config.games_in_flight,
            fast_simulations=config.fast_simulations,
            full_share=config.full_share,
        )
        self._listener.stage("play", config.games)
        known = None if self.task.public_verifier else grader
        games = player.play([p.public for p in problems], rng, grader=known, on_games=self._listener.advance)
        episodes = [
            from_game(
                game, 2.0 * self.task.score(problem, game.text) - 1.0, round_index - 1, self.config.seed
            )
            for problem, game in zip(problems, games, strict=True)
        ]
        return episodes, player.ledger

    def _shown(self, problem: Problem, rng: np.random.Generator) -> Problem:
        public = replace(problem.public, prompt=self.task.augment(problem.public.prompt, rng))
        return replace(problem, public=public)

    def _teachers(self, round_index: int) -> Sequence[Teacher]:
        if self.config.play.leaf.teacher_beta == 0:
            return ()
        checkpoints = [checkpoint_path(self.directory, r) for r in range(round_index)]
        vocabulary = self._student_now.vocab_size
        sequences = examples(self._demonstrations, self._student_now)
        return build_teachers(self.config.teachers, round_index, checkpoints, sequences, vocabulary)

    def _parts(self) -> Parts:
        """What a round consults, teachers apart: those help to play, and are not evaluated."""
        return Parts(
            student=self._student_now,
            engine=self._engine,
            task=self.task,
            value_head=self._head,
            judge=RuleJudge.from_names(self.config.judge) if self.config.judge else None,
        )

    def _evaluated(
        self,
        round_index: int,
        ledger: Ledger,
        losses: Losses,
        episodes: Sequence[Episode] = (),
        teachers: Sequence[Teacher] = (),
    ) -> Record:
        config, parts = self.config.evaluation, self._parts()
        problems = self.task.problems(config.split)[: config.problems]
        accuracy: dict[str, float | None] = {"greedy": None, "search": None}
        if problems:
            self._listener.stage("evaluate", len(problems) + min(config.search_problems, len(problems)))
            rng = self._rng(EVALUATE, round_index)
            accuracy["greedy"] = evaluate(
                greedy(parts), self.task, problems, rng, self._listener.advance
            ).accuracy
            few = problems[: config.search_problems]
            if few and config.simulations:
                search = Search(
                    parts,
                    replace(self.config.play.search, simulations=config.simulations),
                    self.config.play.leaf,
                )
                accuracy["search"] = evaluate(search, self.task, few, rng, self._listener.advance).accuracy
        return {
            "round": round_index,
            "games": len(episodes),
            "solved": sum(episode.outcome > 0 for episode in episodes),
            "promoted": True,
            "greedy_accuracy": accuracy["greedy"],
            "search_accuracy": accuracy["search"],
            "loss": {"policy": losses.policy, "value": losses.value, "kl": losses.kl},
            "health": {
                "entropy": losses.entropy,
                "gradient_norm": losses.gradient,
                "duplicate_answers": _duplicates(episodes),
            },
            "teacher_weights": {
                teacher.name: weight for teacher, weight in zip(teachers, _equal(teachers), strict=True)
            },
            "ledger": ledger.as_dict(),
        }

    def _commit(self, round_index: int, record: Record, learner: Learner) -> None:
        with replace_directory(checkpoint_path(self.directory, round_index)) as directory:
            self._student_now.save(directory)
            self._head.save(directory)
            learner.save(directory)
            defaults = {"task": asdict(self.config.task), "search": asdict(self.config.play.search)}
            (directory / "tokenzero.json").write_text(json.dumps(defaults, indent=2, sort_keys=True) + "\n")
            (directory / "round.json").write_text(json.dumps(record) + "\n")
        self._records.append(record)
        self._write_metrics()
        self._listener.record(record)

    def _write_metrics(self) -> None:
        write_text(
            self.directory / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in self._records)
        )

    def _rng(self, stage: int, round_index: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, stage, round_index])


def _equal(teachers: Sequence[Teacher]) -> list[float]:
    return [1.0 / len(teachers) for _ in teachers]


def _read_json(path: Path) -> Record:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}); restore the file or choose another --out") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object; restore the file or choose another --out")
    return content


def _flat(record: Record, prefix: str = "") -> Record:
    """The record with nested keys joined by dots, as ``--set`` writes them."""
    flat: Record = {}
    for key, value in record.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _duplicates(episodes: Sequence[Episode]) -> float:
    """Share of games whose (problem, answer) an earlier game of the round had already."""
    if not episodes:
        return 0.0
    return 1.0 - len({(episode.problem, episode.answer) for episode in episodes}) / len(episodes)

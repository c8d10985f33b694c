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
from tokenzero.policy.engine import GatherEngine
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.pretrain import Example, clone, pretrain
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt, from_spec
from tokenzero.selfplay.config import SelfPlayConfig
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

INIT, DEMONSTRATE, PRETRAIN, PLAY, LEARN, EVALUATE = range(6)
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
        self._engine = GatherEngine(student)
        self._examples = self._demonstrations(student)
        if done == 0:
            self._warm_start()
            done = 1
        learner = self._learner(done)
        for round_index in range(done, self.config.rounds + 1):
            self._round(round_index, learner)
        return self._records

    def _open(self, resume: bool) -> int:
        directory, told = self.directory, json.dumps(asdict(self.config), indent=2, sort_keys=True) + "\n"
        path = directory / "config.json"
        if path.is_file() and not resume:
            raise InputError(
                f"{directory} already holds a run; continue it with --resume or choose another --out"
            )
        if path.is_file():
            self._refuse_other_config(json.loads(path.read_text()))
        elif directory.exists() and any(directory.iterdir()):
            raise InputError(f"{directory} is not empty and holds no run; choose another --out")
        write_text(path, told)
        for folder in (directory, directory / "checkpoints", directory / "episodes"):
            if folder.is_dir():
                sweep(folder)
        done = finished_rounds(directory)
        self._records = [
            json.loads((checkpoint_path(directory, r) / "round.json").read_text()) for r in range(done)
        ]
        self._write_metrics()
        return done

    def _refuse_other_config(self, before: Record) -> None:
        now = json.loads(json.dumps(asdict(self.config)))
        changed = sorted(key for key in {*before, *now} - {"rounds"} if before.get(key) != now.get(key))
        if changed:
            raise InputError(
                f"{self.directory} was started with another {', '.join(changed)}; resume with the same config or choose another --out"
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

    def _demonstrations(self, student: Student) -> list[Example]:
        count = self.config.pretrain.demonstrations
        if not count:
            return []
        pairs = self.task.demonstrations(count, self._rng(DEMONSTRATE, 0))
        eos = [] if student.eos_id is None else [student.eos_id]
        examples = []
        for prompt, answer in pairs:
            head = encode_prompt(student.tokenizer, prompt)
            tail = student.tokenizer.encode(answer, add_special_tokens=False)
            examples.append(Example(head + tail + eos, len(head)))
        return examples

    def _warm_start(self) -> None:
        started = time.perf_counter()
        config = self.config.pretrain
        loss = 0.0
        if config.steps:
            self._listener.stage("warm start", config.steps)
            loss = pretrain(
                self._student_now,
                self._examples,
                config,
                int(self._rng(PRETRAIN, 0).integers(2**31)),
                directory=self.directory / "warm-start" if config.checkpoint_every else None,
                on_step=lambda step, loss: self._listener.advance(1),
            )
        record = self._evaluated(0, Ledger(), Losses(policy=loss))
        record["wall_s"] = time.perf_counter() - started
        self._commit(0, record, self._learner(0))

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
        episodes, ledger = self._play(round_index)
        write_episodes(shard_path(self.directory, round_index), episodes)
        window = range(max(1, round_index - self.config.learner.window + 1), round_index)
        replay = [episode for r in window for episode in read_episodes(shard_path(self.directory, r))]
        self._listener.stage("learn", self.config.learner.steps)
        losses = learner.learn(replay + episodes, round_index, lambda step: self._listener.advance(1))
        record = self._evaluated(round_index, ledger, losses, episodes)
        record["wall_s"] = time.perf_counter() - started
        self._commit(round_index, record, learner)

    def _play(self, round_index: int) -> tuple[list[Episode], Ledger]:
        config, rng = self.config.play, self._rng(PLAY, round_index)
        chosen = rng.choice(len(self._train), size=config.games, replace=config.games > len(self._train))
        problems = [self._shown(self._train[i], rng) for i in chosen.tolist()]

        def grader(game: int, text: str) -> float:
            return self.task.score(problems[game], text)

        player = Player(
            self._parts(round_index), config.search, config.leaf, games_in_flight=config.games_in_flight
        )
        self._listener.stage("play", config.games)
        publics = [problem.public for problem in problems]
        games = player.play(
            publics,
            rng,
            grader=None if self.task.public_verifier else grader,
            on_games=self._listener.advance,
        )
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

    def _parts(self, round_index: int) -> Parts:
        checkpoints = [checkpoint_path(self.directory, r) for r in range(round_index)]
        teachers: Sequence[Teacher] = ()
        if self.config.play.leaf.teacher_beta > 0:
            vocabulary = self._student_now.vocab_size
            teachers = build_teachers(
                self.config.teachers, round_index, checkpoints, self._examples, vocabulary
            )
        return Parts(
            student=self._student_now,
            engine=self._engine,
            task=self.task,
            value_head=self._head if round_index > 1 else None,
            teachers=teachers,
            teacher_weights=[1.0 / len(teachers)] * len(teachers),
            judge=RuleJudge.from_names(self.config.judge) if self.config.judge else None,
        )

    def _evaluated(
        self, round_index: int, ledger: Ledger, losses: Losses, episodes: Sequence[Episode] = ()
    ) -> Record:
        config, parts = self.config.evaluation, self._parts(round_index + 1)
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
                t.name: w for t, w in zip(parts.teachers, parts.teacher_weights, strict=True)
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


def _duplicates(episodes: Sequence[Episode]) -> float:
    """Share of games whose (problem, answer) an earlier game of the round had already."""
    if not episodes:
        return 0.0
    return 1.0 - len({(episode.problem, episode.answer) for episode in episodes}) / len(episodes)

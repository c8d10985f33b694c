"""A run on disk: warm start, then rounds of play -> store -> learn -> examine -> promote or keep.

A round is finished when the run's manifest names it: see ``run_directory``. Every random draw comes from
(seed, stage, round) and every decision is in the rounds' records, so a run killed anywhere and resumed plays
the unfinished round again and ends with the same bits. The incumbent plays; the learner's average is the
candidate, which takes its place when the arena says so, or after every round where the arena is off. It does
not print: see ``Listener``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pretrain import clone, pretrain
from tokenzero.policy.student import Student
from tokenzero.selfplay.arena import rungs
from tokenzero.selfplay.assessment import Assessment
from tokenzero.selfplay.audit_measures import measure_round
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.course import Course
from tokenzero.selfplay.demonstrations import demonstrate, examples
from tokenzero.selfplay.ensemble import FOLLOWING, Teachers, teachers_record
from tokenzero.selfplay.episode import Episode, read_episodes, write_episodes
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.examiner import Bout, Examiner, HeldOut, alarm_records, without_infinities
from tokenzero.selfplay.health import Alarm, measure
from tokenzero.selfplay.learner import Learner, Losses
from tokenzero.selfplay.listener import Listener, Record, Silence
from tokenzero.selfplay.net import Net
from tokenzero.selfplay.play_stage import Played, play_round
from tokenzero.selfplay.retention import Reach, milestones, window_start
from tokenzero.selfplay.run_directory import RunDirectory, checkpoint_path, shard_path
from tokenzero.selfplay.scoring import Scoring
from tokenzero.selfplay.tracking import installed, tracking
from tokenzero.tasks import Task, get_task
from tokenzero.teachers import Ensemble

DEMONSTRATE, PRETRAIN, VALUE_WARMUP, PLAY, LEARN, EVALUATE, ARENA, HEALTH = range(8)
"""Stages: the second word of every seed."""


class Run:
    """One self-play run in a directory. Owns the nets and the learner; writes only below ``directory``."""

    def __init__(self, config: SelfPlayConfig, directory: Path, listener: Listener | None = None) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.directory = directory
        self._listener = listener or Silence()
        self.task: Task = get_task(config.task.name, **config.task.options)
        self._train = self.task.problems("train")
        if not self._train:
            raise InputError(f"task {config.task.name!r} has no training problems; enlarge its train split")
        self._store = RunDirectory(directory, config, _reach(config))
        self._examiner = Examiner(config, self.task, self._listener)
        self._course = Course()
        self._learner_now: Learner | None = None
        self._teachers = Teachers(config)
        self._assessment = Assessment()

    def execute(self, *, resume: bool = False) -> list[Record]:
        """Play all rounds, or as many as an alarm lets it; returns their records, the warm start's first.

        Raises:
            InputError: the directory holds another run, one that ``resume`` was not asked to continue, or a
            damaged file; or another process is at work on it.
            OutputError: something could not be written; what was finished stays.
        """
        trackers, told = installed(self.config.tracking), asdict(self.config)
        with self._store.opened(resume), tracking(trackers, self.directory, told) as self._tracking:
            self._tracking.send(self._store.records)
            try:
                self._play_rounds()
            finally:
                self._teachers.close()
                self._assessment.close()
        return self._store.records

    def _play_rounds(self) -> None:
        done = len(self._store.records)
        if done:
            self._course = Course.of(self._store.records[-1])
            if done > self.config.rounds or self._course.stopped:
                return
        self._open_nets(done)
        counted = self._teachers.count_demonstrations
        self._demonstrations = self._demonstrate() if done == 0 or counted else []
        if done == 0:
            self._warm_start()
        if not counted:
            self._demonstrations = []  # as large as the replay, and of no more use
        while len(self._store.records) <= self.config.rounds and not self._course.stopped:
            self._round(len(self._store.records))

    def _open_nets(self, done: int) -> None:
        """The candidate, and the incumbent where it can be another: without an arena they are one."""
        engine = self.config.engine
        if done:
            self._candidate = Net.load(self._checkpoint(self._course.learner_from), engine)
        else:
            self._candidate = Net.new(self.config.model, self.task, self.config.seed, engine)
        self._incumbent = self._candidate
        if self.config.arena.max_problems:
            self._incumbent = self._candidate.copy(engine)
            if done and self._course.incumbent != self._course.learner_from:
                self._incumbent.restore(self._checkpoint(self._course.incumbent))
        if done and self._needs_reference():
            self._examiner.reference = Student.load(self._checkpoint(0))
        self._teachers.open(self._candidate.student)
        self._assessment = Assessment.open(self.config, self._candidate.student)

    def _needs_reference(self) -> bool:
        probed = self.config.health.games > 0 and self.config.evaluation.problems > 0
        return self.config.learner.kl_weight > 0 or probed

    def _demonstrate(self) -> list[Episode]:
        count, rng = self.config.pretrain.demonstrations, self._rng(DEMONSTRATE, 0)
        return demonstrate(self.task, self._candidate.student, count, rng)

    def _warm_start(self) -> None:
        started = time.perf_counter()
        config, student = self.config.pretrain, self._candidate.student
        loss = 0.0
        if config.steps:
            self._listener.stage("warm start", config.steps)
            loss = pretrain(
                student,
                examples(self._demonstrations, student),
                config,
                int(self._rng(PRETRAIN, 0).integers(2**31)),
                directory=self._store.warm_start if config.checkpoint_every else None,
                on_step=lambda step, loss: self._listener.advance(1),
            )
        losses = replace(self._value_warmup(), policy=loss)
        held_out = self._held_out(0)
        if self._needs_reference():
            self._examiner.reference = clone(student)
        health = measure(held_out=held_out.probe)
        self._finish(0, started, None, losses, held_out, health, [], Bout())

    def _value_warmup(self) -> Losses:
        """Teach the value head what the demonstrations came to, before the first search leans on it.

        The policy learns on from all of them alike: which ones hit their target is the value head's to know.
        """
        config = self.config.learner
        steps = config.value_warmup
        if not steps or not self._demonstrations:
            return Losses()
        self._listener.stage("value warm-up", steps)
        learner = Learner(
            self._candidate.student,
            self._candidate.head,
            self.task,
            replace(config, steps=steps, kl_weight=0.0, root_value_mix=0.0, lost_weight=1.0),
            total_steps=steps,
            seed=[self.config.seed, VALUE_WARMUP],
        )
        return learner.learn(self._demonstrations, 0, lambda step: self._listener.advance(1))

    def _learner(self) -> Learner:
        """The learner as the course wants it; made anew, from the course's checkpoint, where that changed."""
        if self._learner_now is not None:
            return self._learner_now
        config, course = self.config.learner, self._course
        optimizer = replace(
            config.optimizer,
            lr=config.optimizer.lr * course.lr_factor,
            min_lr=config.optimizer.min_lr * course.lr_factor,
        )
        weight = config.entropy_weight + course.entropy_bonus
        learner = Learner(
            self._candidate.student,
            self._candidate.head,
            self.task,
            replace(config, optimizer=optimizer, entropy_weight=weight),
            total_steps=config.steps * max(1, self.config.rounds),
            seed=[self.config.seed, LEARN],
            reference=self._examiner.reference if config.kl_weight > 0 else None,
        )
        if self._store.records:
            learner.load(self._checkpoint(course.learner_from))
        self._learner_now = learner
        return learner

    def _round(self, number: int) -> None:
        started = time.perf_counter()
        ensemble, failures = self._ensemble(number), self._assessment.failures()
        played = self._played(number, ensemble)
        failures = self._assessment.record(failures)
        self._teachers.rest()
        self._assessment.rest()
        episodes = played.episodes
        write_episodes(shard_path(self.directory, number), episodes)
        window = range(window_start(number, self.config.learner.window), number)
        replay = [episode for r in window for episode in read_episodes(shard_path(self.directory, r))]
        rng = self._rng(HEALTH, number)
        fresh = self._examiner.of_games(self._candidate, episodes, rng)
        learnt = self._examiner.of_games(self._candidate, replay, rng)
        losses = self._learnt(replay + episodes, number)
        held_out = self._held_out(number)
        health, alarms = self._examiner.health(
            losses if replay or episodes else None,
            played,
            held_out.probe,
            fresh,
            learnt,
            self._store.records,
        )
        bout = self._bout(number)
        self._finish(number, started, played, losses, held_out, health, alarms, bout, ensemble, failures)

    def _learnt(self, episodes: Sequence[Episode], number: int) -> Losses:
        if not episodes:
            return Losses()  # where solutions alone are learnt from, there may be none yet
        self._listener.stage("learn", self.config.learner.steps)
        return self._learner().learn(episodes, number, lambda step: self._listener.advance(1))

    def _played(self, number: int, ensemble: Ensemble | None) -> Played:
        config, asked = self.config.play, self._assessment
        played = play_round(
            replace(self._parts(self._incumbent), ensemble=ensemble),
            self.task,
            replace(config, leaf=config.leaf.in_round(number)),
            self._train,
            self._rng(PLAY, number),
            number,
            self.config.seed,
            self._owed(number),
            self._listener,
            Scoring(self.task, asked.rewards, number, asked.judge, asked.audit_judge),
        )
        version = self._course.incumbent
        return replace(played, episodes=[replace(e, policy_version=version) for e in played.episodes])

    def _owed(self, number: int) -> int:
        """Tokens that the rounds before ``number`` forwarded beyond their share."""
        share = self.config.play.tokens
        spent = sum(int(record["spent"]) for record in self._store.records)
        return 0 if share is None else spent - share * (number - 1)

    def _ensemble(self, number: int) -> Ensemble | None:
        """A checkpoint teacher is the student that played so many rounds ago."""
        return self._teachers.ensemble(
            number,
            self._candidate.student,
            self._store.records,
            self._checkpoint,
            lambda: examples(self._demonstrations, self._candidate.student),
        )

    def _parts(self, net: Net) -> Parts:
        """What a round consults, teachers apart: those help to play, and are not examined."""
        return Parts(
            student=net.student,
            engine=net.engine,
            task=self.task,
            value_head=net.head,
            judge=self._assessment.judge,
            terminal=self._assessment.terminal,
            edge_rewards=self._assessment.edge_rewards,
        )

    def _held_out(self, number: int) -> HeldOut:
        candidate = self._candidate
        return self._examiner.held_out(candidate, self._parts(candidate), self._rng(EVALUATE, number))

    def _bout(self, number: int) -> Bout:
        """The arena, where there is one."""
        config = self.config.arena
        if not config.max_problems:
            return Bout()
        candidates = set(milestones(number, self.config.keep)) - {self._course.incumbent}
        past = {}
        for rung in rungs(sorted(candidates), config.ladder):
            if self._checkpoint(rung).is_dir():  # `keep.every` may be younger than the round
                past[rung] = self._parts(Net.load(self._checkpoint(rung), self.config.engine))
        return self._examiner.bout(
            self._parts(self._candidate),
            self._parts(self._incumbent),
            past,
            number,
            self._store.records,
            self._rng(ARENA, number),
        )

    def _finish(
        self,
        number: int,
        started: float,
        played: Played | None,
        losses: Losses,
        held_out: HeldOut,
        health: dict[str, float],
        alarms: Sequence[Alarm],
        bout: Bout,
        ensemble: Ensemble | None = None,
        failures: dict[str, int] | None = None,
    ) -> None:
        """Decide how the run goes on, write the round, and go on that way."""
        config = self.config
        actions = {alarm.action for alarm in alarms}
        patience = config.arena.patience if config.arena.after_losses == "reset" else None
        course = self._course.after(number, bout.won, actions, config.health, patience)
        played = played or Played()
        record: Record = {
            "round": number,
            "games": played.problems,
            "solved": played.solved,
            "solutions": played.solutions,
            **course.as_record(),
            "greedy_accuracy": held_out.greedy,
            "search_accuracy": held_out.search,
            "loss": {"policy": losses.policy, "value": losses.value, "kl": losses.kl},
            "health": without_infinities(health),
            "alarms": alarm_records(alarms),
            "arena": bout.record,
            **teachers_record(ensemble),
            "failures": failures or {},
            "audit": self._audited(number, played, ensemble),
            "spent": played.spent,
            "learnt_tokens": losses.cells + losses.reanalysed,
            "ledger": played.ledger.as_dict(),
            "wall_s": time.perf_counter() - started,
        }
        learner = self._learner()
        self._store.commit(record, lambda directory: self._save(directory, learner))
        self._follow(course, number)
        self._tracking.send(self._store.records)
        self._listener.record(record)

    def _audited(self, number: int, played: Played, ensemble: Ensemble | None) -> dict[str, Any]:
        """What `tokenzero audit` reads of a round whose games are kept no longer."""
        tokenizer, names = self._candidate.student.tokenizer, ensemble.weights.names if ensemble else []
        return measure_round(
            number, played.episodes, names, lambda text: tokenizer(text, add_special_tokens=False).input_ids
        )

    def _save(self, directory: Path, learner: Learner) -> None:
        self._candidate.save(directory)
        learner.save(directory)
        config = self.config
        defaults: dict[str, Any] = {"task": asdict(config.task), "search": asdict(config.play.search)}
        defaults["terminal"] = [asdict(one) for one in config.terminal]
        (directory / "tokenzero.json").write_text(json.dumps(defaults, indent=2, sort_keys=True) + "\n")

    def _follow(self, course: Course, number: int) -> None:
        """Move the weights where the course wants them, as a resumed run would."""
        before, self._course = self._course, course
        if course.learner_from != number:
            self._candidate.restore(self._checkpoint(course.learner_from))
            self._learner_now = None
        if (course.entropy_bonus, course.lr_factor) != (before.entropy_bonus, before.lr_factor):
            self._learner_now = None
        if course.promoted and self._incumbent is not self._candidate:
            self._incumbent.take(self._candidate)

    def _checkpoint(self, number: int) -> Path:
        return checkpoint_path(self.directory, number)

    def _rng(self, stage: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, stage, number])


def _reach(config: SelfPlayConfig) -> Reach:
    lags = [teacher.lag for teacher in config.teachers if isinstance(teacher, FOLLOWING)]
    return Reach(config.learner.window, max(lags, default=0))

"""A text game on disk: rounds of learning from a corpus, each scored on held-out text, watched and kept.

Round 0 is the student as it begins; each later round is ``learner.steps`` optimiser steps, whose search or
draws are the learner's own. Directory, lock and finished rounds are those of any run (see
``run_directory``): every draw comes from (seed, stage, round) and every decision is in the records, so that a
run killed anywhere and resumed ends with the same bits. It does not print: see ``Listener``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import Corpus, open_corpus
from tokenzero.policy.language_score import LanguageScore, score_text
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import open_engine
from tokenzero.selfplay import elo
from tokenzero.selfplay.arena import rungs
from tokenzero.selfplay.course import Course
from tokenzero.selfplay.examiner import without_infinities
from tokenzero.selfplay.listener import Listener, Record, Silence
from tokenzero.selfplay.net import HEAD_FILE
from tokenzero.selfplay.retention import Reach
from tokenzero.selfplay.run_directory import RunDirectory, checkpoint_path
from tokenzero.selfplay.text.config import TextGameConfig
from tokenzero.selfplay.text.context_search import ContextSearch
from tokenzero.selfplay.text.learner import TextLearner, TextLosses
from tokenzero.selfplay.text.matches import play_matches
from tokenzero.selfplay.text.monitors import Monitor, Watch, promises, stepped_alarms
from tokenzero.teachers.ngram import NgramTeacher
from tokenzero.teachers.referee import ModelReferee, NgramReferee, Referee
from tokenzero.value import ValueHead

LEARN, MATCHES = range(2)
"""Stages: the second word of every seed."""
ANSWER_TOKENS = 96
"""Longest continuation where nobody says otherwise and the model has room for it."""


class TextRun:
    """One text game in a directory. Owns the student and the learner; writes only below ``directory`` and,
    for token files, below ``corpus.cache``.
    """

    def __init__(self, config: TextGameConfig, directory: Path, listener: Listener | None = None) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.directory = directory
        self._listener = listener or Silence()
        # Later matches meet the rounds of earlier ones.
        reach = Reach(window=0, rungs=config.matches.every, score="nats_per_token", low=True)
        self._store = RunDirectory(directory, config, reach)
        self._course = Course()
        self._learner_now: TextLearner | None = None

    def execute(self, *, resume: bool = False) -> list[Record]:
        """Play all rounds, or as many as an alarm lets it; returns their records, round 0's first.

        Raises:
            InputError: the directory holds another run, one that ``resume`` was not asked to continue, or a
            damaged file; another process is at work on it; or the corpus, the model or the referee cannot be
            opened or do not fit each other.
            OutputError: something could not be written; what was finished stays.
        """
        with self._store.opened(resume):
            done = len(self._store.records)
            if done:
                self._course = Course.of(self._store.records[-1])
            if done <= self.config.rounds and not self._course.stopped:
                self._open(done)
                while len(self._store.records) <= self.config.rounds and not self._course.stopped:
                    self._round(len(self._store.records))
        return self._store.records

    def _open(self, done: int) -> None:
        """Read the corpus and open everything that learns from it."""
        config = self.config
        self._corpus = open_corpus(config.corpus, progress=self._reading())
        self._held_out = self._corpus.tokens("validation")[: config.evaluated]
        self._characters = self._corpus.characters("validation")
        if len(self._held_out) < len(self._corpus.tokens("validation")):
            text = self._corpus.tokenizer.decode(self._held_out.tolist(), skip_special_tokens=True)
            self._characters = len(text)
        self._student, self._head = self._open_student(done)
        self._monitor = Monitor(
            self._student, self._held_out, config.learner.context, config.monitors.windows
        )
        self._referee = open_referee(config, self._corpus)

    def _reading(self) -> Callable[[str, int, int | None], None]:
        """Tells the listener how far the making of the token files is, of which it hears nothing when they
        are there.
        """
        stage, known = "", 0

        def progress(what: str, done: int, total: int | None) -> None:
            nonlocal stage, known
            if what != stage:
                self._listener.stage(f"{what}, bytes", total or 0)
                stage, known = what, 0
            self._listener.advance(done - known)
            known = done

        return progress

    def _open_student(self, done: int) -> tuple[Student, ValueHead | None]:
        config, corpus = self.config, self._corpus
        origin = self._checkpoint(self._course.learner_from) if done else config.model.load
        if origin is None:
            student = Student.from_config(config.model.architecture, corpus.tokenizer, seed=config.seed)
        else:
            student = Student.load(origin)
        if student.tokenizer.get_vocab() != corpus.tokenizer.get_vocab():
            raise InputError(
                f"{origin} has another tokenizer than the corpus; give corpus.tokenizer.load={origin}"
            )
        if config.learner.context > student.max_length:
            raise InputError(
                f"learner.context is {config.learner.context}, the model takes {student.max_length} tokens; "
                "lower learner.context or raise max_position_embeddings"
            )
        if config.learner.value_weight == 0:
            return student, None
        if origin is not None and (Path(origin) / HEAD_FILE).is_file():
            return student, ValueHead.load(origin)
        generator = torch.Generator().manual_seed(config.seed)
        return student, ValueHead(student.hidden_size, config.model.value, generator)

    def _learner(self) -> TextLearner:
        """The learner as the course wants it; made anew, from the course's checkpoint, where that changed."""
        if self._learner_now is not None:
            return self._learner_now
        config, course = self.config, self._course
        optimizer = replace(
            config.learner.optimizer,
            lr=config.learner.optimizer.lr * course.lr_factor,
            min_lr=config.learner.optimizer.min_lr * course.lr_factor,
        )
        weight = config.learner.entropy_weight + course.entropy_bonus
        changed = replace(config.learner, optimizer=optimizer, entropy_weight=weight)
        learner = TextLearner(
            self._student,
            self._head,
            self._corpus.tokens("train"),
            replace(config, learner=changed),
            self._referee,
            self._search(),
            total_steps=config.learner.steps * max(1, config.rounds),
            seed=[config.seed, LEARN],
        )
        if self._store.records:
            learner.load(self._checkpoint(course.learner_from))
        self._learner_now = learner
        return learner

    def _search(self) -> ContextSearch | None:
        config = self.config
        if config.learner.objective != "visits":
            return None
        engine = open_engine(self._student, config.engine)
        return ContextSearch(self._student, engine, self._referee, self._head, config.rewards, config.search)

    def _round(self, number: int) -> None:
        started = time.perf_counter()
        learner, records = self._learner(), self._store.records
        before = learner.ledger.copy()
        config = self.config.monitors
        first = self.config.learner.steps * max(0, number - 1)
        watch = Watch(
            self._monitor,
            self.config.health,
            config.every,
            self.config.learner.optimizer.warmup_steps,
            first,
        )
        losses = self._learnt(learner, number, watch) if number else None
        score = self._score()
        health = self._health(losses, score)
        history = [record["health"] for record in records[1:]]
        step = first + self.config.learner.steps if number else 0
        alarms = watch.close(health, history, step) if number else []
        course = self._course
        if number:
            actions = {alarm.action for alarm, _ in alarms}
            course = course.after(number, True, actions, self.config.health, None)
        spent = learner.ledger.since(before)
        learnt = losses.cells if losses else 0
        record: Record = {
            "round": number,
            "step": step,
            **course.as_record(),
            **_figures(score),
            "loss": {k: v for k, v in asdict(losses).items() if k != "cells"} if losses else {},
            "health": without_infinities(health),
            "probes": watch.probes,
            "alarms": stepped_alarms(alarms),
            **self._matched(number),
            "learnt_tokens": learnt,
            "ledger": spent.as_dict(),
            "forwarded": forwarded(records) + learnt + spent.forwarded_tokens,
            "wall_s": time.perf_counter() - started,
        }
        self._store.commit(record, lambda directory: self._save(directory, learner))
        self._follow(course, number)
        self._listener.record(record)

    def _learnt(self, learner: TextLearner, number: int, watch: Watch) -> TextLosses:
        self._listener.stage("learn", self.config.learner.steps)

        def on_step(step: int) -> None:
            watch.step(step)
            self._listener.advance(1)

        return learner.learn(number, on_step)

    def _score(self) -> LanguageScore:
        self._listener.stage("score", 1)
        context = self.config.learner.context
        score = score_text(self._student, self._held_out, context, characters=self._characters)
        self._listener.advance(1)
        return score

    def _health(self, losses: TextLosses | None, score: LanguageScore) -> dict[str, float]:
        """The round's measures: promises on all the text that was scored, the others on the monitor's."""
        health = {**self._monitor(), **promises(score.confidence, score.correct)}
        if losses is not None:
            health["gradient_norm"] = losses.gradient
            health["gradient_variance"] = losses.gradient_variance
        return health

    def _matched(self, number: int) -> Record:
        """Matches against earlier rounds, where they are due, and the ratings of all who ever met."""
        records, config = self._store.records, self.config.matches
        met: list[Record] = []
        if number and config.every and number % config.every == 0:
            past = [r for r in range(0, number, config.every) if self._checkpoint(r).is_dir()]
            chosen = {r: self._checkpoint(r) for r in rungs(past, config.opponents)}
            self._listener.stage("matches", 1)
            seed = int(self._rng(MATCHES, number).integers(2**31))
            for _, against, wins, losses, ties in play_matches(
                self._student, chosen, self._corpus, config, seed, number=number
            ):
                met.append({"against": against, "wins": wins, "losses": losses, "ties": ties})
            self._listener.advance(1)
        found = match_ratings([*records, {"round": number, "matches": met}])
        return {"matches": met, "elo": {str(r): rating.elo for r, rating in found.items()}}

    def _save(self, directory: Path, learner: TextLearner) -> None:
        self._student.save(directory)
        if self._head is not None:
            self._head.save(directory)
        learner.save(directory)
        text = json.dumps(playing_defaults(self.config, self._student.max_length), indent=2, sort_keys=True)
        (directory / "tokenzero.json").write_text(text + "\n")

    def _follow(self, course: Course, number: int) -> None:
        """Move the weights where the course wants them, as a resumed run would."""
        before, self._course = self._course, course
        if course.learner_from != number:
            origin = self._checkpoint(course.learner_from)
            self._student.model.load_state_dict(Student.load(origin).model.state_dict())
            if self._head is not None:
                self._head.load_state_dict(ValueHead.load(origin).state_dict())
            self._student.weights_changed()
            self._learner_now = None
        if (course.entropy_bonus, course.lr_factor) != (before.entropy_bonus, before.lr_factor):
            self._learner_now = None

    def _checkpoint(self, number: int) -> Path:
        return checkpoint_path(self.directory, number)

    def _rng(self, stage: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, stage, number])


def open_referee(config: TextGameConfig, corpus: Corpus) -> Referee:
    """The referee that rewards and targets ask: a table counted on the training split, or a model. Raises
    InputError for a model of another tokenizer.
    """
    load = config.referee.load
    if load is None:
        table = NgramTeacher.fit([corpus.tokens("train")], config.referee.order, len(corpus.tokenizer))
        return NgramReferee(table, held_out=config.referee.held_out)
    student = Student.load(load)
    if student.tokenizer.get_vocab() != corpus.tokenizer.get_vocab():
        raise InputError(
            f"the referee {load} has another tokenizer than the corpus; give corpus.tokenizer.load={load}"
        )
    return ModelReferee(student, load)


def forwarded(records: Sequence[Mapping[str, Any]]) -> int:
    """Tokens that learning, search and referee have forwarded by the end of ``records``; scores, monitors and
    matches are not in it.
    """
    return int(records[-1]["forwarded"]) if records else 0


def match_ratings(records: Sequence[Mapping[str, Any]]) -> dict[int, elo.Rating]:
    """Ratings of the rounds by all matches in ``records``; the lowest round that took part has 0."""
    return elo.ratings(
        (record["round"], match["against"], match["wins"], match["losses"], match["ties"])
        for record in records
        for match in record["matches"]
    )


def playing_defaults(config: TextGameConfig, max_length: int) -> Record:
    """What a checkpoint says of how it is played with: it goes on with windows of its corpus."""
    tokens = max(1, min(ANSWER_TOKENS, max_length // 2))
    prompt = max(1, min(config.matches.prompt_tokens, max_length - tokens))
    options = {"corpus": asdict(config.corpus), "prompt_tokens": prompt, "tokens": tokens}
    return {"task": {"name": "continuation", "options": options}}


def _figures(score: LanguageScore) -> Record:
    return {
        "nats_per_token": score.nats_per_token,
        "nats_per_character": score.nats_per_character,
        "perplexity": score.perplexity,
        "accuracy": score.accuracy,
        "scored_tokens": score.tokens,
    }

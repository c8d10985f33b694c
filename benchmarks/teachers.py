"""What teachers and judges do for a student: Countdown, with experts whose worth is known.

    weights   five scripted teachers (good, mediocre, uniform, adversarial, one that knows targets above 24):
              the weights after each round; after half of the rounds the good one and the adversary change
              places
    ablation  rounds and forwarded tokens until greedy accuracy reaches a goal: no teachers, equal weights,
              weights by credit
    lazy      ten teachers (past students of other runs): none, all asked about every state, one a problem
    bridge    a teacher that was shown solutions: with the student's tokenizer (characters), and with BPE
    judge     a judge of states that is right in 80 % and in 50 % of cases against none

    OMP_NUM_THREADS=1 python benchmarks/teachers.py weights --seeds 1 2 3

Greedy accuracy is that of held-out validation problems, without search, teachers or judge; tokens include
the teachers'. Students of one seed start from the same warm start.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import countdown_teachers
import numpy as np
from report import emit

from tokenzero.config import load_config
from tokenzero.policy.pretrain import Example, PretrainConfig, pretrain
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt, from_spec
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.config import ModelConfig, SelfPlayConfig
from tokenzero.selfplay.listener import Record, Silence
from tokenzero.selfplay.run import Run
from tokenzero.selfplay.run_directory import checkpoint_path
from tokenzero.tasks import Task, get_task
from tokenzero.tasks.countdown_problems import read_prompt
from tokenzero.tasks.countdown_solver import solve
from tokenzero.teachers import EnsembleConfig, WeightConfig
from tokenzero.teachers.local_model import ModelConfig as ModelTeacherConfig
from tokenzero.teachers.scripted import ScriptedConfig
from tokenzero.teachers.text_bridge import BridgeConfig
from tokenzero.value.judge_config import FunctionJudgeConfig, NoisyJudgeConfig

Row = dict[str, Any]
FIVE = [ScriptedConfig(function=f"countdown_teachers:{name}") for name in countdown_teachers.FIVE]


class Rounds(Silence):
    """Counts finished rounds, and has the teachers change places after ``half`` of them (0: never)."""

    def __init__(self, half: int = 0) -> None:
        self.half = half
        countdown_teachers.swap(False)

    def record(self, record: Record) -> None:
        if self.half and record["round"] == self.half:
            countdown_teachers.swap(True)


def base(given: argparse.Namespace, seed: int) -> SelfPlayConfig:
    """The countdown preset with smaller rounds, and nothing measured that is not reported."""
    config = load_config("countdown")
    return replace(
        config,
        task=replace(
            config.task,
            options={"numbers": 4, **config.task.options, "tag_above": countdown_teachers.THRESHOLD},
        ),
        play=replace(config.play, tokens=given.tokens),
        learner=replace(config.learner, steps=given.steps),
        evaluation=replace(config.evaluation, search_problems=0),
        arena=replace(config.arena, max_problems=0),
        health=replace(config.health, games=0),
        rounds=given.rounds,
        seed=seed,
        threads=1,
    )


def warm(given: argparse.Namespace, config: SelfPlayConfig) -> Path:
    """The checkpoint of a warm start, made where it is not there yet."""
    run = given.out / f"warm-{config.task.options['numbers']}-{config.seed}"
    if not checkpoint_path(run, 0).is_dir():
        Run(replace(config, rounds=0, teachers=[], judge=None), run).execute(resume=run.exists())
    return checkpoint_path(run, 0)


def records(
    given: argparse.Namespace, name: str, seed: int, config: SelfPlayConfig, half: int = 0
) -> list[Record]:
    """The records of a run from the seed's warm start; one that was begun goes on."""
    config = replace(
        config,
        model=ModelConfig(load=str(warm(given, config)), value=config.model.value),
        pretrain=replace(config.pretrain, steps=0, demonstrations=0),
        learner=replace(config.learner, value_warmup=0),
    )
    directory = given.out / f"{given.case}-{name}-{seed}"
    found = Run(config, directory, Rounds(half)).execute(resume=directory.exists())
    print(name, seed, [round(100 * r["greedy_accuracy"], 1) for r in found], flush=True)
    return found


def ensemble(**options: Any) -> EnsembleConfig:
    return EnsembleConfig(**{"beta": 0.4, "visits": 2, **options})


def weights(given: argparse.Namespace) -> list[Row]:
    rows = []
    for seed in given.seeds:
        config = replace(base(given, seed), teachers=list(FIVE), ensemble=ensemble())
        for record in records(given, "weights", seed, config, half=given.rounds // 2)[1:]:
            for context, told in record["teachers"].items():
                shown = {name: round(entry["weight"], 3) for name, entry in told.items()}
                rows.append({"seed": seed, "round": record["round"], "context": context or "all", **shown})
    return with_means(rows, ("round", "context"), list(countdown_teachers.FIVE))


def with_means(rows: list[Row], keys: Sequence[str], numbers: Sequence[str]) -> list[Row]:
    """The rows, and for each value of ``keys`` a row of means over the seeds; a text of numbers is averaged
    place by place."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    means = []
    for values, group in groups.items():
        mean: Row = {"seed": "mean", **dict(zip(keys, values, strict=True))}
        for name in numbers:
            cells = np.asarray([[float(word) for word in str(row[name]).split()] for row in group])
            mean[name] = " ".join(f"{cell:.3g}" for cell in cells.mean(axis=0))
        means.append(mean)
    return rows + means


def spent(found: Sequence[Record], upto: int) -> int:
    """Tokens forwarded in play up to a round, teachers' and judges' included."""
    names = ("prefill_tokens", "decode_tokens", "value_tokens", "teacher_tokens", "judge_tokens")
    return sum(record["ledger"][name] for record in found[1 : upto + 1] for name in names)


def curve(seed: int, arm: str, found: Sequence[Record], goal: float) -> Row:
    accuracy = [record["greedy_accuracy"] for record in found]
    reached = next((r for r, a in enumerate(accuracy) if a >= goal), None)
    return {
        "seed": seed,
        "arm": arm,
        "greedy %": " ".join(f"{100 * a:.1f}" for a in accuracy),
        "rounds to goal": reached,
        "tokens to goal": None if reached is None else spent(found, reached),
        "tokens": spent(found, len(found)),
        "teachers' tokens": sum(record["ledger"]["teacher_tokens"] for record in found),
    }


def ablation(given: argparse.Namespace) -> list[Row]:
    arms = {
        "none": {},
        "equal": {"teachers": list(FIVE), "ensemble": ensemble(weights=WeightConfig(dynamic=False))},
        "dynamic": {"teachers": list(FIVE), "ensemble": ensemble()},
        "dynamic, every state": {"teachers": list(FIVE), "ensemble": ensemble(visits=1)},
        "equal, every state": {
            "teachers": list(FIVE),
            "ensemble": ensemble(visits=1, weights=WeightConfig(dynamic=False)),
        },
    }
    return [
        curve(seed, arm, records(given, arm, seed, replace(base(given, seed), **changes)), given.goal)
        for seed in given.seeds
        for arm, changes in arms.items()
    ]


def lazy(given: argparse.Namespace) -> list[Row]:
    """The teachers are the rounds of runs with other seeds than the students', the last rounds best."""
    teachers = []
    for seed in (101, 102):
        records(given, "teacher", seed, base(given, seed))
        for number in range(5):
            path = checkpoint_path(given.out / f"lazy-teacher-{seed}", round(number * given.rounds / 4))
            teachers.append(ModelTeacherConfig(load=str(path), label=f"{seed}-{number}"))
    arms = {
        "none": {},
        "always": {"teachers": teachers, "ensemble": ensemble(visits=1)},
        "one a problem": {"teachers": teachers, "ensemble": ensemble(visits=1, asked=1)},
        "late, one a problem": {"teachers": teachers, "ensemble": ensemble(visits=2, asked=1)},
    }
    return [
        curve(seed, arm, records(given, arm, seed, replace(base(given, seed), **changes)), given.goal)
        for seed in given.seeds
        for arm, changes in arms.items()
    ]


def judge(given: argparse.Namespace) -> list[Row]:
    rows = []
    for seed in given.seeds:
        for right in (None, 0.8, 0.5):
            config = base(given, seed)
            if right is not None:
                inner = FunctionJudgeConfig(function="countdown_teachers:still_solvable")
                leaf = replace(config.play.leaf, judge_eta=0.5, judge_rounds=given.rounds)
                config = replace(
                    config,
                    judge=NoisyJudgeConfig(inner=inner, right=right, seed=seed),
                    play=replace(config.play, leaf=leaf),
                )
            name = "off" if right is None else f"right-{right}"
            rows.append(curve(seed, name, records(given, name, seed, config), given.goal))
    return rows


def bridge(given: argparse.Namespace) -> list[Row]:
    """Three numbers, written character by character, so that no token of the teacher's is one of the
    student's."""
    rows = []
    for seed in given.seeds:
        config = base(given, seed)
        options = {"numbers": 3, "high": 9, "target_low": 1, "granularity": "characters", "train": 20000}
        architecture = {**config.model.architecture, "max_position_embeddings": 64}
        config = replace(
            config,
            task=replace(config.task, options=options),
            model=replace(config.model, architecture=architecture),
        )
        task = get_task("countdown", **options)
        alphabet = from_spec(task.tokenizer_spec())
        texts = sorted({f"{problem.public.prompt} " for problem in task.problems("train")})
        texts += [answer for _, answer in task.demonstrations(2000, np.random.default_rng(0))]
        pieces = from_spec({"kind": "bpe", "texts": texts, "vocab_size": 300})
        for arm, tokenizer in (("none", None), ("same tokenizer", alphabet), ("BPE", pieces)):
            changes: dict[str, Any] = {}
            if tokenizer is not None:
                load = str(taught(given, task, tokenizer, architecture, f"{arm.split()[0]}-{seed}", seed))
                kind = ModelTeacherConfig if tokenizer is alphabet else BridgeConfig
                changes = {"teachers": [kind(load=load, label="shown")], "ensemble": ensemble(visits=1)}
            found = records(given, arm.split()[0], seed, replace(config, **changes))
            rows.append(curve(seed, arm, found, given.goal))
    return rows


def taught(
    given: argparse.Namespace, task: Task, tokenizer: Any, architecture: Row, name: str, seed: int
) -> Path:
    """A student that was shown one solution of each training problem."""
    directory = given.out / f"shown-{name}"
    if not directory.is_dir():
        student = Student.from_config(architecture, tokenizer, seed=seed)
        pairs = []
        for prompt in sorted({problem.public.prompt for problem in task.problems("train")}):
            numbers, target = read_prompt(prompt)
            steps = solve(numbers, target, countdown_teachers.RULES)
            if steps is not None:
                pairs.append((prompt, " ".join(steps)))
        shown = [
            Example(
                [*encode_prompt(tokenizer, prompt), *ids, student.eos_id],
                len(encode_prompt(tokenizer, prompt)),
            )
            for prompt, answer in pairs
            for ids in [tokenizer(answer, add_special_tokens=False).input_ids]
        ]
        optimizer = OptimizerConfig(lr=3e-3)
        pretrain(student, shown, PretrainConfig(steps=given.shown, optimizer=optimizer), seed)
        student.save(directory)
    return directory


CASES = {"weights": weights, "ablation": ablation, "lazy": lazy, "bridge": bridge, "judge": judge}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=120_000, help="forwarded by the student in a round")
    parser.add_argument("--steps", type=int, default=200, help="of the learner in a round")
    parser.add_argument("--shown", type=int, default=1500, help="steps of the teachers of case bridge")
    parser.add_argument("--goal", type=float, default=0.4, help="greedy accuracy to reach")
    parser.add_argument("--out", type=Path, help="where runs go and are gone on with (default: nowhere)")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        given.out = (given.out or Path(scratch)).resolve()
        rows = CASES[given.case](given)
        if given.case != "weights":
            rows = with_means(rows, ("arm",), ("greedy %",))
        emit(f"teachers, {given.case}", rows, given.json)


if __name__ == "__main__":
    main()

"""Teachers at test time: n-gram tables and models named by their path, heard with equal weights.

Methods that search mix them into their priors; greedy decoding, samples and beams are the student's alone.
Weights that a run's teachers earned stay with the run (see ``selfplay.ensemble``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import load_tokenizer
from tokenzero.teachers import Ensemble, EnsembleConfig, NgramTeacher, Teacher, TeacherWeights
from tokenzero.teachers.local_model import ModelConfig, ModelTeacher, difference_of_tokenizers, label_of
from tokenzero.teachers.text_bridge import BridgeConfig, BridgeTeacher
from tokenzero.teachers.weights import WeightConfig

SHARE = 0.5
"""The teachers' share of the prior where nobody says otherwise."""


def ensemble_of(
    named: Sequence[str | Path | Teacher], student: Student, share: float | None = None
) -> Ensemble | None:
    """The teachers ``named`` as one voice with ``share`` of the prior (None: `SHARE`); None for no teachers.

    A file is a saved n-gram table over the student's tokens; anything else a directory or hub name of a
    model, which may have a tokenizer of its own. A teacher that is open already is taken as it is.

    Raises InputError for what cannot be opened, a table of another vocabulary, two teachers of one name, a
    share outside [0, 1], and a share without teachers.
    """
    if not named:
        if share is not None:
            raise InputError(f"the teachers' share is {share} and there are none; name a teacher too")
        return None
    config = EnsembleConfig(beta=SHARE if share is None else share)
    teachers = [_opened(one, student) for one in named]
    weights = TeacherWeights([teacher.name for teacher in teachers], WeightConfig(dynamic=False))
    return Ensemble(teachers, weights, config)


def _opened(named: str | Path | Teacher, student: Student) -> Teacher:
    if not isinstance(named, str | Path):
        return named
    if not Path(named).is_file():
        return _model(str(named), student)
    table = NgramTeacher.load(named)
    if table.vocab_size != student.vocab_size:
        raise InputError(
            f"n-gram table {named} knows {table.vocab_size} tokens and the student {student.vocab_size}; "
            "count one with the student's tokenizer"
        )
    return table


def _model(source: str, student: Student) -> Teacher:
    if difference_of_tokenizers(student.tokenizer, load_tokenizer(source)):
        return BridgeTeacher.open(BridgeConfig(load=source, label=label_of(source)), student.tokenizer)
    return ModelTeacher.open(ModelConfig(load=source, label=label_of(source)), student.tokenizer)

"""Who proposes candidates: n-gram tables, past checkpoints, and their mixture with the student.

Nothing here needs torch, weighs teachers or decides when they are asked.
"""

from tokenzero.teachers.base import Proposal, Teacher, top_k
from tokenzero.teachers.checkpoint import CheckpointTeacher
from tokenzero.teachers.mixture import Mixture, mix
from tokenzero.teachers.ngram import NgramTeacher

__all__ = ["CheckpointTeacher", "Mixture", "NgramTeacher", "Proposal", "Teacher", "mix", "top_k"]

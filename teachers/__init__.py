"""Who proposes candidates: n-gram tables, models, scripts, servers, and their mixture with the student.

The names below need no torch. Teachers that do are imported from their own modules: `local_model`,
`checkpoint`, `text_bridge`, `continuations`, and `scripted` for its tokenizer; so is `referee`.
"""

from tokenzero.teachers.base import Continuation, Proposal, Teacher, top_k
from tokenzero.teachers.credit import CreditLedger, trace_weights, tree_edges
from tokenzero.teachers.ensemble import Ensemble, EnsembleConfig, Inquiry, Path, followed
from tokenzero.teachers.mixture import Mixture, mix
from tokenzero.teachers.ngram import NgramTeacher
from tokenzero.teachers.remote import RemoteTeacher, RemoteTeacherConfig
from tokenzero.teachers.weights import GLOBAL, Credit, TeacherWeights, WeightConfig

__all__ = [
    "GLOBAL",
    "Continuation",
    "Credit",
    "CreditLedger",
    "Ensemble",
    "EnsembleConfig",
    "Inquiry",
    "Mixture",
    "NgramTeacher",
    "Path",
    "Proposal",
    "RemoteTeacher",
    "RemoteTeacherConfig",
    "Teacher",
    "TeacherWeights",
    "WeightConfig",
    "followed",
    "mix",
    "top_k",
    "trace_weights",
    "tree_edges",
]

"""What binds the parts: games, methods, evaluation, episodes, the learner, and whole runs.

A `Player` turns a student, a task and a search configuration into finished games; `Search`, `greedy` and
`BestOfN` are the test-time ways to answer; `Run` repeats play, learn and evaluate on disk. Nothing here knows
the command line, YAML or HTTP.
"""

from __future__ import annotations

from tokenzero.selfplay.arena import ArenaConfig
from tokenzero.selfplay.config import (
    EvaluationConfig,
    ModelConfig,
    SelfPlayConfig,
    TaskConfig,
)
from tokenzero.selfplay.episode import Episode, from_game, read_episodes, write_episodes
from tokenzero.selfplay.evaluation import Score, evaluate, wilson
from tokenzero.selfplay.evaluator import LeafConfig, LeafEvaluator, Parts
from tokenzero.selfplay.game import Game, Move
from tokenzero.selfplay.health import HealthConfig
from tokenzero.selfplay.learner import Learner, LearnerConfig, Losses
from tokenzero.selfplay.listener import Listener
from tokenzero.selfplay.methods import BestOfN, Method, Search, greedy
from tokenzero.selfplay.outcomes import Grader
from tokenzero.selfplay.play_config import PlayConfig
from tokenzero.selfplay.player import Player
from tokenzero.selfplay.replay import Batch, Replay
from tokenzero.selfplay.retention import RetentionConfig
from tokenzero.selfplay.run import Run
from tokenzero.selfplay.run_directory import checkpoint_path, finished_rounds, shard_path

__all__ = [
    "ArenaConfig",
    "Batch",
    "BestOfN",
    "Episode",
    "EvaluationConfig",
    "Game",
    "Grader",
    "HealthConfig",
    "LeafConfig",
    "LeafEvaluator",
    "Learner",
    "LearnerConfig",
    "Listener",
    "Losses",
    "Method",
    "ModelConfig",
    "Move",
    "Parts",
    "PlayConfig",
    "Player",
    "Replay",
    "RetentionConfig",
    "Run",
    "Score",
    "Search",
    "SelfPlayConfig",
    "TaskConfig",
    "checkpoint_path",
    "evaluate",
    "finished_rounds",
    "from_game",
    "greedy",
    "read_episodes",
    "shard_path",
    "wilson",
    "write_episodes",
]

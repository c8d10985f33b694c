"""The kinds of teachers that a config may list. It opens none: see ``selfplay.ensemble``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tokenzero.teachers.checkpoint import CheckpointConfig
from tokenzero.teachers.continuations import BeamConfig, SampleConfig
from tokenzero.teachers.local_model import ModelConfig
from tokenzero.teachers.ngram import NgramConfig
from tokenzero.teachers.remote import RemoteTeacherConfig
from tokenzero.teachers.scripted import ScriptedConfig
from tokenzero.teachers.text_bridge import BridgeConfig

AnyTeacherConfig = (
    NgramConfig
    | CheckpointConfig
    | ModelConfig
    | BridgeConfig
    | SampleConfig
    | BeamConfig
    | ScriptedConfig
    | RemoteTeacherConfig
)
TeacherConfig = Annotated[AnyTeacherConfig, Field(discriminator="kind")]
"""Settings of one teacher; ``kind`` tells which."""

"""A pretraining as one frozen record, from presets, YAML files and ``--set`` words; and what it is made of:
the corpus, and the model to train on it.

The training itself is ``policy.train_on_corpus``'s; nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from tokenzero.checkpoint import resolve
from tokenzero.config import Layer, bind_layers
from tokenzero.config_text import parse
from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import CorpusConfig, TokenizerConfig
from tokenzero.policy.corpora.corpus import Corpus, cache_directory, open_corpus
from tokenzero.policy.corpora.fetch import tiny_shakespeare
from tokenzero.policy.model_presets import model_shape
from tokenzero.policy.student import Student
from tokenzero.policy.train_on_corpus import CorpusTrainingConfig

DEFAULT_PRESET = "shakespeare-char"
SETTINGS_FILE = "pretraining.json"
"""The settings of a pretraining, beside its weights."""
DEVICES = ("auto", "cpu", "cuda")
FORBID: Mapping[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class PretrainedModelConfig:
    """What is trained. ``load``: a directory or hub model, with its tokenizer, to go on from. Else random
    weights: ``architecture``, a transformers config with ``model_type``, or where that is empty one of
    ``policy.model_presets`` by its name ``shape``, for ``positions`` (None: the shape's own).
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    shape: str = "0.8m"
    positions: int | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    load: str | None = None

    def __post_init__(self) -> None:
        model_shape(self.shape)
        if self.positions is not None and self.positions < 1:
            raise InputError(f"positions is {self.positions}; give at least 1, or null")


@dataclass(frozen=True)
class PretrainingConfig:
    """``fetch`` names the corpus to take where ``corpus`` names none. ``device`` "auto" is CUDA where there
    is one. ``threads`` fixes torch's threads, because the last bits depend on it.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FORBID

    model: PretrainedModelConfig = field(default_factory=PretrainedModelConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    fetch: Literal["", "tiny-shakespeare"] = ""
    training: CorpusTrainingConfig = field(default_factory=CorpusTrainingConfig)
    device: str = "auto"
    seed: int = 1
    threads: int = 2

    def __post_init__(self) -> None:
        check_machine(self.device, self.threads, self.seed)
        if self.training.steps < 1:
            raise InputError(f"training.steps is {self.training.steps}; give at least 1")


def check_machine(device: str, threads: int, seed: int) -> None:
    """Raise InputError for a device that is not known, or a count of threads or a seed out of range."""
    if device not in DEVICES:
        raise InputError(f"device is {device!r}; choose one of {', '.join(DEVICES)}")
    if threads < 1 or seed < 0:
        raise InputError(f"threads is {threads} and seed {seed}; give threads >= 1, seed >= 0")


def pretraining_presets() -> list[str]:
    """The presets that come with the package, by name."""
    files = resources.files("tokenzero").joinpath("presets", "pretrain").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_pretraining(
    preset: str | None = None, path: str | Path | None = None, changes: Iterable[Layer] = ()
) -> PretrainingConfig:
    """The settings of ``preset`` or of the file ``path`` (YAML, or the JSON beside the weights), changed by
    ``changes``. A file may build on a preset with ``preset: NAME``. With neither, the preset
    shakespeare-char.

    Raises InputError for an unknown preset or key, an unreadable file, a wrong type or a value out of its
    range.
    """
    layers = _preset_layers(preset or DEFAULT_PRESET) if path is None else _file_layers(Path(path))
    return bind_layers(PretrainingConfig, [*layers, *changes])


def with_corpus(config: PretrainingConfig) -> PretrainingConfig:
    """``config`` with the corpus that is named or fetched. Raises InputError where there is none."""
    if config.corpus.path or config.corpus.dataset:
        return config
    if not config.fetch:
        raise InputError(
            "no corpus is named; give --corpus PATH, or a data set with --set corpus.dataset=NAME"
        )
    path = tiny_shakespeare(cache_directory(config.corpus.cache))
    return replace(config, corpus=replace(config.corpus, path=str(path)))


def prepare(
    config: PretrainingConfig,
    listener: Callable[[str], None] | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> tuple[Student, Corpus]:
    """The model before its first step, on its device, and the corpus, for which ``listener`` and ``progress``
    are `open_corpus`'s. Sets torch's threads.

    Raises InputError for a corpus or model that cannot be opened or built, or a GPU that is not there.
    """
    torch.set_num_threads(config.threads)
    place = device_of(config.device)
    model = config.model
    if model.load is not None:
        source = resolve(model.load)
        corpus = open_corpus(
            replace(config.corpus, tokenizer=TokenizerConfig(load=source)), listener, progress
        )
        return open_student(source, place), corpus
    corpus = open_corpus(config.corpus, listener, progress)
    architecture = model.architecture or model_shape(model.shape).architecture(model.positions)
    student = Student.from_config(architecture, corpus.tokenizer, seed=config.seed)
    module: torch.nn.Module = student.model
    module.to(place)
    return student, corpus


def open_student(source: str, device: str) -> Student:
    """A model to train: its weights are float32, whatever they were saved as. Raises InputError where there
    is none.
    """
    student = Student.load(source, device=device)
    student.model.float()
    return student


def device_of(name: str) -> str:
    """The device "auto" stands for. Raises InputError for CUDA where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, and torch finds no GPU here; use cpu or auto")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def read_layer(text: str, source: str) -> Layer:
    """Settings written as YAML. Raises InputError where they are no mapping."""
    values = parse(text, source)
    if not isinstance(values, dict):
        raise InputError(f"{source}: holds {type(values).__name__}; give a mapping such as 'seed: 3'")
    return Layer(source, values)


def read_settings(path: Path) -> Layer:
    """The settings in a file. Raises InputError where it cannot be read."""
    try:
        return read_layer(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise InputError(f"config {path} cannot be read ({error.strerror}); give a YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"config {path} is not UTF-8 text; give a YAML file") from error


def _preset_layers(name: str) -> list[Layer]:
    known = pretraining_presets()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"preset {name!r} does not exist; {hint}there are {', '.join(known)}")
    place = resources.files("tokenzero").joinpath("presets", "pretrain", f"{name}.yaml")
    return _based(read_layer(place.read_text(encoding="utf-8"), f"preset {name}"))


def _file_layers(path: Path) -> list[Layer]:
    return _based(read_settings(path))


def _based(own: Layer) -> list[Layer]:
    """The layers of the preset that ``own`` builds on, and ``own``."""
    base = own.values.pop("preset", None)
    return [*([] if base is None else _preset_layers(str(base))), own]

"""Settings of a run from presets, YAML files and ``--set`` words, bound to the frozen records of
``selfplay.config``, or of ``selfplay.text.config`` where they say ``game: text``.

Later layers win: preset, file, overrides. Mistakes are one line that names the layer, the full dotted path
and the way out. It does not know what the options mean: their ranges are checked by the records themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from tokenzero.config_text import parse
from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.selfplay.text.config import TextGameConfig

DEFAULT_PRESET = "countdown"
Values = dict[str, Any]
Record = TypeVar("Record")

# What a value of another type should have been, by pydantic's name of the mistake.
_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
}


@dataclass(frozen=True)
class Layer:
    """Some settings and where they were written, for messages."""

    source: str
    values: Values


def preset_names() -> list[str]:
    """The presets that come with the package, by name."""
    files = resources.files("tokenzero").joinpath("presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_config(
    preset: str | None = None, path: str | Path | None = None, overrides: Iterable[str] = ()
) -> SelfPlayConfig | TextGameConfig:
    """The settings of ``preset`` or of the file ``path`` (YAML, or the JSON a run keeps), changed by
    ``overrides``. They are those of a text game where they say ``game: text``.

    A file may name the preset it builds on with ``preset: NAME``. An override is ``a.b=value`` with a YAML
    value. With neither preset nor file, the preset ``countdown``.

    Raises:
        InputError: unknown preset, unreadable file, unknown key, wrong type or value out of its range.
    """
    if preset is not None and path is not None:
        raise InputError("give --preset or --config, not both; a file may say 'preset: NAME' itself")
    layers = _file_layers(Path(path)) if path is not None else _preset_layers(preset or DEFAULT_PRESET)
    layers = [*layers, *map(override_layer, overrides)]
    said = [layer for layer in layers if "game" in layer.values]
    if not said:
        return bind_layers(SelfPlayConfig, layers)
    if said[-1].values["game"] != "text":
        raise InputError(
            f"{said[-1].source}: game is {said[-1].values['game']!r}; give text, or leave it out to play on "
            "a task's problems"
        )
    return bind_layers(TextGameConfig, layers)


def on_problems(config: SelfPlayConfig | TextGameConfig) -> SelfPlayConfig:
    """``config``, which must be that of a run on a task's problems. Raises InputError for a text game."""
    if isinstance(config, TextGameConfig):
        raise InputError(
            "these are the settings of a text game, which is played on no task's problems; choose another "
            "preset"
        )
    return config


def bind_layers(kind: type[Record], layers: Sequence[Layer]) -> Record:
    """A record of type ``kind`` from ``layers``, later ones over earlier ones.

    Raises InputError, one line, for an unknown key, a wrong type or a value out of its range.
    """
    for layer in layers:
        _check_names(kind, layer.values, (), layer.source, kind)
    return bind(kind, merge_layers(layers), layers)


def merge_layers(layers: Sequence[Layer]) -> Values:
    """The settings of all ``layers``, later ones over earlier ones."""
    merged: Values = {}
    for layer in layers:
        merged = _merged(merged, layer.values)
    return merged


def bind(kind: type[Record], values: Values, layers: Sequence[Layer]) -> Record:
    """``values`` as a record of type ``kind``; ``layers`` tell whose mistake a wrong value is (the last is
    blamed last).

    Raises InputError, one line.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = _untagged(tuple(str(part) for part in first["loc"]), values)
        # The last of those who say most of the place; where nobody does, the first.
        blamed = max(reversed(layers), key=lambda layer: _said(layer.values, path))
        source = (blamed if not path or _said(blamed.values, path) else layers[0]).source
        raise InputError(f"{source}: {_complaint(path, first)}") from error


def _untagged(path: tuple[str, ...], values: Any) -> tuple[str, ...]:
    """The path without the kinds that pydantic puts between a union and its member's fields."""
    kept: list[str] = []
    tagged = False
    for part in path:
        if isinstance(values, Mapping) and part == values.get("kind") and not tagged:
            tagged = True  # once for each union: a field may have the name of a kind
            continue
        tagged = False
        kept.append(part)
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
    return tuple(kept)


def _complaint(path: tuple[str, ...], mistake: Mapping[str, Any]) -> str:
    place = ".".join(path)
    reason = mistake.get("ctx", {}).get("error")
    if isinstance(reason, ValueError):  # the record's own check, which names the value and the way out
        return f"{place}: {reason}" if place else str(reason)
    wanted = _WANTED.get(mistake["type"])
    if mistake["type"] == "unexpected_keyword_argument":
        return f"{place} is not an option; remove it"
    if mistake["type"] == "missing":
        return f"{place} is missing; give it a value"
    return f"{place} is {mistake['input']!r}; give {wanted}" if wanted else f"{place}: {mistake['msg']}"


def _said(values: Any, path: tuple[str, ...]) -> int:
    """How many parts of ``path`` a layer speaks of (places in lists end the walk)."""
    for depth, part in enumerate(path):
        if not isinstance(values, Mapping):
            return len(path)
        if part not in values:
            return depth
        values = values[part]
    return len(path)


def _preset_layers(name: str) -> list[Layer]:
    """The settings of a preset, after those of the preset it builds on."""
    known = preset_names()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"preset {name!r} does not exist; {hint}there are {', '.join(known)}")
    text = resources.files("tokenzero").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    values = dict(_mapping(parse(text, f"preset {name}"), f"preset {name}"))
    base = values.pop("preset", None)
    return [*([] if base is None else _preset_layers(str(base))), Layer(f"preset {name}", values)]


def _file_layers(path: Path) -> list[Layer]:
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"config {source} cannot be read ({error.strerror}); give a YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"config {source} is not UTF-8 text; give a YAML file") from error
    values = _mapping(parse(text, source), source)
    base = values.pop("preset", None)
    if base is not None and not isinstance(base, str):
        raise InputError(f"{source}: preset is {base!r}; name one of {', '.join(preset_names())}")
    own = Layer(source, values)
    return [own] if base is None else [*_preset_layers(base), own]


def override_layer(word: str) -> Layer:
    """What ``--set word`` says. Raises InputError where it is not ``a.b=value``."""
    source = f"--set {word}"
    path, equals, text = word.partition("=")
    parts = path.split(".")
    if not equals or not all(parts):
        raise InputError(f"{source}: write it as a.b=value, for example learner.steps=100")
    values: Any = parse(text, source)
    for part in reversed(parts):
        values = {part: values}
    return Layer(source, values)


def _mapping(values: Any, source: str) -> Values:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{source}: holds {type(values).__name__}; give a mapping such as 'rounds: 3'")
    return values


def _merged(below: Values, above: Values) -> Values:
    """``above`` laid over ``below``. Mappings merge key by key, everything else is replaced.

    What only makes sense together is replaced together: an empty mapping empties; another task name drops the
    old task's options; another ``model_type`` or a model to ``load`` drops the old architecture.
    """
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, Mapping) and value and isinstance(old, Mapping):
            result[key] = _merged(_still_fitting(dict(old), value), dict(value))
        else:
            result[key] = value
    return result


def _still_fitting(old: Values, new: Mapping[str, Any]) -> Values:
    if old.get("name", new.get("name")) != new.get("name", old.get("name")):
        old.pop("options", None)
    if old.get("kind", new.get("kind")) != new.get("kind", old.get("kind")):
        return {}
    if new.get("load") is not None:
        old.pop("architecture", None)
    elif new.get("architecture"):
        old.pop("load", None)
    if "model_type" in new and "model_type" in old and new["model_type"] != old["model_type"]:
        return {}
    return old


def _check_names(kind: type[Any], values: Any, path: tuple[str, ...], source: str, whole: type[Any]) -> None:
    """Refuse keys that the records do not have, with the full dotted path and the nearest name that
    exists in the record or else anywhere in the ``whole``.
    """
    known = [field.name for field in fields(kind)]
    if not isinstance(values, Mapping):
        raise InputError(
            f"{source}: {'.'.join(path)} is {values!r}; give a mapping with some of {', '.join(known)}"
        )
    hints = get_type_hints(kind)  # without the annotations that only pydantic reads
    for key, value in values.items():
        here = (*path, str(key))
        if key not in known:
            raise InputError(
                f"{source}: {'.'.join(here)} is not an option; {_nearest(path, str(key), known, whole)}"
            )
        for inner, place, item in _records(hints[key], value, here, source):
            _check_names(inner, item, place, source, whole)


def _records(
    hint: Any, value: Any, path: tuple[str, ...], source: str
) -> Iterable[tuple[type[Any], tuple[str, ...], Any]]:
    """The records in ``value``, each with its type, its place and its values."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint, path, value
    elif get_origin(hint) is list and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _records(get_args(hint)[0], item, (*path, str(index)), source)
    elif value is not None and (members := _members(hint)):
        yield members[0] if len(members) == 1 else _of_kind(members, value, path, source), path, value


def _members(hint: Any) -> list[type[Any]]:
    """The records that a union offers; none for any other type."""
    if get_origin(hint) not in (Union, UnionType):
        return []
    return [member for member in get_args(hint) if isinstance(member, type) and is_dataclass(member)]


def _of_kind(members: Sequence[type[Any]], values: Any, path: tuple[str, ...], source: str) -> type[Any]:
    """The one of ``members`` that the field ``kind`` of ``values`` names."""
    kinds = {kind: member for member in members for kind in get_args(get_type_hints(member)["kind"])}
    place, choice = ".".join(path), f"choose one of {', '.join(kinds)}"
    if not isinstance(values, Mapping):
        raise InputError(f"{source}: {place} is {values!r}; give a mapping with a kind: {choice}")
    kind = values.get("kind")
    if kind is None:
        near = get_close_matches("kind", [str(key) for key in values], n=1)
        if near:
            raise InputError(
                f"{source}: {place}.{near[0]} is not an option; did you mean {place + '.kind'!r}?"
            )
        raise InputError(f"{source}: {place}.kind is missing; {choice}")
    if kind not in kinds:
        near = get_close_matches(str(kind), kinds, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"{source}: {place}.kind is {kind!r}; {hint}{choice}")
    return kinds[kind]


def _nearest(path: tuple[str, ...], key: str, known: list[str], whole: type[Any]) -> str:
    near = get_close_matches(key, known, n=1)
    if near:
        return f"did you mean {'.'.join((*path, near[0]))!r}?"
    elsewhere = [".".join(place) for place in _all_paths(whole, ()) if place[-1] == key]
    if elsewhere:
        return f"did you mean {elsewhere[0]!r}?"
    return f"use one of {', '.join(known)}"


def _all_paths(kind: type[Any], path: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        here = (*path, field.name)
        yield here
        if isinstance(hints[field.name], type) and is_dataclass(hints[field.name]):
            yield from _all_paths(hints[field.name], here)

"""Is this installation sound, and how will a model run here? Versions, threads, devices, self-checks.

It changes nothing except compiled kernels in numba's cache, and measures no speed.
"""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenzero import mcts
from tokenzero.checkpoint import resolve
from tokenzero.mcts import SearchConfig
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import TIERS, EngineConfig, choose, open_engine
from tokenzero.policy.tokenizers import from_spec
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.methods import Search
from tokenzero.tasks import get_task

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "numba", "pyarrow", "pydantic", "safetensors")
EXTRAS = {"bench": "mctx", "tasks": "reasoning_gym", "dev": "pytest"}
_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
_TASK = {
    "numbers": 3,
    "high": 6,
    "target_low": 1,
    "target_high": 30,
    "bound": 36,
    "train": 8,
    "validation": 4,
    "test": 4,
}


def examine(model: str | None = None) -> dict[str, Any]:
    """Everything about the installation, and ``checks`` {name: {ok, detail}}; ``ok`` is true when all checks
    passed. With a ``model``, a run, checkpoint or hub name, also how it would be forwarded.

    Raises:
        InputError: the model cannot be loaded.
    """
    inference = {} if model is None else {"model": how_it_runs(model)}
    checks = {name: _checked(check) for name, check in CHECKS.items()}
    return {
        "ok": all(check["ok"] for check in checks.values()),
        "versions": {"tokenzero": _version("tokenzero"), "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": {"model": _cpu(), "cores": os.cpu_count() or 1, "torch_threads": torch.get_num_threads()},
        "cuda": _cuda(),
        "extras": {name: importlib.util.find_spec(module) is not None for name, module in EXTRAS.items()},
        "checks": checks,
    } | inference


def how_it_runs(model: str) -> dict[str, Any]:
    """``source``, ``parameters``, and the ``tier`` and ``way`` that the numeric self-test chose for a model;
    ``findings`` say of each way what it tried, fastest first, and why it was passed over.
    """
    source = resolve(model)
    student = Student.load(source)
    choice, _ = choose(student)
    return {
        "source": source,
        "parameters": student.parameters(),
        "dtype": str(next(student.model.parameters()).dtype).removeprefix("torch."),
        "device": str(student.device),
        "tier": choice.tier,
        "way": choice.way,
        "reason": choice.explain(),
        "findings": [
            {"tier": f.tier, "way": f.way, "error": _finite(f.error), "limit": f.limit, "reason": f.reason}
            for f in choice.findings
        ],
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def warm() -> float:
    """Compile every kernel now rather than in the first search; seconds it took."""
    started = time.perf_counter()
    mcts.warm()
    for lean in (True, False):
        student = _student()
        parts = Parts(
            student=student,
            engine=open_engine(student, EngineConfig(lean=lean)),
            task=get_task("countdown", **_TASK),
        )
        problems = [problem.public for problem in parts.task.problems("test")]
        Search(parts, SearchConfig(simulations=4, candidates=8)).play(problems, np.random.default_rng(0))
    model: Any = student.model
    model.to(torch.bfloat16)
    choose(student)
    return time.perf_counter() - started


def _checked(check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"ok": True, "detail": check()}
    except (OSError, ValueError, RuntimeError, ArithmeticError) as error:
        return {"ok": False, "detail": " ".join(str(error).split())}


def _engines_agree() -> str:
    choice, _ = choose(_student())
    if choice.tier != TIERS[0]:
        raise ArithmeticError(f"a tiny Llama needs {choice.explain()}")
    return choice.explain()


def _search_runs() -> str:
    student = _student()
    parts = Parts(student=student, engine=open_engine(student), task=get_task("countdown", **_TASK))
    problems = [problem.public for problem in parts.task.problems("test")]
    answers = []
    for method in ("gumbel", "puct", "frontier"):
        search = Search(parts, SearchConfig(method=method, simulations=8, candidates=8))
        games = search.play(problems, np.random.default_rng(0))
        if any(game.moves[0].visits.sum() > 8 for game in games):
            raise ArithmeticError(f"{method} visited more than it simulated")
        answers += [game.text for game in games]
    return f"{len(answers)} problems searched"


def _numba_cache() -> str:
    """Kernels are compiled once and kept beside their source, or where NUMBA_CACHE_DIR says, or in the user's
    cache.
    """
    from tokenzero.mcts import kernels

    places = [Path(kernels.__file__).parent / "__pycache__", Path.home() / ".cache"]
    if os.environ.get("NUMBA_CACHE_DIR"):
        places = [Path(os.environ["NUMBA_CACHE_DIR"])]
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return str(place)
        except OSError:
            continue
    raise OSError("numba has nowhere to keep compiled kernels, each start compiles anew; set NUMBA_CACHE_DIR")


CHECKS: dict[str, Callable[[], str]] = {
    "engines agree": _engines_agree,
    "search runs": _search_runs,
    "numba cache": _numba_cache,
}


def _student() -> Student:
    return Student.from_config(_LLAMA, from_spec(get_task("countdown", **_TASK).tokenizer_spec()), seed=0)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cuda() -> dict[str, Any]:
    available = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if available else []
    return {"available": available, "devices": names}

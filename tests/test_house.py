"""House rules a machine can check: direction and weight of imports, names, sizes, unsafe calls, pins."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("mcts", "policy", "value", "teachers", "tasks", "selfplay")
FRONT = "tokenzero"

# What each folder may import of ours, besides itself: tokenzero -> selfplay -> {teachers, value, tasks} ->
# policy -> mcts. Value and teachers may ask tasks (verifiers), tasks ask neither, and value and teachers do
# not know each other.
MAY_IMPORT: dict[str, set[str]] = {
    "mcts": set(),
    "policy": {"mcts"},
    "tasks": {"policy", "mcts"},
    "value": {"tasks", "policy", "mcts"},
    "teachers": {"tasks", "policy", "mcts"},
    "selfplay": {"teachers", "value", "tasks", "policy", "mcts"},
    FRONT: {*FOLDERS},
}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
LONGEST_FILE = 400
LONGER_FILES = {
    "mcts/kernels.py": 560,
    "mcts/frontier_kernels.py": 480,
}  # numba's cache goes stale across files, so kernels that call each other share one
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@cache
def _sources(*folders: str) -> tuple[Path, ...]:
    """Python files below the folders, not following the links of tokenzero/ (each file is visited once)."""
    found: list[Path] = []
    for folder in folders:
        pending = [ROOT / folder]
        while pending:
            for path in sorted(pending.pop().iterdir()):
                if path.is_dir() and not path.is_symlink() and path.name != "__pycache__":
                    pending.append(path)
                elif path.suffix == ".py":
                    found.append(path)
    return tuple(found)


def _package() -> tuple[Path, ...]:
    return _sources(*FOLDERS, FRONT)


def _everything() -> tuple[Path, ...]:
    extra = [folder for folder in ("benchmarks", "examples", "tests") if (ROOT / folder).is_dir()]
    return _sources(*FOLDERS, FRONT, *extra)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _module_name(path: Path) -> str:
    """Dotted name under which a file is imported, e.g. tokenzero.mcts.tree; `x/__init__.py` is x.__init__."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == FRONT else (FRONT, *parts))


def _imports(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, those inside functions and TYPE_CHECKING included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def _wrong_imports(tree: ast.Module, module: str) -> list[str]:
    """Imports of `module` that point up or sideways, and any that use a folder's bare name."""
    parts = module.split(".")
    home = parts[1] if parts[0] == FRONT and parts[1] in FOLDERS else FRONT
    wrong: list[str] = []
    for line, name in _imports(tree, module):
        top, *rest = name.split(".")
        if top in FOLDERS:
            wrong.append(f"{module}:{line}: bare import of {top!r}; write tokenzero.{top}")
        elif top == FRONT:
            target = rest[0] if rest and rest[0] in FOLDERS else FRONT
            if target != home and target not in MAY_IMPORT[home]:
                wrong.append(f"{module}:{line}: {home} must not import {name}")
    return wrong


def _unsafe(tree: ast.Module) -> list[str]:
    """Calls and imports that can run code hidden in data."""
    found: list[str] = []
    for line, name in _imports(tree, "x"):
        if name.split(".")[0] in UNSAFE_MODULES:
            found.append(f"{line}: import of {name}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in {"eval", "exec", "builtins.eval", "builtins.exec"}:
            found.append(f"{node.lineno}: {called}()")
        if called == "torch.load" and given.get("weights_only") != "True":
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        for keyword in ("trust_remote_code", "allow_pickle"):
            if given.get(keyword, "False") != "False":
                found.append(f"{node.lineno}: {keyword}={given[keyword]}")
    return found


# ---- the rules, applied


def test_folders_are_linked_into_the_package() -> None:
    for folder in FOLDERS:
        link = ROOT / FRONT / folder
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{folder}"
        assert (link / "__init__.py").is_file()


def test_imports_point_one_way() -> None:
    wrong = [message for path in _package() for message in _wrong_imports(_tree(path), _module_name(path))]
    assert wrong == []


def test_nothing_is_imported_by_its_bare_folder_name() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in _everything()
        for line, name in _imports(_tree(path), "x.x")
        if name.split(".")[0] in FOLDERS
    ]
    assert bare == []


def _modules_after(statement: str) -> set[str]:
    """Top-level modules loaded in a fresh interpreter after `statement`."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {name.split(".")[0] for name in printed.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import tokenzero", {"torch", "transformers", "numba", "jax", "pyarrow", "matplotlib"}),
        ("import tokenzero.mcts", {"torch", "transformers", "tokenizers", "jax", "pyarrow", "matplotlib"}),
        ("import tokenzero.policy.atomic", {"torch", "transformers"}),
    ],
)
def test_light_imports_stay_light(statement: str, heavy: set[str]) -> None:
    assert _modules_after(statement) & heavy == set()


def test_files_are_named_for_what_they_do_and_stay_short() -> None:
    vague = [str(path.relative_to(ROOT)) for path in _everything() if path.stem in VAGUE_NAMES]
    lengths = {path.relative_to(ROOT): path.read_text(encoding="utf-8").count("\n") for path in _package()}
    assert vague == []
    assert {
        str(path): lines
        for path, lines in lengths.items()
        if lines > LONGER_FILES.get(str(path), LONGEST_FILE)
    } == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _everything()
        if not ast.get_docstring(_tree(path)) and path.read_text(encoding="utf-8").strip()
    ]
    assert silent == []


def test_nothing_runs_code_hidden_in_data() -> None:
    found = [f"{path.relative_to(ROOT)}:{message}" for path in _package() for message in _unsafe(_tree(path))]
    assert found == []


def _text_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:  # not a clone, for example an unpacked archive of one
        return list(_everything())
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_files_speak_of_the_project_alone() -> None:
    # spelt in two halves, so that this file passes its own test
    machine = re.compile("/wo" + "rk/|/tm" + "p/dev|/ho" + "me/|/ro" + "ot/")
    unfinished = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    found: list[str] = []
    for path in _text_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture or a table
            continue
        for rule in (machine, unfinished):
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in rule.finditer(text)]
    assert found == []


# ---- the rules, against code that breaks them


@pytest.mark.parametrize(
    ("module", "line", "right"),
    [
        ("tokenzero.mcts.search", "from tokenzero.mcts.tree import Tree", True),
        ("tokenzero.mcts.search", "from .tree import Tree", True),
        ("tokenzero.mcts.search", "from tokenzero.policy import atomic", False),
        ("tokenzero.mcts.search", "from tokenzero import policy", False),
        ("tokenzero.mcts.search", "from .. import policy", False),
        ("tokenzero.mcts.search", "from ..policy import atomic", False),
        ("tokenzero.mcts.__init__", "from . import search", True),
        ("tokenzero.mcts.search", "def f():\n    import tokenzero.policy.atomic", False),
        ("tokenzero.policy.engine", "import tokenzero", False),
        ("tokenzero.policy.engine", "from tokenzero.config import Config", False),
        ("tokenzero.policy.engine", "from tokenzero.tasks import Task", False),
        ("tokenzero.value.judge", "from tokenzero.teachers import Teacher", False),
        ("tokenzero.teachers.local", "from tokenzero.value import Judge", False),
        ("tokenzero.value.terminal", "from tokenzero.tasks import Task", True),
        ("tokenzero.tasks.countdown", "from tokenzero.value import Judge", False),
        ("tokenzero.selfplay.rounds", "from tokenzero.value import Judge", True),
        ("tokenzero.selfplay.rounds", "from tokenzero.cli import main", False),
        ("tokenzero.cli", "from tokenzero.selfplay import rounds", True),
        ("tokenzero.cli", "from tokenzero.config import Config", True),
        ("tokenzero.policy.engine", "import mcts", False),
        ("tokenzero.policy.engine", "from value import head", False),
        ("tokenzero.policy.engine", "import mctx, numpy, values", True),
    ],
)
def test_the_import_rule_tells_right_from_wrong(module: str, line: str, right: bool) -> None:
    assert (_wrong_imports(ast.parse(line), module) == []) == right


@pytest.mark.parametrize(
    ("code", "safe"),
    [
        ("model.eval()", True),
        ("eval('1')", False),
        ("exec('1')", False),
        ("import pickle", False),
        ("from joblib import load", False),
        ("torch.load(f)", False),
        ("torch.load(f, weights_only=False)", False),
        ("torch.load(f, weights_only=True)", True),
        ("A.from_pretrained(n, trust_remote_code=True)", False),
        ("A.from_pretrained(n, trust_remote_code=flag)", False),
        ("A.from_pretrained(n, trust_remote_code=False)", True),
        ("np.load(f, allow_pickle=True)", False),
        ("np.load(f)", True),
    ],
)
def test_the_safety_rule_tells_right_from_wrong(code: str, safe: bool) -> None:
    assert (_unsafe(ast.parse(code)) == []) == safe


# ---- packaging


def _requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return [requirement for line in lines if (requirement := Requirement(line)).name != project["name"]]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines), "one exact pin a line"
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    return pins


def test_every_direct_requirement_is_pinned_within_its_range() -> None:
    pins = _pins()
    for requirement in _requirements():
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt lacks {name}"
        assert requirement.specifier.contains(pins[name]), (
            f"{name}=={pins[name]} is outside {requirement.specifier}"
        )


def test_third_party_imports_are_declared() -> None:
    """What the package imports is the standard library, ourselves, or a requirement (extras included)."""
    modules = {"pyyaml": "yaml", "reasoning-gym": "reasoning_gym", "rouge-score": "rouge_score"}
    declared = {
        modules.get(name := canonicalize_name(r.name), name.replace("-", "_")) for r in _requirements()
    }
    known = (
        declared | set(sys.stdlib_module_names) | {FRONT, "huggingface_hub"}
    )  # the hub client is transformers' own
    strangers = {
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in _package()
        for line, name in _imports(_tree(path), _module_name(path))
        if name.split(".")[0] not in known
    }
    assert strangers == set()

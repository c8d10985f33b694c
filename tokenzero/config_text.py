"""YAML text to plain values: safe, numbers as people write them, repeated keys refused.

It knows no option by name (see ``config``) and builds nothing but mappings, lists and scalars.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from tokenzero.mcts.errors import InputError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that ``4e-3`` is a number (YAML 1.2) and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} occurs twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse(text: str, source: str) -> Any:
    """The values of one YAML document. Raises InputError naming ``source`` and the line."""
    try:
        # _Loader is a SafeLoader; bandit's rule S506 knows the stock ones only.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{source}{where}: not valid YAML ({error.problem}); mend the line") from error
    except yaml.YAMLError as error:
        raise InputError(f"{source}: not valid YAML ({str(error).splitlines()[0]}); mend the file") from error

"""Search trees for other programs: networkx graphs, GraphML and Graphviz DOT. It reads none of them back."""

from __future__ import annotations

from typing import Any

import networkx as nx

from tokenzero.selfplay.recorded_tree import RecordedTree
from tokenzero.view_document import COLUMNS


def to_graph(tree: RecordedTree) -> nx.DiGraph:
    """The tree as a directed graph, edges from parent to child, with attributes that every format can hold:
    numbers, truth values and texts; what is not known is left out.
    """
    graph = nx.DiGraph(prompt=tree.prompt, before=tree.before, method=tree.method, counted=tree.counted)
    depth, made, committed = tree.depths(), tree.created(), set(tree.committed)
    for node in range(len(tree.parent)):
        known = {
            name: array[node].item()
            for name in COLUMNS
            if name != "parent" and (array := getattr(tree, name)) is not None
        }
        if tree.shares is not None:
            known |= {
                f"proposer {name}": s.item()
                for name, s in zip(tree.proposers, tree.shares[node], strict=True)
            }
        if made[node] >= 0:
            known["created"] = int(made[node])
        graph.add_node(
            node,
            text=tree.text[node],
            action=" ".join(map(str, tree.actions[node])),
            depth=int(depth[node]),
            committed=node in committed,
            **{name: value for name, value in known.items() if value == value},
        )
        if node:
            graph.add_edge(int(tree.parent[node]), node, visits=int(tree.visits[node]))
    return graph


def to_graphml(tree: RecordedTree) -> str:
    """GraphML, which Gephi, yEd and networkx read. Characters that XML cannot hold are shown as \\uXXXX."""
    graph = to_graph(tree)
    for _, data in graph.nodes(data=True):
        data["text"] = _for_xml(data["text"])
    graph.graph.update({name: _for_xml(value) for name, value in graph.graph.items()})
    return "\n".join(nx.generate_graphml(graph)) + "\n"


def _for_xml(text: str) -> str:
    return "".join(
        x if x in "\t\n\r" or 0x20 <= ord(x) < 0xD800 or 0xE000 <= ord(x) < 0xFFFE or ord(x) > 0xFFFF
        else f"\\u{ord(x):04x}"
        for x in text
    )  # fmt: skip


def to_dot(tree: RecordedTree) -> str:
    """Graphviz DOT: texts as labels, sizes by visits, the answer in bold."""
    graph, most = to_graph(tree), max(1, int(tree.visits.max(initial=1)))
    lines = ["digraph tree {", '  rankdir="LR";', '  node [fontname="monospace"];']
    for node, data in graph.nodes(data=True):
        named = {key: value for key, value in data.items() if key not in ("text", "committed")}
        about = ", ".join(f'"{key}"={_quoted(value)}' for key, value in named.items())
        width = 0.2 + 0.8 * (data["visits"] / most) ** 0.5
        bold = ', style="bold"' if data["committed"] else ""
        label = _quoted(data["text"] if node else "root")
        lines.append(f'  {node} [label={label}, width="{width:.3f}"{bold}, {about}];')
    lines += [
        f'  {above} -> {node} ["visits"="{graph.nodes[node]["visits"]}"];' for above, node in graph.edges
    ]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(value: Any) -> str:
    text = (
        str(value)
        .encode("utf-8", "replace")
        .decode()
        .replace("\\", "\\\\")
        .replace('"', '\\"')
        .replace("\n", "\\n")
        .replace("\0", "")
    )
    return f'"{text}"'

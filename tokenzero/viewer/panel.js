// The side panel: all that is known of the selected node, and its children. It writes text only, never markup.

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function signed(value, digits = 3) {
  return value === value && value !== null && value !== undefined ? (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits) : "unknown";
}

function percent(share) {
  if (share === null || share === undefined) return "unknown";
  const whole = 100 * share;
  return `${whole >= 10 || whole === 0 ? whole.toFixed(0) : whole >= 0.1 ? whole.toFixed(1) : whole.toPrecision(1)} %`;
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

class Panel {
  constructor(box, search, layout, growth, select) {
    Object.assign(this, { box, search, layout, growth, select });
  }

  path(n) {
    const parts = [];
    for (; n > 0; n = this.search.parent[n]) parts.push(this.search.text[n]);
    return parts.reverse();
  }

  // One line about a node, for whoever listens.
  sentence(n) {
    const { search, growth, layout } = this;
    const name = n ? `\u201c${layout.label[n]}\u201d` : "root";
    const said = [`${name}, depth ${layout.depth[n]}`, plural(growth.visits[n], search.counted === "visits" ? "visit" : "state")];
    if (growth.value[n] === growth.value[n]) said.push(`value ${signed(growth.value[n], 2)}`);
    return [...said, ...this.signs(n), plural(layout.children[n].length, "child").replace("childs", "children")].join(", ");
  }

  signs(n) {
    const { search, layout } = this, signs = [];
    if (search.solved[n]) signs.push("solved");
    else if (search.terminal[n]) signs.push("ended, not solved");
    else if (search.exhausted[n]) signs.push("exhausted");
    if (layout.wins[n] && !search.solved[n]) signs.push(plural(layout.wins[n], "solution") + " below");
    if (layout.committed[n] && n) signs.push("on the answer's path");
    return signs;
  }

  show(n) {
    const { search, layout } = this;
    const parts = this.path(n), last = parts.pop();
    const so = element("pre", { className: "path", tabIndex: 0, "aria-label": "Text so far" });
    so.append(element("span", { className: "given" }, search.prompt), search.before, parts.join(""));
    if (last !== undefined) so.append(element("mark", {}, last || "\u2205"));
    const signs = element("p", { className: "signs" }, ...this.signs(n).map((text) => element("span", {}, text)));
    const heading = n ? `Node ${n}` : "Root";
    this.box.replaceChildren(
      element("h2", {}, heading, element("small", {}, ` depth ${layout.depth[n]} of ${layout.depth.reduce((a, b) => Math.max(a, b), 0)}`)),
      signs, so, this.facts(n), ...this.proposers(n), ...this.childTable(n),
    );
    this.box.dataset.node = n;
  }

  facts(n) {
    const { search, growth, layout } = this;
    const visits = growth.visits[n], all = growth.visits[0];
    const list = element("dl", { className: "facts" });
    const add = (name, value, hint) => list.append(element("div", hint ? { title: hint } : {}, element("dt", {}, name), element("dd", {}, value)));
    add(search.counted === "visits" ? "Visits" : "States", `${visits.toLocaleString("en")}${n && all ? ` (${percent(visits / all)})` : ""}`,
      search.counted === "visits" ? "simulations through this node, and their share of all" : "stored states at or below this node");
    if (search.counted === "states") add("Value", signed(growth.value[n]), "what was learnt from, from -1 to +1");
    else add("Q", signed(growth.value[n]), "mean of the values backed up through this node, from -1 to +1");
    if (search.raw_value[n] !== null) add("Raw value", signed(search.raw_value[n]), "what the evaluator said of this state by itself");
    if (n && search.prior[n] !== null) add("Prior", percent(search.prior[n]), "probability of the action before search");
    if (search.weight && search.weight[n] !== null) add("Policy after", percent(search.weight[n]), "share of the improved policy");
    if (search.reward) add("Reward", signed(search.reward[n]), "on the edge into this node");
    if (search.judge) add("Judge", ["reject (\u22121)", "neutral (0)", "accept (+1)"][search.judge[n] + 1]);
    if (search.lost && search.lost[n]) add("Failed ends", String(search.lost[n]), "ends right below that failed and were not kept as nodes");
    if (n && growth.created[n] >= 0 && search.counted === "visits") add("Made at", `${growth.unit} ${growth.created[n] + 1 - growth.first}`);
    if (layout.below[n] > 1) add("Nodes below", (layout.below[n] - 1).toLocaleString("en"));
    if (search.actions[n].length) add(search.actions[n].length > 1 ? "Tokens" : "Token", search.actions[n].slice(0, 12).join(" ") + (search.actions[n].length > 12 ? " \u2026" : ""));
    return list;
  }

  proposers(n) {
    const { search } = this;
    if (!search.shares || !n) return [];
    const rows = search.proposers.map((name, i) => [name, search.shares[n][i]]).filter(([, share]) => share > 0.0005).sort((a, b) => b[1] - a[1]);
    if (!rows.length) return [];
    const list = element("ul", { className: "proposers" });
    for (const [name, share] of rows) {
      const bar = element("i");
      bar.style.width = `${(100 * share).toFixed(1)}%`;
      list.append(element("li", {}, element("span", {}, name), element("b", {}, percent(share)), bar));
    }
    return [element("h3", {}, "Proposed by"), list];
  }

  childTable(n) {
    const { search, growth, layout } = this;
    const kids = [...layout.children[n]].sort((a, b) => growth.visits[b] - growth.visits[a] || layout.place[a] - layout.place[b]);
    if (!kids.length) return [];
    const priors = kids.some((c) => search.prior[c] !== null), weights = !priors && search.weight && kids.some((c) => search.weight[c] !== null);
    const head = element("tr", {}, ...["action", search.counted, "Q", ...(priors ? ["prior"] : weights ? ["policy"] : [])].map((text) => element("th", { scope: "col" }, text)));
    const table = element("table", {}, element("thead", {}, head));
    const body = element("tbody");
    for (const child of kids.slice(0, 60)) {
      const name = element("button", { type: "button", className: "child" }, layout.label[child]);
      name.addEventListener("click", () => this.select(child));
      const kind = search.solved[child] ? "solved" : search.terminal[child] ? "failed" : layout.committed[child] ? "kept" : "";
      const cells = [growth.visits[child].toLocaleString("en"), signed(growth.value[child], 2).replace("unknown", "\u2013")];
      if (priors) cells.push(percent(search.prior[child]));
      if (weights) cells.push(search.weight[child] === null ? "\u2013" : percent(search.weight[child]));
      body.append(element("tr", { className: kind }, element("td", {}, name), ...cells.map((text) => element("td", {}, text))));
    }
    table.append(body);
    const rest = kids.length > 60 ? [element("p", { className: "rest" }, `and ${plural(kids.length - 60, "more child").replace("childs", "children")}`)] : [];
    return [element("h3", {}, `${plural(kids.length, "child").replace("childs", "children")}`), table, ...rest];
  }
}

// Binds the parts to the page: what is selected, where the view is, what time it is; mouse, keys, buttons.

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const errors = [];
addEventListener("error", (event) => { errors.push(event.message); report(); });
addEventListener("securitypolicyviolation", (event) => { errors.push(`blocked: ${event.violatedDirective}`); report(); });

const KEYS = [
  ["\u2190 \u2192", "to the parent; to the child visited most"],
  ["\u2191 \u2193", "to the sibling above or below"],
  ["Home, End", "to the root; to the end of the answer's path"],
  ["Enter", "fold or unfold below the node"],
  ["Space", "play or stop the growth"],
  ["[ ]", "one simulation back or on"],
  ["+ \u2212 0", "zoom in, out, fit everything"],
  ["c", "colours against the root's value, or absolute"],
  ["f u", "main lines only; all nodes"],
  ["/ n N", "find text; next and previous match"],
  ["m M", "next and previous search of the game"],
  ["?", "this table"],
];

const pages = JSON.parse($("document").textContent);
const searches = pages.searches;
const canvas = $("tree");
const ctx = canvas.getContext("2d");
const app = { move: 0, selected: 0, hovered: -1, hits: new Set(), found: [], at: -1, scale: 1, wide: 1, x: 0, y: 0, folded: true, relative: false };
let layout, growth, painter, panel, search, palette, playing = 0, moving = 0, waiting = 0;

function measure(text) {
  ctx.font = `12px ${FONT}`;
  return ctx.measureText(text).width;
}

// ---- what is shown

function open(move) {
  stop();
  app.move = move;
  search = searches[move];
  layout = new Layout(search, measure);
  growth = new Growth(search);
  painter = new Painter(layout, growth, search);
  panel = new Panel($("panel"), search, layout, growth, (n) => { select(n, true); });
  $("time").min = growth.first;
  $("time").max = growth.steps;
  $("timeline").hidden = growth.steps < 2;
  $("note").textContent = search.note;
  $("note").hidden = !search.note;
  $("move").value = String(move);
  headline();
  resize();
  app.selected = 0;
  find($("query").value, false);
  fold(true);
  home();
  legend();
  select(0, false);
  tick(growth.steps);
}

function headline() {
  $("title").textContent = pages.title || search.prompt;
  const about = $("about");
  about.replaceChildren();
  const say = (name, text) => { if (text) about.append(element("span", {}, element("b", {}, name), ` ${text}`)); };
  if (pages.title) say("Problem", search.prompt);
  say("Answer", pages.answer);
  say("After", search.before);
  const facts = [["method", search.method], ["nodes", search.parent.length.toLocaleString("en")], ...Object.entries(search.settings)];
  $("facts").replaceChildren(...facts.filter(([, value]) => value !== null && value !== "").map(([name, value]) =>
    element("div", {}, element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, String(value)))));
}

// The value that is drawn pale: 0 is null, else the root's.
function middle() {
  const root = search.value[0];
  return app.relative && root !== null ? Math.min(1, Math.max(-1, root)) : null;
}

function recolour() {
  app.relative = !app.relative;
  $("relative").setAttribute("aria-pressed", String(app.relative));
  legend();
  draw();
}

function legend() {
  const box = $("legend"), bar = element("span", { className: "ramp" });
  bar.style.background = `linear-gradient(90deg, ${[-1, -0.66, -0.33, 0, 0.33, 0.66, 1].map((v) => palette.of(v)).join(",")})`;
  const against = middle() === null ? "value" : `value, pale at the root\u2019s ${signed(middle(), 2)}`;
  const sign = (name, text) => element("span", { className: "sign" }, element("i", { className: name, "aria-hidden": "true" }), text);
  box.replaceChildren(
    element("span", { className: "scale" }, "\u22121", bar, `+1 ${against}`),
    sign("solved", "solved"), sign("failed", "ended"), sign("exhausted", "exhausted"), sign("kept", "answer"),
    element("span", { className: "sign" }, `size: ${search.counted}`),
  );
}

function fold(on) {
  app.folded = on;
  if (on) {
    const rows = Math.max(14, Math.floor(canvas.clientHeight / ROW / 0.86) - 1);
    layout.fold(rows, Math.max(8, Math.floor(canvas.clientWidth / 42)));
  } else layout.unfold();
  layout.reveal(app.selected);
  arranged();
}

function arranged() {
  layout.arrange();
  const whole = layout.itemOf.size === layout.count;
  $("less").setAttribute("aria-pressed", String(app.folded && !whole));
  $("all").setAttribute("aria-pressed", String(whole));
  draw();
}

function select(n, show) {
  app.selected = n;
  if (!layout.isDrawn(n)) {
    layout.reveal(n);
    arranged();
  }
  panel.show(n);
  if (show) {
    const said = panel.sentence(n);
    $("said").textContent = said;
    bring(n);
  }
  draw();
}

// ---- the view

// Fit the canvas to its box; whether that changed it. (To set its size, even to what it is, wipes it.)
function resize() {
  const ratio = devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
  if (canvas.width === width && canvas.height === height) return false;
  canvas.width = width;
  canvas.height = height;
  return true;
}

function look(width, height, view = app) {
  return { scale: view.scale, wide: view.wide, x: view.x, y: view.y, width, height, selected: app.selected, hovered: app.hovered, hits: app.hits, palette, middle: middle() };
}

function paint() {
  waiting = 0;
  const ratio = devicePixelRatio || 1;
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  painter.paint(ctx, look(canvas.clientWidth, canvas.clientHeight));
  report();
}

function draw() {
  if (!waiting) waiting = requestAnimationFrame(paint);
}

// The view in which the whole drawing can be seen.
function fitting() {
  const { left, right, top, bottom } = layout.box, width = canvas.clientWidth, height = canvas.clientHeight;
  const below = $("legend").offsetHeight + 14, above = $("note").offsetHeight;
  const scale = Math.max(0.02, Math.min(1.5, (width - 28) / (right - left), (height - 20 - above - below) / (bottom - top)));
  // A large tree is far higher than wide; drawn wider its branches can be told apart.
  const wide = scale < 0.4 ? Math.max(scale, Math.min(0.9, (width - 28) / (right - left))) : scale;
  return { scale, wide, x: (width - (left + right) * wide) / 2, y: (height + above - below - (top + bottom) * scale) / 2 };
}

function fit() {
  glide(fitting());
}

// At first: everything if that can be read, else the root's end of it.
function home() {
  const all = fitting();
  if (all.scale < 0.6) {
    all.scale = all.wide = 0.6;
    all.x = 14 - layout.box.left * all.scale;
    const room = canvas.clientHeight - $("legend").offsetHeight - 14;
    const { top, bottom } = layout.box;
    all.y = (bottom - top) * all.scale < room ? (room - (top + bottom) * all.scale) / 2 : room / 2;
  }
  Object.assign(app, all);
  draw();
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2, slow = false) {
  const scale = Math.min(6, Math.max(0.02, app.scale * factor));
  const wide = Math.max(scale, Math.min(1, app.wide * factor));
  const view = { scale, wide, x: x - (x - app.x) * wide / app.wide, y: y - (y - app.y) * scale / app.scale };
  if (slow) glide(view);
  else {
    cancelAnimationFrame(moving);
    Object.assign(app, view);
    draw();
  }
}

function glide(view) {
  cancelAnimationFrame(moving);
  if (calm.matches) {
    Object.assign(app, view);
    draw();
    return;
  }
  const from = { scale: app.scale, wide: app.wide, x: app.x, y: app.y }, began = performance.now();
  const step = (now) => {
    const part = Math.min(1, Math.max(0, (now - began) / 220)), eased = 1 - (1 - part) ** 3;
    for (const name of ["scale", "wide", "x", "y"]) app[name] = from[name] + (view[name] - from[name]) * eased;
    draw();
    if (part < 1) moving = requestAnimationFrame(step);
  };
  moving = requestAnimationFrame(step);
}

// Move the view no further than needed for a node to be seen with its label.
function bring(n) {
  const item = layout.itemOf.get(n), scale = Math.max(app.scale, 0.6), wide = Math.max(app.wide, 0.6);
  let x = canvas.clientWidth / 2 - (canvas.clientWidth / 2 - app.x) * wide / app.wide;
  let y = canvas.clientHeight / 2 - (canvas.clientHeight / 2 - app.y) * scale / app.scale;
  const sx = x + item.x * wide, sy = y + item.y * scale, edge = Math.min(60, canvas.clientWidth / 5);
  const low = canvas.clientHeight - $("legend").offsetHeight - 30;
  if (sx < edge + 50) x += edge + 50 - sx;
  if (sx > canvas.clientWidth - edge) x += canvas.clientWidth - edge - sx;
  if (sy < 30) y += 30 - sy;
  if (sy > low) y += low - sy;
  if (x !== app.x || y !== app.y || scale !== app.scale) glide({ scale, wide, x, y });
}

// ---- time

function tick(time) {
  growth.goTo(Math.max(growth.first, Math.min(growth.steps, time)));
  $("time").value = String(growth.time);
  const [now, all] = [growth.time, growth.steps].map((t) => (t - growth.first).toLocaleString("en"));
  $("clock").textContent = `${growth.unit} ${now} / ${all}`;
  $("time").setAttribute("aria-valuetext", $("clock").textContent);
  panel.show(app.selected);
  draw();
}

function play() {
  if (playing) return stop();
  if (growth.steps < 2) return undefined;
  if (growth.final) tick(0);
  const rate = Math.max(6, growth.steps / 14) / 1000, first = growth.time, began = performance.now();
  const step = (now) => {
    const time = first + Math.floor(Math.max(0, now - began) * rate);
    if (time !== growth.time) tick(time);
    playing = growth.final ? 0 : requestAnimationFrame(step);
    if (!playing) stop();
  };
  playing = requestAnimationFrame(step);
  pressed("\u275a\u275a", "Stop");
  return undefined;
}

function stop() {
  cancelAnimationFrame(playing);
  playing = 0;
  pressed("\u25b6", "Play");
}

function pressed(sign, name) {
  $("play").textContent = sign;
  $("play").setAttribute("aria-label", name);
}

// ---- text

// Nodes whose action completes a match in the text from the problem on.
function find(query, go = true) {
  const wanted = query.toLowerCase();
  app.found = [];
  app.at = -1;
  if (wanted) {
    const tails = [search.before.toLowerCase()];
    for (let n = 0; n < layout.count; n++) {
      if (n) tails[n] = tails[search.parent[n]] + search.text[n].toLowerCase();
      const old = n ? tails[search.parent[n]].length : 0;
      if (n && tails[n].indexOf(wanted, Math.max(0, old - wanted.length + 1)) >= 0) app.found.push(n);
    }
    app.found.sort((a, b) => search.visits[b] - search.visits[a] || a - b);
  }
  app.hits = new Set(app.found);
  if (go && app.found.length) jump(1);
  else hitCount();
  draw();
}

function jump(by) {
  if (!app.found.length) return;
  app.at = (app.at + by + app.found.length) % app.found.length;
  select(app.found[app.at], true);
  hitCount();
}

function hitCount() {
  const { found, at } = app;
  $("prev").hidden = $("next").hidden = !found.length;
  $("hits").textContent = $("query").value ? (found.length ? `${at + 1}/${found.length}` : "none") : "";
}

// ---- walking

function step(key) {
  const n = app.selected, { children, place } = layout, parent = search.parent;
  if (key === "ArrowLeft") return n ? parent[n] : n;
  if (key === "ArrowRight") return children[n].length ? children[n][0] : n;
  if (key === "Home") return 0;
  if (key === "End") return search.committed.length ? search.committed[search.committed.length - 1] : n;
  const by = key === "ArrowUp" ? -1 : 1;
  if (n) {
    const beside = children[parent[n]][place[n] + by];
    if (beside !== undefined) return beside;
  }
  // Past the last sibling: the nearest node drawn in the same column.
  const here = layout.itemOf.get(n);
  let best = n, least = Infinity;
  for (const [other, item] of layout.itemOf) {
    const away = (item.y - here.y) * by;
    if (item.depth === here.depth && away > 0.5 && away < least) [best, least] = [other, away];
  }
  return best;
}

function toggle(n) {
  if (!layout.children[n].length) return;
  layout.toggle(n);
  app.folded = false;
  arranged();
}

// A pill was taken: some more children of its node.
function more(n) {
  layout.shown[n] = Math.min(layout.children[n].length, layout.shown[n] + 10);
  layout.keepWhole();
  app.folded = false;
  arranged();
}

function act(event) {
  const key = event.key;
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return false;
  if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(key)) select(step(key), true);
  else if (key === "Enter") toggle(app.selected);
  else if (key === " ") play();
  else if (key === "[" || key === "]") { stop(); tick(growth.time + (key === "]" ? 1 : -1)); }
  else if (key === "+" || key === "=") zoom(1.25, undefined, undefined, true);
  else if (key === "-" || key === "_") zoom(0.8, undefined, undefined, true);
  else if (key === "0") fit();
  else if (key === "c") recolour();
  else if (key === "f") { fold(true); home(); }
  else if (key === "u") { fold(false); home(); }
  else if (key === "/") { $("query").focus(); $("query").select(); }
  else if (key === "n" || key === "N") jump(key === "n" ? 1 : -1);
  else if (key === "m" || key === "M") { if (searches.length > 1) open((app.move + (key === "m" ? 1 : -1) + searches.length) % searches.length); }
  else if (key === "?") $("help").showModal();
  else return false;
  return true;
}

// ---- saving

function save(name, kind, data) {
  const url = URL.createObjectURL(new Blob([data], { type: kind }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function drawing() {
  const svg = new SvgContext(canvas.clientWidth, canvas.clientHeight);
  painter.paint(svg, look(svg.width, svg.height));
  draw();
  return svg.toString();
}

// ---- for tests and for the curious

function state() {
  return {
    move: app.move, selected: app.selected, time: growth.time, steps: growth.steps, scale: app.scale,
    nodes: layout.count, shown: layout.itemOf.size, drawn: painter.seen ? painter.seen.length : 0,
    labels: painter.targets ? painter.targets.filter((t) => !t.pill).length : 0,
    visits: growth.visits[0], value: growth.value[0], hits: app.found.length, playing: playing !== 0, errors,
  };
}

// Labels and stubs as they stand on the page: [left, top, right, bottom] and a point to press.
function targets() {
  const { left, top } = canvas.getBoundingClientRect();
  return painter.targets.map(({ box, item, pill }) => ({
    box, pill, node: item.node, at: [left + (box[0] + box[2]) / 2, top + (box[1] + box[3]) / 2],
  }));
}

function report() {
  if (!painter) return;
  const { nodes, shown, drawn, labels, time, steps } = state();
  Object.assign(document.body.dataset, { nodes, shown, drawn, labels, time, steps, errors: errors.join("; ") });
}

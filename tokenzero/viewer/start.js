// Listens to the page and opens the first search.

function listen() {
  const onClick = (id, does) => $(id).addEventListener("click", does);
  onClick("fit", fit);
  onClick("in", () => zoom(1.25, undefined, undefined, true));
  onClick("out", () => zoom(0.8, undefined, undefined, true));
  onClick("less", () => { fold(true); home(); });
  onClick("all", () => { fold(false); home(); });
  onClick("relative", recolour);
  onClick("next", () => jump(1));
  onClick("prev", () => jump(-1));
  onClick("play", play);
  onClick("help-open", () => $("help").showModal());
  onClick("save-json", () => save("tree.json", "application/json", JSON.stringify(pages)));
  onClick("save-svg", () => save("tree.svg", "image/svg+xml", drawing()));
  onClick("save-png", () => canvas.toBlob((blob) => save("tree.png", "image/png", blob)));
  $("time").addEventListener("input", () => { stop(); tick(Number($("time").value)); });
  $("query").addEventListener("input", () => find($("query").value));
  $("query").addEventListener("keydown", (event) => {
    if (event.key === "Enter") jump(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") canvas.focus();
  });
  $("move").addEventListener("change", () => open(Number($("move").value)));
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea");
    const pressing = event.target.matches("button, a, summary") && (event.key === " " || event.key === "Enter");
    if (!typing && !pressing && act(event)) event.preventDefault();
  });
  pointers();
  new ResizeObserver(() => {
    if (!resize()) return;
    if (app.folded) {
      fold(true);
      home();
    } else draw();
  }).observe($("stage"));
  dark.addEventListener("change", () => { palette = new Palette(dark.matches); legend(); draw(); });
}

// One pointer drags, two pinch; a short one selects.
function pointers() {
  const down = new Map();
  let travelled = 0;
  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  canvas.addEventListener("pointerdown", (event) => {
    cancelAnimationFrame(moving);
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, spot(event));
    travelled = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = spot(event), before = down.get(event.pointerId);
    if (!before) return hover(now);
    const other = [...down].find(([id]) => id !== event.pointerId);
    if (other) {
      const apart = (p) => Math.hypot(p.x - other[1].x, p.y - other[1].y);
      zoom(apart(now) / Math.max(1, apart(before)), (now.x + other[1].x) / 2, (now.y + other[1].y) / 2);
    }
    app.x += (now.x - before.x) / (other ? 2 : 1);
    app.y += (now.y - before.y) / (other ? 2 : 1);
    travelled += Math.hypot(now.x - before.x, now.y - before.y);
    down.set(event.pointerId, now);
    canvas.classList.toggle("dragging", travelled > 4);
    draw();
    return undefined;
  });
  const up = (event) => {
    const at = down.get(event.pointerId);
    down.delete(event.pointerId);
    canvas.classList.remove("dragging");
    if (!at || travelled > 4 || event.type === "pointercancel") return;
    const target = painter.find(at.x, at.y);
    if (target && target.pill) more(target.item.node);
    else if (target) select(target.item.node, false);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => { if (app.hovered >= 0) { app.hovered = -1; draw(); } });
  canvas.addEventListener("dblclick", (event) => {
    const at = spot(event), target = painter.find(at.x, at.y);
    if (target && !target.pill) toggle(target.item.node);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = spot(event);
    if (event.shiftKey) { app.x -= event.deltaY || event.deltaX; draw(); }
    else zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), at.x, at.y);
  }, { passive: false });
}

function hover(at) {
  const target = painter.find(at.x, at.y);
  const node = target ? target.item.node : -1;
  canvas.style.cursor = target ? "pointer" : "";
  canvas.title = target ? (target.pill ? "show more" : panel.sentence(node)) : "";
  if (node !== app.hovered) {
    app.hovered = node;
    draw();
  }
}

function begin() {
  palette = new Palette(dark.matches);
  for (const [keys, does] of KEYS) $("keys").append(element("tr", {}, element("th", { scope: "row" }, keys), element("td", {}, does)));
  $("move-box").hidden = searches.length < 2;
  searches.forEach((one, i) => {
    const before = one.before ? `after \u201c${one.before.slice(-24)}\u201d` : "at the prompt";
    $("move").append(element("option", { value: String(i) }, `${i + 1} of ${searches.length}, ${before}`));
  });
  const wanted = new URLSearchParams(location.hash.slice(1));
  open(Math.min(searches.length - 1, Math.max(0, Number(wanted.get("move") || 0))));
  listen();
  if (wanted.has("time")) tick(Number(wanted.get("time")));
  if (wanted.has("relative")) recolour();
  if (wanted.has("all")) { fold(false); home(); }
  if (wanted.has("fit")) Object.assign(app, fitting());
  if (wanted.has("find")) { $("query").value = wanted.get("find"); find(wanted.get("find")); }
  if (wanted.has("node")) select(Math.min(layout.count - 1, Math.max(0, Number(wanted.get("node")))), true);
  paint();
  window.tokenzero = { state, targets, select: (n) => select(n, true), tick, open, find, fold, key: (key) => act({ key }), svg: drawing, paint };
}

begin();

// Where nodes stand: children in order, which of them are shown, and a tidy drawing of those (Reingold and Tilford,
// 1981, with subtrees of uneven heights): parents centred on their children, no two subtrees crossing.

const ROW = 21;        // least distance of two rows
const FAN = 28;        // room in which edges spread
const LARGEST = 15;    // radius of the node with most visits
const SMALLEST = 3;
const LETTERS = 26;    // of an action's text that are drawn

class Layout {
  constructor(search, measure) {
    const count = search.parent.length;
    this.search = search;
    this.count = count;
    this.most = search.visits.reduce((a, b) => Math.max(a, b), 1);
    this.depth = new Int32Array(count);
    this.below = new Int32Array(count).fill(1);   // nodes at or below
    this.wins = new Int32Array(count);            // solutions at or below
    this.children = Array.from({ length: count }, () => []);
    this.committed = new Uint8Array(count);
    for (const n of search.committed) this.committed[n] = 1;
    if (search.committed.length) this.committed[0] = 1;
    for (let n = 1; n < count; n++) {
      this.depth[n] = this.depth[search.parent[n]] + 1;
      this.children[search.parent[n]].push(n);
    }
    for (let n = count - 1; n >= 0; n--) {
      if (search.solved[n]) this.wins[n] += 1;
      if (n) {
        this.below[search.parent[n]] += this.below[n];
        this.wins[search.parent[n]] += this.wins[n];
      }
    }
    this.label = labels(search, this.children);
    this.labelWidth = this.label.map((text) => (text ? measure(text) : 0));
    const rank = (n) => this.committed[n] * 2 + (this.wins[n] > 0 ? 1 : 0);
    for (const list of this.children) {
      list.sort((a, b) => rank(b) - rank(a) || search.visits[b] - search.visits[a] || a - b);
    }
    this.place = new Int32Array(count);           // index among the siblings
    for (const list of this.children) list.forEach((n, i) => { this.place[n] = i; });
    this.shown = new Int32Array(count);           // how many children of a node are drawn
    this.radius = search.visits.map((v) => Math.max(SMALLEST, LARGEST * Math.sqrt(v / this.most)));
  }

  // Show everything.
  unfold() {
    for (let n = 0; n < this.count; n++) this.shown[n] = this.children[n].length;
  }

  // Show what was visited most in about `rows` rows; the answer's path always.
  fold(rows, columns) {
    this.shown.fill(0);
    let used = 1;
    const waiting = this.children[0].length ? [0] : [];
    const worth = (n) => {
      const child = this.children[n][this.shown[n]];
      return this.committed[child] ? Infinity : this.search.visits[child] * (this.wins[child] ? 3 : 1);
    };
    while (waiting.length) {
      let best = 0;
      for (let i = 1; i < waiting.length; i++) if (worth(waiting[i]) > worth(waiting[best])) best = i;
      const n = waiting[best];
      const child = this.children[n][this.shown[n]];
      const left = this.children[n].length - this.shown[n] - 1;
      const cost = this.shown[n] === 0 ? (left ? 1 : 0) : left ? 1 : 0;
      const deep = this.depth[child] > columns;
      if (!this.committed[child] && (used + cost > rows || deep)) {
        waiting.splice(best, 1);
        continue;
      }
      used += cost;
      this.shown[n] += 1;
      if (!left) waiting.splice(best, 1);
      if (this.children[child].length) waiting.push(child);
    }
    this.keepWhole();
  }

  // A stub that would stand for a single leaf is no shorter than the leaf.
  keepWhole() {
    for (let n = 0; n < this.count; n++) {
      const list = this.children[n];
      if (this.shown[n] && this.shown[n] === list.length - 1 && this.below[list[list.length - 1]] === 1) this.shown[n] += 1;
    }
  }

  reveal(n) {
    for (; n > 0; n = this.search.parent[n]) {
      const above = this.search.parent[n];
      this.shown[above] = Math.max(this.shown[above], this.place[n] + 1);
    }
    this.keepWhole();
  }

  toggle(n) {
    this.shown[n] = this.shown[n] ? 0 : this.children[n].length;
    if (this.shown[n] > 12) this.shown[n] = 8;
    this.keepWhole();
  }

  // Nodes below `n` that are not drawn, and solutions among them.
  hidden(n) {
    const rest = { nodes: 0, wins: 0 };
    for (const child of this.children[n].slice(this.shown[n])) {
      rest.nodes += this.below[child];
      rest.wins += this.wins[child];
    }
    return rest;
  }

  isDrawn(n) {
    for (; n > 0; n = this.search.parent[n]) if (this.place[n] >= this.shown[this.search.parent[n]]) return false;
    return true;
  }

  // Sets items {node, stub, x, y, left, above}, parents first: nodes, and a stub where children are left out.
  arrange() {
    const items = [], stack = [{ node: 0, stub: null, above: -1 }];
    while (stack.length) {
      const item = stack.pop(), index = items.length;
      item.kids = [];
      item.depth = item.stub ? this.depth[item.node] + 1 : this.depth[item.node];
      item.half = item.stub ? ROW / 2 - 2 : Math.max(ROW / 2, this.radius[item.node] + 3);
      items.push(item);
      if (item.above >= 0) items[item.above].kids.push(index);
      if (item.stub) continue;
      const list = this.children[item.node], shown = this.shown[item.node], rest = this.hidden(item.node);
      item.folded = shown || !rest.nodes ? null : rest;
      if (shown && rest.nodes) stack.push({ node: item.node, stub: rest, above: index });
      for (let i = shown - 1; i >= 0; i--) stack.push({ node: list[i], stub: null, above: index });
    }
    this.columns(items);
    for (let i = items.length - 1; i >= 0; i--) settle(items, items[i]);
    items[0].y = 0;
    let top = Infinity, bottom = -Infinity, right = 0;
    for (const item of items) {
      if (item.above >= 0) item.y = items[item.above].y + item.offset;
      top = Math.min(top, item.y - item.half);
      bottom = Math.max(bottom, item.y + item.half);
      right = Math.max(right, item.x + (item.stub ? pillWidth(item.stub) : this.radius[item.node] + 6 + (item.folded ? pillWidth(item.folded) : 0)));
      item.up = item.down = null;
    }
    this.items = items;
    this.box = { left: -LARGEST - 4, top, right, bottom };
    this.itemOf = new Map();
    items.forEach((item) => { if (!item.stub) this.itemOf.set(item.node, item); });
  }

  // x of every item: columns as wide as their widest label.
  columns(items) {
    const label = [], ball = [];
    for (const { node, stub, depth } of items) {
      label[depth] = Math.max(label[depth] || 0, stub ? 20 : this.labelWidth[node]);
      ball[depth] = Math.max(ball[depth] || 0, stub ? SMALLEST : this.radius[node]);
    }
    const left = [0], at = [0];
    for (let d = 1; d < label.length; d++) {
      left[d] = at[d - 1] + ball[d - 1] + FAN;
      at[d] = left[d] + label[d] + 6 + ball[d];
    }
    for (const item of items) {
      item.x = item.stub ? left[item.depth] : at[item.depth];
      item.left = left[item.depth];
    }
  }
}

// What is written at nodes: the action's text, cut where it is long, spaces around it shown only where siblings would
// look alike without.
function labels(search, children) {
  const label = search.text.map((text, n) => (n ? shortened(text.trim() ? text.replace(/^ | $/g, "") : text, search, n) : ""));
  for (const list of children) {
    const seen = new Map();
    for (const n of list) seen.set(label[n], (seen.get(label[n]) || 0) + 1);
    for (const n of list) if (seen.get(label[n]) > 1) label[n] = shortened(search.text[n], search, n);
  }
  return label;
}

function pillText({ nodes, wins }) {
  return `+${nodes}${wins ? ` \u25c6${wins}` : ""}`;
}

function pillWidth(rest) {
  return pillText(rest).length * 6.5 + 12;
}

function shortened(text, search, n) {
  if (!text) return search.terminal[n] ? "end" : "(no text)";
  const seen = text.replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5").replace(/^ +| +$/g, (s) => "\u2423".repeat(s.length));
  return seen.length > LETTERS ? seen.slice(0, LETTERS - 1) + "\u2026" : seen;
}

// Place the subtrees of an item's children side by side. Contours `up` and `down` hold the extent per depth, the
// deepest first, so that a parent is added at the end.
function settle(items, item) {
  const kids = item.kids.map((i) => items[i]);
  if (!kids.length) {
    item.up = [-item.half];
    item.down = [item.half];
    if (item.folded) {  // its "+12" stands in the next column
      item.up.unshift(-item.half);
      item.down.unshift(item.half);
    }
    return;
  }
  let { up, down } = kids[0];
  kids[0].offset = 0;
  for (const kid of kids.slice(1)) {
    const common = Math.min(down.length, kid.up.length);
    let shift = -Infinity;
    for (let d = 1; d <= common; d++) shift = Math.max(shift, down[down.length - d] - kid.up[kid.up.length - d]);
    kid.offset = shift;
    const moved = (list) => list.map((y) => y + shift);
    const deeper = kid.up.length - down.length;
    const below = moved(kid.down);
    if (deeper > 0) up = moved(kid.up).slice(0, deeper).concat(up);
    down = deeper >= 0 ? below : down.slice(0, -deeper).concat(below);
  }
  const middle = kids[kids.length - 1].offset / 2;
  for (const kid of kids) kid.offset -= middle;
  item.up = up.map((y) => y - middle);
  item.down = down.map((y) => y - middle);
  item.up.push(-item.half);
  item.down.push(item.half);
}

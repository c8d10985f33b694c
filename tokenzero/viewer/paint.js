// Draws a layout at one moment of its growth. The same calls go to a canvas and to `SvgContext`, so that what is saved
// as SVG is what is seen.

const FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace";

// Diverging and safe for all colour vision: orange is bad, blue is good, pale (dark: deep) grey is even.
const SCALES = {
  light: ["#a63c06", "#e58a3c", "#f7dcbb", "#f4f2ee", "#c5dcf0", "#5e9fd3", "#12559c"],
  dark: ["#ffa05c", "#d9732c", "#8a5636", "#565b63", "#3f6d99", "#4593da", "#8cc8ff"],
};

class Palette {
  constructor(dark) {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["ink", "faint", "ground", "line", "mark", "hit", "muted"]) {
      this[name] = style.getPropertyValue(`--${name}`).trim();
    }
    this.stops = SCALES[dark ? "dark" : "light"].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
    this.unknown = dark ? "#3a3f47" : "#e3e3e3";
  }

  // Colour of a value in [-1, 1], NaN grey. Against a `middle` other than null, small differences from it count.
  of(value, middle = null) {
    if (!(value === value)) return this.unknown;
    let turned = Math.min(1, Math.max(-1, value));
    if (middle !== null) {
      const away = turned - middle, room = away < 0 ? 1 + middle : 1 - middle;
      turned = room > 0 ? Math.sign(away) * Math.sqrt(Math.abs(away) / room) : 0;
    }
    const at = (turned + 1) / 2 * (this.stops.length - 1);
    const low = Math.min(this.stops.length - 2, Math.floor(at)), part = at - low;
    const mix = this.stops[low].map((c, i) => Math.round(c + part * (this.stops[low + 1][i] - c)));
    return `rgb(${mix.join(",")})`;
  }
}

class Painter {
  constructor(layout, growth, search) {
    this.layout = layout;
    this.growth = growth;
    this.search = search;
  }

  // look: {scale, wide (the scale from left to right), x, y, width, height, selected, hits, hovered, palette}
  paint(ctx, look) {
    const { palette } = look;
    ctx.globalAlpha = 1;
    ctx.fillStyle = palette.ground;
    ctx.fillRect(0, 0, look.width, look.height);
    this.look = look;
    this.size = Math.max(look.scale, 0.35);  // of nodes and edges: from far away they stay visible
    this.ctx = ctx;
    this.seen = this.layout.items.filter((item) => this.inside(item));
    this.trail = new Set();
    if (!this.growth.final) for (let n = this.growth.tip; n >= 0; n = this.search.parent[n]) this.trail.add(n);
    this.targets = [];  // boxes that answer to a pointer
    this.edges();
    this.nodes();
    this.labels();
  }

  sx(x) { return this.look.x + x * this.look.wide; }
  sy(y) { return this.look.y + y * this.look.scale; }

  // An item, or the edge that leads to it, can be seen.
  inside(item) {
    const { width, height } = this.look, from = item.above >= 0 ? this.layout.items[item.above] : item;
    const low = Math.min(item.y, from.y), high = Math.max(item.y, from.y);
    return this.sy(high) > -30 && this.sy(low) < height + 30 && this.sx(item.x) > -60 && this.sx(from.x) < width + 60;
  }

  radius(n) {
    const visits = this.growth.visits[n];
    return Math.max(SMALLEST, LARGEST * Math.sqrt(visits / this.layout.most));
  }

  lives(n) {
    return this.growth.final || this.growth.visits[n] > 0;
  }

  // The item under a point of the screen: {item, pill} or null.
  find(x, y) {
    const nearest = { item: null, pill: false, distance: Infinity };
    for (const item of this.seen) {
      if (item.stub) continue;
      const away = Math.hypot(this.sx(item.x) - x, this.sy(item.y) - y);
      if (away <= Math.max(8, this.radius(item.node) * this.size + 2) && away < nearest.distance) {
        Object.assign(nearest, { item, distance: away });
      }
    }
    if (nearest.item) return nearest;
    return this.targets.find(({ box }) => x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3]) || null;
  }

  curve(item) {
    const from = this.layout.items[item.above], ctx = this.ctx;
    const r = Math.max(2, this.radius(from.node) - 1);
    const x0 = this.sx(from.x) + r * this.size, x1 = this.sx(item.left), y0 = this.sy(from.y), y1 = this.sy(item.y);
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.bezierCurveTo((x0 + x1) / 2, y0, (x0 + x1) / 2, y1, x1, y1);
    ctx.lineTo(this.sx(item.stub ? item.left : item.x), y1);
  }

  edges() {
    const { ctx, look: { palette, scale } } = this;
    const most = this.layout.most, committed = this.layout.committed;
    ctx.lineCap = "round";
    ctx.lineJoin = "round";
    for (const item of this.seen) {
      if (item.above < 0) continue;
      const alive = !item.stub && this.lives(item.node);
      if (this.trail.has(item.node) && !item.stub) {
        this.curve(item);
        ctx.globalAlpha = 0.9;
        ctx.strokeStyle = palette.hit;
        ctx.lineWidth = Math.max(4, 9 * scale);
        ctx.stroke();
      }
      this.curve(item);
      ctx.globalAlpha = alive ? 1 : 0.35;
      ctx.strokeStyle = palette.line;
      ctx.lineWidth = Math.max(0.6, (0.9 + 7 * Math.sqrt(item.stub ? 0 : this.growth.visits[item.node] / most)) * Math.min(1, this.size));
      ctx.setLineDash(item.stub ? [2, 3] : []);
      ctx.stroke();
    }
    ctx.setLineDash([]);
    ctx.globalAlpha = 1;
    for (const item of this.seen) {
      if (item.above < 0 || item.stub || !committed[item.node] || !this.lives(item.node)) continue;
      this.curve(item);
      ctx.strokeStyle = palette.ink;
      ctx.lineWidth = Math.max(1.6, 2 * scale);
      ctx.stroke();
    }
  }

  nodes() {
    const { ctx, search, look: { palette, selected, hovered } } = this;
    for (const item of this.seen) {
      if (item.stub) continue;
      const n = item.node, kept = this.layout.committed[n], x = this.sx(item.x), y = this.sy(item.y);
      const r = Math.max(kept ? 4.5 * Math.min(1, this.size) : 1.5, this.radius(n) * this.size);
      ctx.globalAlpha = this.lives(n) ? 1 : 0.22;
      ctx.setLineDash([]);
      if (n === selected) {
        outline(ctx, search, n, x, y, r + 4.5);
        ctx.strokeStyle = palette.mark;
        ctx.lineWidth = 3;
        ctx.stroke();
      } else if (n === hovered) {
        outline(ctx, search, n, x, y, r + 3.5);
        ctx.strokeStyle = palette.faint;
        ctx.lineWidth = 1.5;
        ctx.stroke();
      }
      outline(ctx, search, n, x, y, search.solved[n] ? Math.max(r, 6 * Math.min(1, this.size)) : search.terminal[n] ? Math.max(r, 3.5 * Math.min(1, this.size)) : r);
      ctx.fillStyle = this.lives(n) ? palette.of(this.growth.value[n], this.look.middle) : palette.ground;
      ctx.fill();
      ctx.strokeStyle = kept ? palette.ink : palette.faint;
      ctx.lineWidth = kept ? 2.2 : 1;
      if (search.exhausted[n] && !search.terminal[n]) ctx.setLineDash([2, 2]);
      ctx.stroke();
    }
    ctx.setLineDash([]);
    ctx.globalAlpha = 1;
  }

  labels() {
    const { ctx, look: { palette, scale, selected, hits } } = this;
    const size = Math.max(10, Math.min(15, 12 * scale));
    const roomy = 12 * scale >= 10;
    ctx.font = `${size}px ${FONT}`;
    ctx.textBaseline = "middle";
    const placed = [];
    const free = (box) => placed.every((b) => box[2] < b[0] || box[0] > b[2] || box[3] < b[1] || box[1] > b[3]);
    const rank = (item) => (item.stub ? -1 : item.node === selected ? 1e12 : (hits.has(item.node) ? 1e9 : 0) + this.growth.visits[item.node]);
    const order = roomy ? this.seen : [...this.seen].sort((a, b) => rank(b) - rank(a));
    for (const item of order) {
      const pill = item.stub || item.folded;
      if (pill) this.pill(item, item.stub || item.folded, size, roomy ? null : placed, free);
      if (item.stub || item.node === 0) continue;
      const text = this.layout.label[item.node];
      const right = this.sx(item.x) - this.radius(item.node) * this.size - 5, y = this.sy(item.y);
      const width = this.layout.labelWidth[item.node] * size / 12;
      const box = [right - width - 2, y - size * 0.62, right + 2, y + size * 0.62];
      if (!roomy && !free(box)) continue;
      placed.push(box);
      this.targets.push({ box, item, pill: false });
      ctx.globalAlpha = this.lives(item.node) ? 1 : 0.3;
      const hit = hits.has(item.node);
      ctx.fillStyle = hit ? palette.hit : palette.ground;
      ctx.globalAlpha *= hit ? 1 : 0.82;
      if (hit || !this.trail.has(item.node)) ctx.fillRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
      ctx.globalAlpha = this.lives(item.node) ? 1 : 0.3;
      ctx.fillStyle = palette.ink;
      ctx.textAlign = "right";
      ctx.fillText(text, right, y);
    }
    ctx.globalAlpha = 1;
  }

  // "+12": nodes that are not drawn.
  pill(item, rest, size, placed, free) {
    const { ctx, look: { palette } } = this;
    const text = pillText(rest), small = Math.max(9, size - 2), y = this.sy(item.y);
    const x = item.stub ? this.sx(item.left) : this.sx(item.x) + this.radius(item.node) * this.size + 5;
    const width = text.length * small * 0.62 + 10, box = [x, y - small * 0.75, x + width, y + small * 0.75];
    if (placed && !free(box)) return;
    this.targets.push({ box, item, pill: true });
    if (placed) placed.push(box);
    ctx.beginPath();
    ctx.roundRect(box[0], box[1], width, box[3] - box[1], small * 0.75);
    ctx.fillStyle = palette.ground;
    ctx.fill();
    ctx.strokeStyle = palette.line;
    ctx.lineWidth = 1;
    ctx.stroke();
    ctx.font = `${small}px ${FONT}`;
    ctx.fillStyle = palette.muted;
    ctx.textAlign = "center";
    ctx.fillText(text, x + width / 2, y + 0.5);
    ctx.font = `${size}px ${FONT}`;
  }
}

// The sign of a node: circle; diamond where it solves; square where it ended without.
function outline(ctx, search, n, x, y, r) {
  ctx.beginPath();
  if (search.solved[n]) {
    const s = r * 1.25;
    ctx.moveTo(x, y - s);
    ctx.lineTo(x + s, y);
    ctx.lineTo(x, y + s);
    ctx.lineTo(x - s, y);
    ctx.closePath();
  } else if (search.terminal[n]) {
    const s = r * 0.9;
    ctx.moveTo(x - s, y - s);
    ctx.lineTo(x + s, y - s);
    ctx.lineTo(x + s, y + s);
    ctx.lineTo(x - s, y + s);
    ctx.closePath();
  } else {
    ctx.arc(x, y, r, 0, 2 * Math.PI);
  }
}

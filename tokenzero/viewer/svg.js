// A drawing context that writes SVG: those calls of a canvas that the painter makes.

class SvgContext {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.parts = [];
    this.dash = [];
    this.globalAlpha = 1;
    this.path = "";
  }

  beginPath() { this.path = ""; }
  moveTo(x, y) { this.path += `M${short(x)} ${short(y)}`; }
  lineTo(x, y) { this.path += `L${short(x)} ${short(y)}`; }
  closePath() { this.path += "Z"; }
  setLineDash(dash) { this.dash = dash; }

  bezierCurveTo(...numbers) { this.path += `C${numbers.map(short).join(" ")}`; }

  arc(x, y, r) {
    const s = short(r);
    this.path += `M${short(x - r)} ${short(y)}a${s} ${s} 0 1 0 ${short(2 * r)} 0a${s} ${s} 0 1 0 ${short(-2 * r)} 0Z`;
  }

  roundRect(x, y, w, h, r) {
    const s = short(r);
    this.path += `M${short(x + r)} ${short(y)}h${short(w - 2 * r)}a${s} ${s} 0 0 1 ${s} ${s}v${short(h - 2 * r)}`
      + `a${s} ${s} 0 0 1 -${s} ${s}h${short(2 * r - w)}a${s} ${s} 0 0 1 -${s} -${s}v${short(2 * r - h)}a${s} ${s} 0 0 1 ${s} -${s}Z`;
  }

  fill() { this.add(`<path d="${this.path}" fill="${this.fillStyle}"`); }

  stroke() {
    const dash = this.dash.length ? ` stroke-dasharray="${this.dash.join(" ")}"` : "";
    this.add(`<path d="${this.path}" fill="none" stroke="${this.strokeStyle}" stroke-width="${short(this.lineWidth)}" stroke-linecap="round"${dash}`);
  }

  fillRect(x, y, w, h) {
    this.add(`<rect x="${short(x)}" y="${short(y)}" width="${short(w)}" height="${short(h)}" fill="${this.fillStyle}"`);
  }

  fillText(text, x, y) {
    const anchor = { right: "end", center: "middle" }[this.textAlign] || "start";
    const size = parseFloat(this.font);
    this.add(`<text x="${short(x)}" y="${short(y)}" dy="0.35em" font-size="${short(size)}" font-family="${escaped(FONT)}" text-anchor="${anchor}" fill="${this.fillStyle}" xml:space="preserve"`, escaped(text));
  }

  add(head, inner) {
    const faint = this.globalAlpha < 1 ? ` opacity="${short(this.globalAlpha)}"` : "";
    const tag = head.slice(1, head.indexOf(" "));
    this.parts.push(inner === undefined ? `${head}${faint}/>` : `${head}${faint}>${inner}</${tag}>`);
  }

  toString() {
    const size = `width="${this.width}" height="${this.height}" viewBox="0 0 ${this.width} ${this.height}"`;
    return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>\n${this.parts.join("\n")}\n</svg>\n`;
  }
}

function short(number) {
  return String(Math.round(number * 100) / 100);
}

function escaped(text) {
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  // Control characters cannot stand in XML.
  return text.replace(/[&<>"]/g, (c) => names[c]).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
}

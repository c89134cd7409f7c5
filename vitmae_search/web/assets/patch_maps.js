// One or two pictures in patches. Pointing at a patch of one colors the patches of the other (or of the same, where it
// is alone) by a row of the matrix; what is shown before that are the maps of the data. A tap keeps the patch.

const AMOUNTS = [[0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56]];
const SIGNED = [[127, 59, 8], [200, 117, 21], [249, 190, 113], [246, 246, 247], [184, 178, 214], [130, 113, 173], [45, 0, 75]];

const between = (table, level) => {
  const at = Math.min(Math.max(level, 0), 1) * (table.length - 1);
  const low = Math.min(Math.floor(at), table.length - 2);
  return table[low].map((value, i) => value + (table[low + 1][i] - value) * (at - low));
};
const gradient = (table) => `linear-gradient(90deg, ${table.map((c) => `rgb(${c.join(" ")})`).join(", ")})`;

class Side {
  constructor(data, number, maps) {
    Object.assign(this, { data, number, maps });
    const { rows, columns } = data;
    this.figure = element("figure", "");
    this.frame = element("div", "frame");
    const image = element("img", "");
    image.src = data.src;
    image.alt = data.alt;
    this.canvas = element("canvas", "");
    [this.canvas.width, this.canvas.height] = [columns, rows];
    const board = element("div", "board");
    board.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    this.cells = Array.from({ length: rows * columns }, (_, i) => {
      const cell = element("button", "cell");
      cell.type = "button";
      cell.tabIndex = i ? -1 : 0;
      cell.setAttribute("aria-label", `Square ${Math.floor(i / columns) + 1}, ${(i % columns) + 1}`);
      cell.onfocus = () => maps.point(this, i);
      cell.onclick = () => maps.keep(this, i);
      return cell;
    });
    board.append(...this.cells);
    const under = (event) => {
      const found = board.getRootNode().elementFromPoint(event.clientX, event.clientY);
      return this.cells.indexOf(found);
    };
    board.onpointermove = (event) => under(event) >= 0 && maps.point(this, under(event));
    board.onpointerleave = () => maps.rest();
    board.onkeydown = (event) => this.key(event);
    this.frame.append(image, this.canvas, board);
    const caption = element("figcaption", "");
    this.text = element("span", "", data.text);
    caption.append(element("b", "", data.title), this.text);
    this.figure.append(this.frame, caption);
  }

  key(event) {
    const { columns } = this.data;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const from = this.cells.indexOf(event.target);
    const sideways = Math.abs(step) === 1;
    const to = from + step;
    if (!this.cells[to] || (sideways && Math.floor(to / columns) !== Math.floor(from / columns))) return;
    event.target.tabIndex = -1;
    this.cells[to].tabIndex = 0;
    this.cells[to].focus({ preventScroll: true });
  }

  // Color each patch by its value; null shows the picture alone.
  color(values, table, low, high) {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.frame.classList.toggle("mapped", Boolean(values));
    if (!values) return;
    const pixels = context.createImageData(this.canvas.width, this.canvas.height);
    const span = high - low || 1;
    values.forEach((value, i) => pixels.data.set([...between(table, (value - low) / span), 255], 4 * i));
    context.putImageData(pixels, 0, 0);
  }

  mark(number) {
    this.cells.forEach((cell, i) => cell.classList.toggle("pointed", i === number));
  }
}

class PatchMaps {
  constructor(root, data, send) {
    Object.assign(this, { root, data, send });
    const bytes = Uint8Array.from(atob(data.matrix), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const value = (_, i) => data.low + (view.getUint16(2 * i, true) / 65535) * (data.high - data.low);
    this.matrix = Float32Array.from({ length: bytes.length / 2 }, value);
    this.sides = data.sides.map((side, number) => new Side(side, number, this));
    const maps = element("div", this.sides.length > 1 ? "maps" : "maps alone");
    maps.append(...this.sides.map((side) => side.figure));
    const both = element("div", "both");
    both.append(maps);
    this.lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.lines.classList.add("lines");
    this.lines.setAttribute("aria-hidden", "true");
    both.append(this.lines);
    this.scale = element("div", "scale");
    this.said = element("div", "scale");
    this.said.setAttribute("role", "status");
    root.replaceChildren(both, this.scale, this.said);
    new ResizeObserver(() => this.drawLines()).observe(maps);
    this.rest();
  }

  // A row of the matrix where the first picture is pointed at, a column where the second is.
  row(side, number) {
    const width = this.sides[this.sides.length - 1].cells.length;
    if (side.number === 0) return [...this.matrix.subarray(number * width, (number + 1) * width)];
    return this.sides[0].cells.map((_, i) => this.matrix[i * width + number]);
  }

  point(side, number) {
    const place = (at, of) => `row ${Math.floor(at / of.data.columns) + 1}, column ${(at % of.data.columns) + 1}`;
    if (this.data.signed) {
      for (const each of this.sides) each.mark(each === side ? number : -1);
      const added = side.data.map[number];
      this.said.textContent = `Square in ${place(number, side)}: ${added < 0 ? "−" : "+"}${Math.abs(added).toFixed(3)}`;
      return;
    }
    const other = this.sides.length > 1 ? this.sides[1 - side.number] : side;
    const values = this.row(side, number);
    const [low, high] = this.data.rowScale ? [0, Math.max(...values)] : [this.data.low, this.data.high];
    for (const each of this.sides) each.mark(each === side ? number : -1);
    if (other !== side) side.color(null);
    other.color(values, AMOUNTS, low, high);
    this.legend(AMOUNTS, low, high, this.data.unit);
    const best = values.indexOf(Math.max(...values));
    this.said.textContent = `Square in ${place(number, side)}: most in ${place(best, other)}, ${values[best].toFixed(3)}`;
  }

  keep(side, number) {
    this.kept = this.kept && this.kept.side === side && this.kept.number === number ? null : { side, number };
    this.send(this.kept ? `${side.number}-${number}` : "");
    this.rest();
  }

  rest() {
    const { kept, data } = this;
    if (kept) return this.point(kept.side, kept.number);
    this.said.textContent = "";
    for (const side of this.sides) {
      side.mark(-1);
      side.color(side.data.map ?? null, data.signed ? SIGNED : AMOUNTS, data.mapLow, data.mapHigh);
    }
    if (this.sides.some((side) => side.data.map)) {
      this.legend(data.signed ? SIGNED : AMOUNTS, data.mapLow, data.mapHigh, data.mapUnit);
    } else this.scale.replaceChildren();
  }

  legend(table, low, high, unit) {
    const bar = element("i", "");
    bar.style.background = gradient(table);
    this.scale.replaceChildren(element("span", "", `${unit}: ${low.toFixed(3)}`), bar, element("span", "", high.toFixed(3)));
  }

  drawLines() {
    const { pairs } = this.data;
    this.lines.replaceChildren();
    if (!pairs || this.sides.length < 2) return;
    const base = this.lines.getBoundingClientRect();
    const middle = (side, number) => {
      const box = side.cells[number].getBoundingClientRect();
      return [box.left + box.width / 2 - base.left, box.top + box.height / 2 - base.top];
    };
    for (const [own, other] of pairs) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const [[x1, y1], [x2, y2]] = [middle(this.sides[0], own), middle(this.sides[1], other)];
      for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) line.setAttribute(name, value);
      this.lines.append(line);
    }
  }
}

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const root = parentElement.querySelector(".patches");
  const drawn = JSON.stringify({ ...data, kept: null });
  if (root.dataset.drawn === drawn) return;
  root.dataset.drawn = drawn;
  const maps = new PatchMaps(root, data, (kept) => setStateValue("kept", kept));
  const [side, number] = (data.kept || "").split("-").map(Number);
  if (maps.sides[side]?.cells[number]) {
    maps.kept = { side: maps.sides[side], number };
    maps.rest();
  }
}

// The squares of a picture, to be hidden and shown by mouse, touch and keyboard. What was done can be undone.

const TOOLS = {
  brush: ["Brush", "Drag to hide squares; begin on a hidden one to show them", "M7 14c-1.66 0-3 1.34-3 3 0 1.31-1.16 2-2 2 .92 1.22 2.49 2 4 2 2.21 0 4-1.79 4-4 0-1.66-1.34-3-3-3zm13.71-9.37-1.34-1.34a1 1 0 0 0-1.41 0L9 12.25 11.75 15l8.96-8.96a1 1 0 0 0 0-1.41z"],
  box: ["Box", "Drag a box to hide it; begin on a hidden square to show it", "M18 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2V6a2 2 0 0 0-2-2zm0 14H6V6h12z"],
  eraser: ["Eraser", "Drag to show squares", "M15.14 3c-.51 0-1.02.2-1.41.59L2.59 14.73a2 2 0 0 0 0 2.83L5.03 20h7.66l8.72-8.73a2 2 0 0 0 0-2.83l-4.85-4.85A2 2 0 0 0 15.14 3zM5.86 18 4 16.14l4.5-4.5 4.86 4.86-1.5 1.5z"],
  only: ["Only a box", "Drag a box: all but it is hidden", "M3 5v4h2V5h4V3H5a2 2 0 0 0-2 2zm2 10H3v4a2 2 0 0 0 2 2h4v-2H5zm14 4h-4v2h4a2 2 0 0 0 2-2v-4h-2zm0-16h-4v2h4v4h2V5a2 2 0 0 0-2-2zM8 8h8v8H8z"],
};

// A mask as addresses have it, `masks.mask_text` of the server: rows, columns, and a bit for each square.
function maskText({ rows, columns }, mask) {
  let digits = "";
  for (let i = 0; i < mask.length; i += 4) {
    digits += ((mask[i] << 3) | (mask[i + 1] << 2) | (mask[i + 2] << 1) | mask[i + 3]).toString(16);
  }
  return `${rows}x${columns}-${digits}`;
}

// The other way; a mask of another model is fitted, a square is hidden where its middle was. Null for no mask.
function readMask({ rows, columns }, text) {
  const found = /^(\d{1,5})x(\d{1,5})-([0-9a-f]+)$/.exec(text ?? "");
  if (!found) return null;
  const [height, width, digits] = [Number(found[1]), Number(found[2]), found[3]];
  if (!height || !width || digits.length !== Math.ceil((height * width) / 4)) return null;
  const bit = (i) => (parseInt(digits[i >> 2], 16) >> (3 - (i & 3))) & 1;
  return Uint8Array.from({ length: rows * columns }, (_, i) => {
    const row = Math.floor(((Math.floor(i / columns) + 0.5) * height) / rows);
    const column = Math.floor((((i % columns) + 0.5) * width) / columns);
    return bit(row * width + column);
  });
}

class MaskEditor {
  // `changed(kind)` is called after each change of the mask: "start" before the first one of a stroke, "move", "end".
  constructor(grid, changed) {
    Object.assign(this, { grid, changed, mask: new Uint8Array(grid.rows * grid.columns), tool: "brush" });
    const { columns } = grid;
    this.board = element("div", "board");
    this.board.setAttribute("role", "group");
    this.board.setAttribute("aria-label", "Squares of the picture. Arrow keys move, space hides or shows.");
    this.board.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    this.cells = Array.from(this.mask, (_, i) => {
      const cell = element("button", "cell");
      cell.type = "button";
      cell.tabIndex = i ? -1 : 0;
      cell.dataset.index = i;
      cell.setAttribute("aria-label", `Hide square ${Math.floor(i / columns) + 1}, ${(i % columns) + 1}`);
      cell.setAttribute("aria-pressed", "false");
      return cell;
    });
    this.frame = element("i", "box");
    this.frame.hidden = true;
    this.board.append(...this.cells, this.frame);
    this.board.onpointerdown = (event) => this.down(event);
    this.board.onpointermove = (event) => this.move(event);
    this.board.onpointerup = (event) => this.up(event);
    this.board.onpointercancel = () => this.cancel();
    this.board.oncontextmenu = (event) => event.preventDefault();
    this.board.onkeydown = (event) => this.key(event);
    this.board.onfocusout = (event) => {
      if (this.pointer === undefined && !this.board.contains(event.relatedTarget)) this.end();
    };
  }

  show(mask) {
    this.mask = Uint8Array.from(mask);
    this.cells.forEach((cell, i) => cell.setAttribute("aria-pressed", String(Boolean(mask[i]))));
  }

  set(i, hidden) {
    if (this.mask[i] === hidden) return;
    this.mask[i] = hidden;
    this.cells[i].setAttribute("aria-pressed", String(Boolean(hidden)));
  }

  // The square under a place of the window: the nearest one, where that is outside.
  at(event) {
    const { rows, columns } = this.grid;
    const { left, top, width, height } = this.board.getBoundingClientRect();
    const within = (value, count) => Math.min(count - 1, Math.max(0, Math.floor(value * count)));
    return [within((event.clientY - top) / height, rows), within((event.clientX - left) / width, columns)];
  }

  begin(place, erase) {
    this.before = Uint8Array.from(this.mask);
    this.from = this.last = place;
    const first = this.mask[place[0] * this.grid.columns + place[1]];
    this.value = erase || this.tool === "eraser" ? 0 : 1 - first;
    this.changed("start");
    this.paint(place);
  }

  down(event) {
    if (this.pointer !== undefined || event.button > 2 || event.button === 1) return;
    event.preventDefault();
    this.board.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    const place = this.at(event);
    this.focus(place);
    this.begin(place, event.button === 2 || event.shiftKey);
  }

  move(event) {
    if (event.pointerId !== this.pointer) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const each of between.length ? between : [event]) this.paint(this.at(each));
  }

  up(event) {
    if (event.pointerId !== this.pointer) return;
    this.paint(this.at(event));
    this.finish();
  }

  // The system took the touch for something else: nothing was meant.
  cancel() {
    if (this.before) this.show(this.before);
    this.finish();
  }

  finish() {
    this.pointer = undefined;
    this.before = null;
    this.frame.hidden = true;
    this.changed("end");
  }

  // A stroke, or a box that was begun by keyboard, is ended as it is.
  end() {
    if (this.before) this.finish();
  }

  paint(place) {
    if (!this.before) return;
    const before = maskText(this.grid, this.mask);
    if (this.tool === "box" || this.tool === "only") this.paintBox(place);
    else this.paintLine(this.last, place);
    this.last = place;
    if (maskText(this.grid, this.mask) !== before) this.changed("move");
  }

  // Every square between two places, as a fast hand passes over some.
  paintLine([row, column], [toRow, toColumn]) {
    const steps = Math.max(Math.abs(toRow - row), Math.abs(toColumn - column), 1);
    for (let step = 0; step <= steps; step += 1) {
      const at = (a, b) => Math.round(a + ((b - a) * step) / steps);
      this.set(at(row, toRow) * this.grid.columns + at(column, toColumn), this.value);
    }
  }

  paintBox([row, column]) {
    const { rows, columns } = this.grid;
    const [top, bottom] = [Math.min(row, this.from[0]), Math.max(row, this.from[0])];
    const [left, right] = [Math.min(column, this.from[1]), Math.max(column, this.from[1])];
    this.mask.forEach((_, i) => {
      const [r, c] = [Math.floor(i / columns), i % columns];
      const inside = r >= top && r <= bottom && c >= left && c <= right;
      this.set(i, this.tool === "only" ? Number(!inside) : inside ? this.value : this.before[i]);
    });
    const percent = (value, of) => `${(100 * value) / of}%`;
    Object.assign(this.frame.style, {
      top: percent(top, rows),
      left: percent(left, columns),
      height: percent(bottom + 1 - top, rows),
      width: percent(right + 1 - left, columns),
    });
    this.frame.hidden = false;
  }

  focus([row, column]) {
    const cell = this.cells[row * this.grid.columns + column];
    this.cells.forEach((each) => (each.tabIndex = each === cell ? 0 : -1));
    cell.focus({ preventScroll: true });
  }

  // Arrows move. Space hides or shows a square; with a box it begins one, and ends it. With shift, arrows
  // make each square like the one before.
  key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const { rows, columns } = this.grid;
    const index = Number(event.target.dataset.index);
    const here = [Math.floor(index / columns), index % columns];
    const boxed = this.tool === "box" || this.tool === "only";
    if (step) {
      const place = [here[0] + step[0], here[1] + step[1]];
      if (place[0] >= 0 && place[0] < rows && place[1] >= 0 && place[1] < columns) {
        if (event.shiftKey && !this.before) {
          const value = this.mask[index];
          this.changed("start");
          this.set(place[0] * columns + place[1], value);
          this.changed("end");
        }
        this.focus(place);
        this.paint(place);
      }
    } else if (event.key === " " || event.key === "Enter") {
      if (this.before) this.finish();
      else {
        this.begin(here, false);
        if (!boxed) this.finish();
      }
    } else if (event.key === "Escape" && this.before) this.cancel();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

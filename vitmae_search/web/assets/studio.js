// The reconstruction studio. Squares flip here at once; the guess is asked of the server (`reconstruction/guess`)
// while one still paints, always for the newest mask, with one request under way. The state is in the page's
// address, written here; Streamlit is told of it a little later, so that its next run knows it.

const ICONS = {
  invert: "M12 22a10 10 0 1 0 0-20 10 10 0 0 0 0 20zm1-17.93c3.94.49 7 3.85 7 7.93s-3.05 7.44-7 7.93z",
  clear: "M12 4.5C7 4.5 2.73 7.61 1 12c1.73 4.39 6 7.5 11 7.5s9.27-3.11 11-7.5c-1.73-4.39-6-7.5-11-7.5zM12 17a5 5 0 1 1 0-10 5 5 0 0 1 0 10zm0-8a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  undo: "M12.5 8c-2.65 0-5.05.99-6.9 2.6L2 7v9h9l-3.62-3.62c1.39-1.16 3.16-1.88 5.12-1.88 3.54 0 6.55 2.31 7.6 5.5l2.37-.78C21.08 11.03 17.15 8 12.5 8z",
  redo: "M18.4 10.6C16.55 8.99 14.15 8 11.5 8c-4.65 0-8.58 3.03-9.96 7.22L3.9 16c1.05-3.19 4.05-5.5 7.6-5.5 1.95 0 3.73.72 5.12 1.88L13 16h9V7z",
  shuffle: "M10.59 9.17 5.41 4 4 5.41l5.17 5.17zM14.5 4l2.04 2.04L4 18.59 5.41 20 17.96 7.46 20 9.5V4zm.33 9.41-1.41 1.41 3.13 3.13L14.5 20H20v-5.5l-2.04 2.04z",
  download: "M5 20h14v-2H5zM19 9h-4V3H9v6H5l7 7z",
};
const PATTERNS = { random: "Random", block: "Block", grid: "Grid" };
const DEFAULTS = { pattern: "random", ratio: 75, seed: 0 };
const STATE = ["mask", "pattern", "ratio", "seed", "soften"];
const TOLD_MS = 400; // after the last change, Streamlit is told
const RETRY_MS = 1_000;
const STEPS_KEPT = 200;

function button(text, symbol, title, act) {
  const made = element("button", "tool");
  made.type = "button";
  made.title = title;
  if (symbol) made.append(icon(symbol));
  made.append(element("span", "", text));
  made.setAttribute("aria-label", text);
  made.onclick = act;
  return made;
}

// Streamlit's own words for its theme say nothing of where a picture ends, so a panel is a figure of its own.
function figure(kind, title, node) {
  const made = element("figure", kind);
  const frame = element("div", "frame");
  frame.append(node);
  const caption = element("figcaption", "");
  const head = element("b", "", title);
  const text = element("span", "", "");
  caption.append(head, text);
  made.append(frame, caption);
  return { made, frame, caption, head, text };
}

function canvas(width, height) {
  const made = element("canvas", "");
  [made.width, made.height] = [width, height];
  made.setAttribute("role", "img");
  return made;
}

function pixelsOf(bytes, width, height) {
  const image = new ImageData(width, height);
  for (let i = 0, j = 0; j < image.data.length; i += 3, j += 4) {
    image.data[j] = bytes[i];
    image.data[j + 1] = bytes[i + 1];
    image.data[j + 2] = bytes[i + 2];
    image.data[j + 3] = 255;
  }
  return image;
}

// What one model makes of the picture: its completed picture, its guess of all squares, its errors.
class Guess {
  constructor(model, colors, alone) {
    Object.assign(this, { model, colors });
    const { width, height, rows, columns, aspect } = model;
    const by = alone ? "" : `, by ${model.name}`;
    this.small = canvas(width, height);
    const scale = Math.max(1, Math.round(720 / Math.min(width, height)));
    this.completed = canvas(width * scale, Math.round((width * scale) / aspect));
    this.completed.style.aspectRatio = aspect;
    this.large = figure("completed", alone ? "The photo, completed" : `Completed by ${model.name}`, this.completed);
    this.guessed = figure("raw", `All squares guessed${by}`, canvas(width, height));
    this.errors = figure("raw", `Error of each square${by}`, canvas(columns, rows));
    for (const each of [this.guessed, this.errors]) each.frame.style.aspectRatio = `${width} / ${height}`;
    this.scale = element("div", "legend");
    this.errors.caption.append(this.scale);
    this.panels = [this.guessed, this.errors];
    this.guessed.text.textContent = "What it paints everywhere, also where it saw the photo.";
    this.fact = element("div", "fact");
  }

  draw(bytes) {
    const { width, height } = this.model;
    const found = headerOf(bytes);
    const size = width * height * 3;
    const at = 4 + headerLength(bytes);
    this.small.getContext("2d").putImageData(pixelsOf(new Uint8Array(bytes, at, size), width, height), 0, 0);
    const large = this.completed.getContext("2d");
    large.imageSmoothingQuality = "high";
    large.drawImage(this.small, 0, 0, this.completed.width, this.completed.height);
    const guessed = this.guessed.frame.firstChild;
    guessed.getContext("2d").putImageData(pixelsOf(new Uint8Array(bytes, at + size, size), width, height), 0, 0);
    const mask = readMask(this.model, found.mask);
    this.drawErrors(found, mask);
    this.say(found, mask);
    return { ...found, bits: mask };
  }

  drawErrors(found, mask) {
    const { rows, columns } = this.model;
    const top = this.colors.length - 1;
    const image = new ImageData(columns, rows);
    found.errors.forEach((error, i) => {
      const level = found.largest > 0 ? Math.min(1, error / found.largest) * top : 0;
      const low = Math.min(Math.floor(level), top - 1);
      const color = mask[i]
        ? this.colors[low].map((value, c) => value + (this.colors[low + 1][c] - value) * (level - low))
        : [128, 128, 128];
      image.data.set([...color, 255], 4 * i);
    });
    this.errors.frame.firstChild.getContext("2d").putImageData(image, 0, 0);
  }

  say(found, mask) {
    const { columns } = this.model;
    const hidden = mask.reduce((sum, bit) => sum + bit, 0);
    const guessed = `${hidden} of ${mask.length} squares are the model's guesses; the others are the photo.`;
    const loss = found.loss === null ? "nothing was hidden" : found.loss.toFixed(4);
    const off = found.levels === null ? "" : ` Off by ${found.levels.toFixed(1)} of 255 levels.`;
    this.large.text.textContent = guessed + off;
    this.completed.setAttribute("aria-label", `The photo as the model completed it: ${guessed}${off}`);
    this.guessed.frame.firstChild.setAttribute("aria-label", "The model's guess of every square, those that it saw included");
    const worst = found.errors.reduce((best, error, i) => (mask[i] && (best < 0 || error > found.errors[best]) ? i : best), -1);
    const where = worst < 0 ? "nothing was hidden" : `worst in row ${Math.floor(worst / columns) + 1}, column ${(worst % columns) + 1}, ${found.largest.toPrecision(3)}`;
    this.errors.frame.firstChild.setAttribute("aria-label", `The error of each guessed square, brighter where the guess is worse: ${where}`);
    this.errors.text.textContent = "Bright: guessed worst. Grey: was shown.";
    const bar = element("i", "");
    bar.style.background = `linear-gradient(90deg, ${this.colors.map((c) => `rgb(${c.join(" ")})`).join(", ")})`;
    this.scale.replaceChildren(element("span", "", "0"), bar, element("span", "", found.largest.toPrecision(3)));
    this.fact.replaceChildren(
      element("b", "", this.model.name),
      element("span", "", `Loss ${loss}. ${this.model.statistics}`),
    );
  }
}

class Studio {
  constructor(root, data, tell) {
    Object.assign(this, { root, data, tell, undone: [], done: [], links: [], waiting: [] });
    const [first] = data.models;
    const alone = data.models.length === 1;
    this.editor = new MaskEditor(first, (kind) => this.painted(kind));
    this.guesses = data.live ? data.models.map((model) => new Guess(model, data.colors, alone)) : [];
    const image = element("img", "");
    image.src = first.original;
    image.style.aspectRatio = first.aspect;
    this.seen = figure("painted", "What the model sees", image);
    this.seenImage = image;
    this.seen.frame.append(this.editor.board);
    const large = element("div", `large of-${1 + this.guesses.length}`);
    large.append(this.seen.made, ...this.guesses.map((guess) => guess.large.made));
    this.status = element("div", "status");
    this.status.setAttribute("role", "status");
    const small = element("div", "small");
    const facts = element("div", "facts");
    if (data.live) {
      const original = element("img", "");
      original.src = first.original;
      original.alt = "The original photo at the model's size";
      const shown = figure("raw", "Original", original);
      shown.text.textContent = `At the model's size, ${first.width} × ${first.height} pixels.`;
      small.append(shown.made, ...this.guesses.flatMap((guess) => guess.panels.map((panel) => panel.made)));
      facts.append(...this.guesses.map((guess) => guess.fact));
      this.saveLinks(shown);
      facts.append(...this.guesses.map((guess) => this.downloads(guess.model, alone)));
    }
    root.replaceChildren(this.controls(), this.tools(), large, this.status, small, facts);
    root.onkeydown = (event) => this.key(event);
    this.readAddress();
  }

  // A link by which a file of a model's guess is kept; `showState` gives it the address of what is shown.
  link(model, file, text, title) {
    const link = element("a", "save");
    link.download = "";
    link.title = title;
    link.append(icon(ICONS.download), element("span", "", text));
    if (!text) link.setAttribute("aria-label", title);
    this.links.push({ link, file, model });
    return link;
  }

  saveLinks(original) {
    const [{ model }] = this.guesses;
    const panels = [[this.seen, "seen", model], [original, "original", model]];
    for (const guess of this.guesses) {
      panels.push([guess.large, "completed", guess.model], [guess.guessed, "guessed", guess.model], [guess.errors, "errors", guess.model]);
    }
    for (const [panel, name, its] of panels) {
      panel.head.append(this.link(its, `${name}.png`, "", `Download: ${panel.head.textContent}`));
    }
  }

  downloads(model, alone) {
    const row = element("div", "row");
    row.append(
      element("span", "", alone ? "Download" : `Download, by ${model.name}`),
      this.link(model, "sheet.png", "All panels in one", "All panels in one picture, PNG"),
      this.link(model, "sweep.gif", "Animation", "With ever more squares hidden, GIF"),
      this.link(model, "numbers.json", "Numbers, JSON", "Mask, error of each square, and loss"),
      this.link(model, "numbers.csv", "Numbers, CSV", "A row for each square: whether it was hidden, and its error"),
    );
    return row;
  }

  // The pattern, its share and seed.
  controls() {
    const row = element("div", "row");
    this.patterns = Object.entries(PATTERNS).map(([name, text]) => {
      const made = button(text, null, `Hide squares: ${text.toLowerCase()}`, () => this.choose({ pattern: name }));
      made.dataset.pattern = name;
      return made;
    });
    const group = element("div", "group");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Pattern");
    this.byHand = element("span", "tool", "Painted");
    this.byHand.title = "What you hid yourself; Undo, or a pattern, goes back";
    group.append(...this.patterns, this.byHand);
    this.ratio = element("input", "");
    Object.assign(this.ratio, { type: "range", min: 0, max: 95, step: 5 });
    this.ratio.setAttribute("aria-label", "Mask ratio");
    this.ratio.oninput = () => {
      this.editor.end();
      if (!this.sliding) this.remember();
      this.sliding = true;
      this.choose({ ratio: Number(this.ratio.value) }, false);
    };
    this.ratio.onchange = () => (this.sliding = false);
    this.percent = element("output", "");
    const share = element("label", "share");
    share.append(element("span", "", "Hidden"), this.ratio, this.percent);
    this.seed = element("input", "");
    Object.assign(this.seed, { type: "number", min: 0, max: 2 ** 31 - 1, step: 1 });
    this.seed.onchange = () => this.choose({ seed: Math.min(2 ** 31 - 1, Math.max(0, Math.floor(Number(this.seed.value)) || 0)) });
    const seed = element("label", "share");
    seed.append(element("span", "", "Seed"), this.seed);
    const next = () => this.choose({ seed: (this.state.seed + 1) % (2 ** 31 - 1) });
    this.chosen = [share, seed];
    row.append(group, share, seed, button("Shuffle", ICONS.shuffle, "Hide other squares", next));
    return row;
  }

  // What one paints with.
  tools() {
    const row = element("div", "row tools");
    const group = element("div", "group");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Tool");
    this.kinds = Object.entries(TOOLS).map(([name, [text, title, symbol]]) => {
      const made = button(text, symbol, title, () => this.take(name));
      made.dataset.tool = name;
      return made;
    });
    group.append(...this.kinds);
    this.undoButton = button("Undo", ICONS.undo, "Undo (Ctrl+Z)", () => this.step(this.done, this.undone));
    this.redoButton = button("Redo", ICONS.redo, "Redo (Ctrl+Y)", () => this.step(this.undone, this.done));
    row.append(
      group,
      button("Invert", ICONS.invert, "Hide what is shown, and show what is hidden", () => this.edit((bit) => 1 - bit)),
      button("Show all", ICONS.clear, "Hide nothing", () => this.edit(() => 0)),
      this.undoButton,
      this.redoButton,
    );
    if (this.data.live) {
      const soften = element("label", "soften");
      this.soft = element("input", "");
      this.soft.type = "checkbox";
      this.soft.onchange = () => {
        this.state.soften = this.soft.checked;
        this.changed();
      };
      soften.title = "In the completed photo, smooth the steps between neighbouring guesses. All else stays as it is.";
      soften.append(this.soft, element("span", "", "Soften seams"));
      row.append(soften);
    }
    this.take("brush");
    return row;
  }

  take(name) {
    this.editor.end();
    this.editor.tool = name;
    for (const each of this.kinds) each.setAttribute("aria-pressed", String(each.dataset.tool === name));
  }

  key(event) {
    if (!(event.ctrlKey || event.metaKey) || event.target.type === "number") return;
    const letter = event.key.toLowerCase();
    if (letter === "z" && !event.shiftKey) this.step(this.done, this.undone);
    else if (letter === "y" || letter === "z") this.step(this.undone, this.done);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // The state, as a step that can be undone.
  snapshot() {
    return { ...this.state, mask: Uint8Array.from(this.editor.mask) };
  }

  remember() {
    this.done.push(this.snapshot());
    if (this.done.length > STEPS_KEPT) this.done.shift();
    this.undone.length = 0;
  }

  step(from, to) {
    this.editor.end();
    if (!from.length) return;
    this.waiting.length = 0;
    to.push(this.snapshot());
    const { mask, ...state } = from.pop();
    this.state = { ...state, soften: this.state.soften };
    this.editor.show(mask);
    this.changed();
  }

  painted(kind) {
    if (kind === "start") {
      this.waiting.length = 0;
      return this.remember();
    }
    this.state.painted = true;
    const last = this.done[this.done.length - 1];
    if (kind === "end" && last && maskText(this.data.models[0], last.mask) === maskText(this.data.models[0], this.editor.mask)) {
      this.done.pop(); // nothing was changed by it
      this.state.painted = last.painted;
    }
    this.changed(kind === "move");
  }

  // All squares at once. Where the server has yet to say which ones a pattern hides, that is waited for.
  edit(change) {
    this.editor.end();
    if (this.stale) {
      this.waiting.push(change);
      return;
    }
    this.remember();
    this.state.painted = true;
    this.editor.show(this.editor.mask.map(change));
    this.changed();
  }

  choose(change, remember = true) {
    this.editor.end();
    this.waiting.length = 0;
    if (remember) this.remember();
    Object.assign(this.state, change, { painted: false });
    this.changed();
  }

  changed(moving = false) {
    this.stale = !this.state.painted;
    this.showState();
    if (!moving) this.writeAddress();
    this.ask();
  }

  showState() {
    const { painted, pattern, ratio, seed, soften } = this.state;
    for (const each of this.patterns) each.setAttribute("aria-pressed", String(!painted && each.dataset.pattern === pattern));
    this.ratio.value = ratio;
    this.percent.textContent = `${ratio} %`;
    if (this.seed.getRootNode().activeElement !== this.seed || Number(this.seed.value) !== seed) this.seed.value = seed;
    if (this.soft) this.soft.checked = soften;
    this.undoButton.disabled = !this.done.length;
    this.redoButton.disabled = !this.undone.length;
    this.byHand.hidden = !painted;
    for (const each of this.chosen) each.classList.toggle("unused", painted);
    const { mask } = this.editor;
    const hidden = mask.reduce((sum, bit) => sum + bit, 0);
    const seen = `${mask.length - hidden} of ${mask.length} squares`;
    this.seen.text.textContent = `${seen}. Drag over them to hide or show; arrow keys and space do, too.`;
    for (const { link, file, model } of this.links) {
      link.href = `reconstruction/${file}?${model.parameters}&${this.parametersFor(model, maskText(this.data.models[0], mask))}`;
    }
    this.seenImage.alt = `What the model sees: ${seen} of the photo, the others grey`;
  }

  // The state as parameters of an address; defaults are left out.
  parameters(parameters = new URLSearchParams()) {
    for (const name of STATE) parameters.delete(name);
    const { painted, soften } = this.state;
    if (painted) parameters.set("mask", maskText(this.data.models[0], this.editor.mask));
    for (const [name, value] of Object.entries(DEFAULTS)) {
      if (this.state[name] !== value) parameters.set(name, this.state[name]);
    }
    if (!soften) parameters.set("soften", "0");
    return parameters;
  }

  // For a request of a model's guess: the second one gets the mask that the first one had, whatever made it.
  parametersFor(model, mask) {
    const parameters = this.parameters();
    if (model !== this.data.models[0]) parameters.set("mask", mask);
    return parameters.toString();
  }

  readAddress() {
    const found = new URLSearchParams(location.search);
    const number = (name, most) => {
      const text = found.get(name) ?? "";
      return /^\d{1,10}$/.test(text) ? Math.min(Number(text), most) : DEFAULTS[name];
    };
    const mask = readMask(this.data.models[0], found.get("mask"));
    const pattern = Object.hasOwn(PATTERNS, found.get("pattern")) ? found.get("pattern") : DEFAULTS.pattern;
    this.state = {
      painted: Boolean(mask),
      pattern,
      ratio: number("ratio", 95),
      seed: number("seed", 2 ** 31 - 1),
      soften: found.get("soften") !== "0",
    };
    this.editor.show(mask ?? this.data.mask);
    this.stale = !mask;
    this.waiting.length = 0;
    this.showState();
    this.ask();
  }

  inAddress() {
    const sorted = (parameters) => {
      parameters.sort();
      return parameters.toString();
    };
    const found = new URLSearchParams(location.search);
    return sorted(this.parameters(new URLSearchParams(found))) === sorted(found);
  }

  writeAddress() {
    if (this.inAddress()) return;
    const text = this.parameters(new URLSearchParams(location.search)).toString();
    history.replaceState(history.state, "", location.pathname + (text && `?${text}`));
    clearTimeout(this.timer);
    this.untold = true;
    this.timer = setTimeout(() => this.tellNow(), TOLD_MS);
  }

  // Streamlit's next run knows the state, whatever starts it. Its answer to what it was told before may have come
  // meanwhile and changed the address back.
  tellNow() {
    if (!this.untold || !this.root.isConnected) return;
    clearTimeout(this.timer);
    if (this.editor.before) {
      this.timer = setTimeout(() => this.tellNow(), TOLD_MS);
      return;
    }
    this.writeAddress();
    clearTimeout(this.timer);
    this.untold = false;
    this.tell(location.search.slice(1));
  }

  // After Back, or a link within the page, the address says what is to be shown.
  follow() {
    if (this.editor.before || this.sliding) return;
    if (this.navigated && !this.inAddress()) this.readAddress();
    else this.writeAddress();
    this.navigated = false;
  }

  ask() {
    if (!this.guesses.length && this.state.painted) return;
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    this.again = false;
    this.fetchGuesses().finally(() => {
      this.asking = false;
      if (this.again && this.root.isConnected) this.ask();
    });
  }

  // What is shown is what was asked for.
  editWaiting() {
    this.stale = false;
    for (const change of this.waiting.splice(0)) this.edit(change);
  }

  async fetchGuesses() {
    const painted = this.state.painted;
    const { models } = this.data;
    const get = async (parameters) => {
      try {
        const answer = await fetch(`reconstruction/guess?${parameters}`);
        const body = await (answer.ok ? answer.arrayBuffer() : answer.text());
        if (answer.ok) return body;
        throw new Refused(body);
      } catch (error) {
        throw error instanceof TypeError ? new Away() : error;
      }
    };
    try {
      const answers = [await get(`${models[0].parameters}&${this.parameters()}`)];
      if (models.length > 1 && this.guesses.length) {
        const { mask } = headerOf(answers[0]);
        answers.push(await get(`${models[1].parameters}&${this.parametersFor(models[1], mask)}`));
      }
      if (!this.root.isConnected) return;
      const found = answers.map((bytes, i) => (this.guesses.length ? this.guesses[i].draw(bytes) : headerOf(bytes)));
      this.status.textContent = "";
      if (!painted && !this.state.painted) {
        this.editor.show(readMask(models[0], found[0].mask));
        this.showState();
      }
      this.root.dataset.guess = found[0].mask;
      if (!this.again) this.editWaiting();
    } catch (error) {
      const away = error instanceof Away;
      this.status.textContent = sentenceOf(error);
      if (!away && !this.again) this.editWaiting();
      if (away) setTimeout(() => this.root.isConnected && this.ask(), RETRY_MS);
    }
  }
}

// The server was not reached, or was lost while it answered.
class Away extends Error {}
// The server says in words why there is no guess.
class Refused extends Error {}

function sentenceOf(error) {
  if (error instanceof Away) return "The app does not answer. Trying again…";
  if (error instanceof Refused) return error.message;
  console.error(error);
  return `This guess could not be drawn (${error.message}). Reload the page.`;
}

function headerLength(bytes) {
  return new DataView(bytes).getUint32(0, true);
}

function headerOf(bytes) {
  return JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, headerLength(bytes))));
}

function sameGrid(one, other) {
  return one.rows === other.rows && one.columns === other.columns;
}

let studio = null;
document.addEventListener("pointerdown", (event) => studio && !event.composedPath().includes(studio.root) && studio.tellNow(), true);
document.addEventListener("focusin", (event) => studio && !event.composedPath().includes(studio.root) && studio.tellNow(), true);

addEventListener("popstate", () => studio && (studio.navigated = true));

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const root = parentElement.querySelector(".studio");
  const drawn = JSON.stringify({ ...data, mask: null });
  if (root.dataset.drawn === drawn && studio?.root === root) return studio.follow();
  root.dataset.drawn = drawn;
  const kept = studio?.root === root && studio.data.picture === data.picture ? studio : null;
  studio = new Studio(root, data, (state) => setStateValue("state", state));
  if (kept && sameGrid(kept.data.models[0], data.models[0])) {
    Object.assign(studio, { done: kept.done, undone: kept.undone });
  }
  studio.showState();
}

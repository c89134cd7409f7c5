// A map of the land with the photos' places, on which a box is drawn. Distances on it are tenths of a degree, from the
// west and the north; it goes on beyond the date line. Numbers can be typed instead.
const WORLD = { x: 0, y: 0, width: 3600, height: 1800 };
const SVG = "http://www.w3.org/2000/svg";
let landOutline = null; // read once for all maps of the page

function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

const wrapped = (degrees) => (((degrees + 180) % 360) + 360) % 360 - 180;
const breadth = ({ west, east }) => 10 * (west <= east ? east - west : east + 360 - west);
const rounded = (degrees) => Number(degrees.toFixed(4));

// The smallest box that has all places [latitude, longitude, ...]: what lies outside it is the widest gap between two.
function boxAround(places) {
  const latitudes = places.map(([latitude]) => latitude);
  const longitudes = places.map(([, longitude]) => longitude).sort((a, b) => a - b);
  const gaps = longitudes.map((longitude, i) => (i ? longitude - longitudes[i - 1] : longitude + 360 - longitudes.at(-1)));
  const first = gaps.indexOf(Math.max(...gaps));
  const [west, east] = [longitudes[first], longitudes.at(first - 1)];
  return { south: Math.min(...latitudes), north: Math.max(...latitudes), west, east };
}

class PlaceMap {
  constructor(data, onBox, onPoint) {
    this.data = data;
    this.onBox = onBox;
    this.onPoint = onPoint;
    this.view = { ...WORLD };
    this.seeking = true; // the view begins where the photos are
    this.pointers = new Map();
    this.root = element("div", "map");
    this.svg = shape("svg", { tabindex: "0", role: "application" });
    this.svg.setAttribute("aria-label", "Map. Drag to draw a box, or type its sides below. Arrow keys move the map, plus and minus zoom.");
    this.land = shape("g", {});
    this.dots = shape("g", {});
    this.box = shape("g", {});
    this.svg.append(this.land, this.dots, this.box);
    const tools = element("div", "tools");
    tools.append(
      this.tool("+", "Zoom in", () => this.zoom(0.5)),
      this.tool("−", "Zoom out", () => this.zoom(2)),
      this.tool("◂", "Move west", () => this.move(-0.25, 0)),
      this.tool("▸", "Move east", () => this.move(0.25, 0)),
    );
    this.root.append(this.svg, tools);
    this.listen();
    this.drawLand();
    this.show();
  }

  tool(text, label, act) {
    const button = element("button", "", text);
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.onclick = act;
    return button;
  }

  async drawLand() {
    landOutline ??= fetch("land").then((answer) => (answer.ok ? answer.json() : { path: "" })).catch(() => ({ path: "" }));
    const { path } = await landOutline;
    const once = shape("g", { id: "world" });
    const lines = [];
    for (let x = 0; x < 3600; x += 300) lines.push(`M${x},0V1800`);
    for (let y = 300; y < 1800; y += 300) lines.push(`M0,${y}H3600`);
    once.append(shape("path", { class: "land", d: path }), shape("path", { class: "grid", d: lines.join("") }));
    for (const turn of [-3600, 0, 3600]) {
      const copy = once.cloneNode(true);
      copy.removeAttribute("id");
      copy.setAttribute("transform", `translate(${turn})`);
      this.land.append(copy);
    }
  }

  // Photos ---------------------------------------------------------------------------------------------------

  async show() {
    const { x, y, width, height } = this.view;
    this.svg.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.drawDots(), 150);
  }

  async drawDots() {
    const { x, y, width, height } = this.view;
    const asked = new URLSearchParams(this.data.query);
    asked.delete("place");
    if (width < WORLD.width) asked.set("view", boxText(this.degrees(x, y, x + width, y + height)));
    const answer = await fetch(`places?${asked}`).catch(() => null);
    if (!answer?.ok) return;
    const { places } = await answer.json();
    if (this.seeking && places.length) {
      this.seeking = false;
      const box = boxAround(places);
      if (breadth(box) < 0.4 * WORLD.width) return this.lookAt(box);
    }
    const unit = width / 640;
    const most = Math.max(...places.map(([, , count]) => count), 1);
    const drawn = [];
    for (const [latitude, longitude, count] of places)
      for (const turn of [-3600, 0, 3600]) {
        const at = (longitude + 180) * 10 + turn;
        if (at < x || at > x + width) continue;
        const dot = shape("circle", { class: "dot", cx: at, cy: (90 - latitude) * 10, r: unit * (3 + 5 * Math.sqrt(count / most)) });
        const title = shape("title", {});
        title.textContent = count === 1 ? "1 photo" : `${number(count)} photos`;
        dot.append(title);
        drawn.push(dot);
      }
    this.dots.replaceChildren(...drawn);
  }

  // The box --------------------------------------------------------------------------------------------------

  degrees(x1, y1, x2, y2) {
    const [west, east] = [Math.min(x1, x2), Math.max(x1, x2)];
    const sides = east - west >= 3600 ? [-180, 180] : [wrapped(west / 10 - 180), wrapped(east / 10 - 180)];
    const clamp = (y) => Math.min(90, Math.max(-90, 90 - y / 10));
    return { south: rounded(clamp(Math.max(y1, y2))), west: rounded(sides[0]), north: rounded(clamp(Math.min(y1, y2))), east: rounded(sides[1]) };
  }

  drawBox(box) {
    if (!box) return this.box.replaceChildren();
    const [y, width, height] = [(90 - box.north) * 10, breadth(box), (box.north - box.south) * 10];
    this.box.replaceChildren(
      ...[-3600, 0, 3600].map((turn) => shape("rect", { class: "box", x: (box.west + 180) * 10 + turn, y, width, height })),
    );
  }

  // Zoom on a box, with some space around it.
  lookAt(box) {
    const width = breadth(box);
    const wide = Math.min(3600, Math.max(20, 1.6 * Math.max(width, 2 * (box.north - box.south) * 10)));
    this.setView((box.west + 180) * 10 + width / 2, (90 - (box.south + box.north) / 2) * 10, wide);
  }

  // Moving ---------------------------------------------------------------------------------------------------

  setView(middleX, middleY, width) {
    this.seeking = false;
    const wide = Math.min(3600, Math.max(2, width));
    const high = wide / 2;
    const x = ((((middleX - wide / 2 + 1800) % 3600) + 3600) % 3600) - 1800;
    this.view = { x, y: Math.min(1800 - high, Math.max(0, middleY - high / 2)), width: wide, height: high };
    this.show();
  }

  zoom(by, at) {
    const { x, y, width, height } = this.view;
    const to = at ?? { x: x + width / 2, y: y + height / 2 };
    const wide = Math.min(3600, Math.max(2, width * by));
    const share = wide / width;
    this.setView(to.x + (x + width / 2 - to.x) * share, to.y + (y + height / 2 - to.y) * share, wide);
  }

  move(right, down) {
    const { x, y, width, height } = this.view;
    this.setView(x + width / 2 + right * width, y + height / 2 + down * height, width);
  }

  at(event) {
    const place = this.svg.getBoundingClientRect();
    const { x, y, width, height } = this.view;
    return { x: x + ((event.clientX - place.left) / place.width) * width, y: y + ((event.clientY - place.top) / place.height) * height };
  }

  listen() {
    this.svg.onpointerdown = (event) => {
      this.svg.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
      this.start = this.pointers.size === 1 ? this.at(event) : null;
    };
    this.svg.onpointermove = (event) => {
      if (!this.pointers.has(event.pointerId)) return;
      if (this.pointers.size === 2) this.pinch(event);
      this.pointers.set(event.pointerId, event);
      if (!this.start) return;
      const to = this.at(event);
      this.drawn = this.degrees(this.start.x, this.start.y, to.x, to.y);
      this.drawBox(this.drawn);
    };
    this.svg.onpointerup = (event) => {
      this.pointers.delete(event.pointerId);
      if (!this.start) return;
      const to = this.at(event);
      const moved = Math.abs(to.x - this.start.x) + Math.abs(to.y - this.start.y);
      if (this.drawn && moved > this.view.width / 100) this.onBox(this.drawn);
      else this.onPoint(rounded(90 - to.y / 10), rounded(wrapped(to.x / 10 - 180)));
      this.start = this.drawn = null;
    };
    this.svg.onpointercancel = (event) => this.pointers.delete(event.pointerId);
    this.svg.onwheel = (event) => {
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.at(event));
    };
    this.svg.onkeydown = (event) => {
      const act = {
        "+": () => this.zoom(0.5),
        "=": () => this.zoom(0.5),
        "-": () => this.zoom(2),
        ArrowLeft: () => this.move(-0.2, 0),
        ArrowRight: () => this.move(0.2, 0),
        ArrowUp: () => this.move(0, -0.2),
        ArrowDown: () => this.move(0, 0.2),
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    };
  }

  // Two fingers move and zoom.
  pinch(event) {
    const before = [...this.pointers.values()];
    const after = before.map((old) => (old.pointerId === event.pointerId ? event : old));
    const spread = ([a, b]) => Math.max(1, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY));
    const middle = ([a, b]) => this.at({ clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
    const [from, to] = [middle(before), middle(after)];
    const { x, y, width, height } = this.view;
    const wide = width * (spread(before) / spread(after));
    this.setView(x + width / 2 + from.x - to.x, y + height / 2 + from.y - to.y, wide);
    this.drawn = null;
  }
}

const boxText = (box) => [box.south, box.west, box.north, box.east].join(",");

// The map with its fields, and the choices "with a place" and "without".
function placeChoices(facet, data, send, found) {
  const form = (...fields) => {
    const node = element("form", "place-form");
    for (const [name, text, least, most] of fields) {
      const label = element("label", "", text);
      const input = element("input", "");
      Object.assign(input, { name, type: "number", step: "any", min: least, max: most, required: true, inputMode: "decimal" });
      label.append(input);
      node.append(label);
    }
    const use = element("button", "use", "Show these photos");
    const count = element("p", "found", "");
    count.setAttribute("role", "status");
    node.append(use, count);
    return node;
  };
  const box = form(["south", "South", -90, 90], ["west", "West", -180, 180], ["north", "North", -90, 90], ["east", "East", -180, 180]);
  const circle = form(["latitude", "Latitude", -90, 90], ["longitude", "Longitude", -180, 180], ["km", "Within km", 0.001, 20100]);
  const boxOf = () => Object.fromEntries(["south", "west", "north", "east"].map((name) => [name, Number(box.elements[name].value)]));
  const textOf = (node) => [...node.querySelectorAll("input")].map((input) => Number(input.value)).join(",");

  const count = async (node) => {
    const said = node.querySelector(".found");
    if (!node.checkValidity()) return (said.textContent = "");
    const asked = new URLSearchParams(data.query);
    asked.set("place", textOf(node));
    const answer = await fetch(`places?${asked}`).catch(() => null);
    if (!answer?.ok) return;
    const { count: photos } = await answer.json();
    said.textContent = photos === 1 ? "1 photo" : `${number(photos)} photos`;
  };
  const fill = (node, values) => {
    for (const [name, value] of Object.entries(values)) node.elements[name].value = value;
    count(node);
  };
  const map = new PlaceMap(
    data,
    (drawn) => fill(box, drawn),
    (latitude, longitude) => {
      map.drawBox(box.checkValidity() ? boxOf() : null);
      fill(circle, { latitude, longitude, km: circle.elements.km.value || 10 });
    },
  );
  for (const node of [box, circle]) {
    node.onsubmit = (event) => {
      event.preventDefault();
      send({ place: textOf(node) });
    };
    node.onchange = () => {
      if (node === box) map.drawBox(box.checkValidity() ? boxOf() : null);
      count(node);
    };
  }
  for (const part of (facet.value ?? "").split(";")) {
    const numbers = part.split(",").map(Number);
    if (numbers.length === 4) {
      const [south, west, north, east] = numbers;
      fill(box, { south, west, north, east });
      map.drawBox(boxOf());
      map.lookAt(boxOf());
    } else if (numbers.length === 3) {
      const [latitude, longitude, km] = numbers;
      fill(circle, { latitude, longitude, km });
      const high = Math.min(80, km / 111);
      map.lookAt({ south: latitude - high, north: latitude + high, west: wrapped(longitude - high), east: wrapped(longitude + high) });
    }
  }
  const known = (found ?? []).map(([value, text, photos]) =>
    choice(text, photos, facet.value === value, () => send({ place: facet.value === value ? null : value })),
  );
  return [...known, map.root, element("p", "hint", "Drag on the map to draw a box; tap a point to look around it."), box, circle];
}

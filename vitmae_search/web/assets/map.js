// The map: one moves over it with the mouse, fingers or keys, and selects an area with a stroke around it. What is in
// view is `?at=x_y_zoom` in the page's address, set here; an area is sent to the server, which puts it there.
const MAP_ICONS = {
  nearer: "M19 13h-6v6h-2v-6H5v-2h6V5h2v6h6z",
  farther: "M19 13H5v-2h14z",
  all: "M4 4h6v2H6v4H4zm10 0h6v6h-2V6h-4zM4 14h2v4h4v2H4zm14 0h2v6h-6v-2h4z",
  lasso: "M12 3C6.5 3 2 6 2 10c0 2.3 1.5 4.3 3.8 5.600A3 3 0 0 0 8 19.9c.1 1-.4 1.7-1.5 2.100l.8 1.800c2-.8 2.900-2.200 2.700-4.100a3 3 0 0 0 1-2.700h1c5.500 0 10-3 10-7s-4.500-7-10-7zm0 12h-1.600a3 3 0 0 0-3.700-1C5 13 4 11.600 4 10c0-2.800 3.600-5 8-5s8 2.200 8 5-3.600 5-8 5z",
  view: "M3 5h18v14H3zm2 2v10h14V7z",
};
const ALL_OF_IT = { x: 0.5, y: 0.5, zoom: 1 };
const FARTHEST = 0.5, NEAREST = 400; // zoom; 1 shows all
const ZOOM_STEP = 1.6;
const MAP_WHEEL_STEP = 1.0016; // for each pixel that the wheel scrolls
const PICKED_WITHIN = 14; // pixels from the pointer
const NEIGHBOURS = 40; // that one goes on to in the viewer
const THUMB = 64; // pixels, the side of a thumbnail on the map
const MOST_IN_VIEW = 600; // points up to which those in view get thumbnails
const MOST_THUMBS = 60;
const MOST_CORNERS = 48;
const SETTLED_MS = 180; // after the last movement

const UNIT = 100_000;
const asArea = (method, corners) => [method, ...corners.map(([x, y]) => `${Math.round(x * UNIT)}.${Math.round(y * UNIT)}`)].join("_");
const asAddress = ({ x, y, zoom }) => [x, y, zoom].map((value) => Number(value.toPrecision(5))).join("_");
const cornersOf = (area) => area.split("_").slice(1).map((corner) => corner.split(".").map((value) => Number(value) / UNIT));

class PhotoMap {
  constructor(host) {
    this.host = host;
    this.tiles = new Map(); // by photo id
    this.pointers = new Map(); // those that are pressed, by their ids
    this.mouse = null; // its last movement over the map
    this.only = null; // the group of the legend that is shown alone
    this.lassoing = false;
    this.view = this.viewOfAddress();
    this.build();
  }

  build() {
    const { host } = this;
    this.stage = element("div", "plot");
    this.stage.tabIndex = 0;
    this.stage.setAttribute("role", "application");
    this.canvas = element("canvas", "points");
    this.overlay = element("div", "overlay");
    this.outline = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.outline.setAttribute("class", "outline");
    this.outline.setAttribute("aria-hidden", "true");
    this.stroke = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
    this.outline.append(this.stroke);
    this.card = element("div", "card");
    this.card.hidden = true;
    this.bar = element("div", "tools");
    this.bar.append(
      (this.lasso = this.tool("lasso", "Draw around photos to select them", () => this.setLassoing(!this.lassoing))),
      this.tool("view", "Select what is in view (v)", () => this.selectView()),
      this.tool("nearer", "Nearer (+)", () => this.zoomBy(ZOOM_STEP)),
      this.tool("farther", "Farther (-)", () => this.zoomBy(1 / ZOOM_STEP)),
      this.tool("all", "All of it (0)", () => this.setView(ALL_OF_IT)),
    );
    this.lasso.setAttribute("aria-pressed", "false");
    this.said = element("p", "said");
    this.said.setAttribute("role", "status");
    this.stage.append(this.canvas, this.outline, this.overlay, this.card);
    const frame = element("div", "frame");
    frame.append(this.stage, this.bar);
    this.legend = element("div", "legend");
    this.legend.setAttribute("role", "group");
    this.legend.setAttribute("aria-label", "Colours");
    this.clusters = element("div", "clusters");
    this.clusters.setAttribute("role", "group");
    this.clusters.setAttribute("aria-label", "Clusters");
    host.replaceChildren(frame, this.said, this.legend, element("h2", "", "Clusters"), this.clusters);
    try {
      this.drawing = new WebGLDrawing(this.canvas);
    } catch {
      const plain = element("canvas", "points"); // a canvas has one kind of context for ever
      this.canvas.replaceWith(plain);
      this.canvas = plain;
      this.drawing = new CanvasDrawing(plain);
    }
    this.canvas.addEventListener("webglcontextrestored", () => this.reload(true));
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.resized = new ResizeObserver(() => this.redraw());
    this.resized.observe(this.stage);
    this.listen();
  }

  tool(name, label, action) {
    const button = element("button", "tool");
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.append(icon(MAP_ICONS[name]));
    button.onclick = action;
    return button;
  }

  listen() {
    const { stage } = this;
    stage.onwheel = (event) => {
      event.preventDefault();
      this.zoomAt(event, this.view.zoom * MAP_WHEEL_STEP ** -event.deltaY);
    };
    stage.onpointerdown = (event) => this.down(event);
    stage.onpointermove = (event) => this.move(event);
    stage.onpointerup = (event) => this.up(event);
    stage.onpointercancel = (event) => this.cancel(event);
    stage.onpointerleave = () => this.hover((this.mouse = null));
    stage.onkeydown = (event) => this.key(event);
    stage.ondragstart = (event) => event.preventDefault();
  }

  // Data ---------------------------------------------------------------------------------------------------

  async show(data, send) {
    this.data = data;
    this.send = send;
    const asked = `${data.points} ${data.state}`;
    if (asked !== this.asked) {
      this.asked = asked;
      this.only = null;
      const answer = await fetch(data.points).catch(() => null);
      if (asked !== this.asked) return;
      if (!answer?.ok) {
        this.asked = null;
        this.said.textContent = "The map could not be loaded. Reload the page to try again.";
        return;
      }
      this.points = new Points(await answer.arrayBuffer());
      if (this.method && this.method !== data.method) this.setView(this.viewOfAddress());
      this.method = data.method;
      this.bytes = 9 * this.points.count;
      this.drawLists();
    }
    this.area = data.area ? cornersOf(data.area) : null;
    this.reload();
  }

  // The points with their colours to where they are drawn.
  reload() {
    if (!this.points) return;
    const inside = this.area && this.points.inPolygon(this.area);
    const chosen = (i, group) => (!inside || inside[i] === 1) && (this.only === null || group === this.only);
    this.drawing.load(this.points, this.points.colors(chosen));
    this.describe();
    this.redraw();
  }

  describe() {
    const { count, placed } = this.points;
    const number = (value) => value.toLocaleString("en");
    const words = [`${number(count)} photo${count === 1 ? "" : "s"}`];
    if (placed) words.push(`${number(placed)} placed since the map was made`);
    if (this.drawing instanceof CanvasDrawing) {
      words.push("this browser has no WebGL" + (this.drawing.step > 1 ? `: one point in ${this.drawing.step} is drawn` : ""));
    }
    this.said.textContent = words.join(" · ");
    this.stage.setAttribute("aria-label", `Map of ${number(count)} photos. Arrow keys move, plus and minus zoom, Enter opens the photo in the middle.`);
  }

  drawLists() {
    const { legend, clusters, by } = this.points;
    const rest = this.points.count - legend.reduce((sum, group) => sum + group.count, 0);
    this.legend.hidden = by === "cluster";
    this.legend.replaceChildren(
      ...legend.map((group, i) => this.legendEntry(group, i)),
      ...(rest > 0 ? [this.legendEntry({ name: legend.length ? "others" : "no tags", color: "#888888", count: rest }, NO_GROUP)] : []),
    );
    this.clusters.replaceChildren(...clusters.map((cluster, i) => this.clusterButton(cluster, by === "cluster" ? legend[i].color : null)));
    this.marks = by !== "cluster" ? [] : clusters.map((cluster, i) => this.clusterMark(cluster, legend[i].color));
    this.thumbs = [];
  }

  legendEntry(group, i) {
    const button = element("button", "entry");
    button.type = "button";
    const swatch = element("i", "swatch");
    swatch.style.background = group.color;
    button.append(swatch, element("span", "what", group.name), element("span", "count", group.count.toLocaleString("en")));
    button.title = "Show these alone";
    button.setAttribute("aria-pressed", "false");
    button.onclick = () => {
      this.only = this.only === i ? null : i;
      [...this.legend.children].forEach((other) => other.setAttribute("aria-pressed", String(other === button && this.only !== null)));
      this.reload();
    };
    return button;
  }

  clusterButton(cluster, color) {
    const button = element("button", "cluster");
    button.type = "button";
    button.dataset.id = cluster.id;
    const image = element("img", "");
    image.loading = "lazy";
    image.alt = "";
    image.src = cluster.src;
    if (color) image.style.outlineColor = color;
    const words = element("span", "words");
    words.append(element("span", "what", cluster.name), element("span", "count", cluster.count.toLocaleString("en")));
    button.append(image, words);
    button.setAttribute("aria-label", `Cluster of ${cluster.count.toLocaleString("en")} like ${cluster.name}: go there`);
    button.onclick = () => {
      this.goTo(cluster);
      this.stage.scrollIntoView({ block: "nearest" });
    };
    return button;
  }

  clusterMark(cluster, color) {
    const image = element("img", "mark");
    image.alt = "";
    image.src = cluster.src;
    image.style.borderColor = color;
    return { cluster, node: image };
  }

  goTo({ x, y, radius }) {
    const zoom = Math.min(40, 0.42 / Math.max(radius, 0.004));
    this.setView({ x, y, zoom });
  }

  // Names and thumbnails of points.
  async tilesOf(indices) {
    const ids = indices.map((i) => this.points.ids[i]);
    const missing = ids.filter((id) => !this.tiles.has(id));
    if (missing.length) {
      const separator = this.data.photos.includes("=") ? "&" : "";
      const answer = await fetch(`${this.data.photos}${separator}ids=${missing.join(",")}`).catch(() => null);
      if (answer?.ok) for (const photo of (await answer.json()).photos) this.tiles.set(photo.id, photo);
    }
    return ids.map((id) => this.tiles.get(id)).filter(Boolean);
  }

  // The view -----------------------------------------------------------------------------------------------

  viewOfAddress() {
    const found = new URLSearchParams(location.search).get("at")?.split("_").map(Number) ?? [];
    if (found.length !== 3 || !found.every(Number.isFinite)) return ALL_OF_IT;
    const [x, y, zoom] = found;
    return { x, y, zoom: Math.min(NEAREST, Math.max(FARTHEST, zoom)) };
  }

  // Pixels of the page for each unit of the map.
  get scale() {
    return 0.92 * Math.min(this.stage.clientWidth, this.stage.clientHeight) * this.view.zoom;
  }

  setView({ x, y, zoom }) {
    const within = (value) => Math.min(1.5, Math.max(-0.5, value));
    this.view = { x: within(x), y: within(y), zoom: Math.min(NEAREST, Math.max(FARTHEST, zoom)) };
    this.hover(null); // another photo may lie under the pointer then
    delete this.host.dataset.placed;
    this.redraw();
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.settled(), SETTLED_MS);
  }

  settled() {
    if (!this.host.isConnected) return;
    const at = asAddress(this.view);
    const parameters = new URLSearchParams(location.search);
    if (at === asAddress(ALL_OF_IT)) parameters.delete("at");
    else parameters.set("at", at);
    const text = parameters.toString();
    history.replaceState(history.state, "", location.pathname + (text && "?" + text));
    this.placeThumbs();
  }

  zoomBy(by) {
    this.setView({ ...this.view, zoom: this.view.zoom * by });
  }

  // What lies at this point of the window stays there.
  zoomAt(event, zoom) {
    const [x, y] = this.placeOf(event);
    const by = this.view.zoom / Math.min(NEAREST, Math.max(FARTHEST, zoom));
    this.setView({ x: x + (this.view.x - x) * by, y: y + (this.view.y - y) * by, zoom });
  }

  placeOf({ clientX, clientY }) {
    const box = this.stage.getBoundingClientRect();
    const [px, py] = [clientX - box.left - box.width / 2, clientY - box.top - box.height / 2];
    return [this.view.x + px / this.scale, this.view.y - py / this.scale];
  }

  pixelOf(x, y) {
    const { clientWidth, clientHeight } = this.stage;
    return [clientWidth / 2 + (x - this.view.x) * this.scale, clientHeight / 2 - (y - this.view.y) * this.scale];
  }

  edges() {
    const [halfWidth, halfHeight] = [this.stage.clientWidth / 2 / this.scale, this.stage.clientHeight / 2 / this.scale];
    const { x, y } = this.view;
    return [x - halfWidth, y - halfHeight, x + halfWidth, y + halfHeight];
  }

  // Drawing ------------------------------------------------------------------------------------------------

  redraw() {
    this.asking ??= requestAnimationFrame(() => {
      this.asking = null;
      this.draw();
    });
  }

  draw() {
    if (!this.points || !this.stage.clientWidth) return;
    const ratio = Math.min(2, devicePixelRatio || 1);
    const [width, height] = [Math.round(this.stage.clientWidth * ratio), Math.round(this.stage.clientHeight * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const few = Math.max(0, 4 - Math.log10(this.points.count + 1)) * 2;
    const size = Math.min(12, 2 + few + 1.3 * Math.max(0, Math.log2(this.view.zoom))) * ratio;
    const drawn = this.drawing.draw({ x: this.view.x, y: this.view.y, scale: this.scale * ratio }, width, height, size);
    this.host.dataset.drawn = drawn;
    this.drawOutline();
    for (const { cluster, node } of this.marks) this.put(node, cluster.x, cluster.y);
    for (const { node, x, y } of this.thumbs) this.put(node, x, y);
    if (!this.placed) {
      this.placed = true;
      this.placeThumbs();
    }
  }

  put(node, x, y) {
    const [px, py] = this.pixelOf(x, y);
    node.style.transform = `translate(${px.toFixed(1)}px, ${py.toFixed(1)}px) translate(-50%, -50%)`;
  }

  drawOutline() {
    const corners = this.drawn ?? this.area ?? [];
    this.stroke.setAttribute("points", corners.map(([x, y]) => this.pixelOf(x, y).map((value) => value.toFixed(1)).join(",")).join(" "));
  }

  // Thumbnails of what is in view once that is not too much, so that none hides another.
  async placeThumbs() {
    if (!this.points) return;
    const inView = this.points.within(...this.edges(), MOST_IN_VIEW + 1);
    const taken = new Set();
    const chosen = inView.length > MOST_IN_VIEW ? [] : inView.filter((i) => {
      const [px, py] = this.pixelOf(this.points.x(i), this.points.y(i));
      const cells = [-1, 0, 1].flatMap((a) => [-1, 0, 1].map((b) => `${Math.round(px / THUMB) + a} ${Math.round(py / THUMB) + b}`));
      if (taken.size >= MOST_THUMBS || cells.some((cell) => taken.has(cell))) return false;
      taken.add(cells[4]);
      return true;
    });
    const view = asAddress(this.view);
    const wanted = (this.wanted = `${view} ${chosen.join()}`);
    const photos = new Map((chosen.length ? await this.tilesOf(chosen) : []).map((photo) => [photo.id, photo]));
    if (this.wanted !== wanted) return;
    this.thumbs = chosen.filter((i) => photos.has(this.points.ids[i])).map((i) => {
      const node = element("img", "thumb");
      const photo = photos.get(this.points.ids[i]);
      node.alt = "";
      node.decoding = "async";
      node.src = photo.src;
      node.dataset.id = photo.id;
      const [x, y] = [this.points.x(i), this.points.y(i)];
      this.put(node, x, y);
      return { node, i, x, y };
    });
    const near = this.thumbs.length > 0;
    this.overlay.replaceChildren(...(near ? [] : this.marks.map(({ node }) => node)), ...this.thumbs.map(({ node }) => node));
    this.host.dataset.placed = view;
    this.redraw();
    if (!this.pointers.size) this.hover(this.mouse);
  }

  // Mouse, fingers and keys --------------------------------------------------------------------------------

  down(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.hover(null);
    if (this.pointers.size > 1) {
      this.moved = true;
      this.drawn = null;
      return;
    }
    this.moved = false;
    this.from = event;
    if (this.lassoing || event.shiftKey) this.drawn = [this.placeOf(event)];
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    this.mouse = event.pointerType === "mouse" ? event : null;
    if (!before) return this.hover(this.mouse);
    const others = [...this.pointers.values()].filter((pointer) => pointer.pointerId !== event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (Math.hypot(event.clientX - this.from.clientX, event.clientY - this.from.clientY) > 5) this.moved = true;
    if (this.drawn) {
      this.drawn.push(this.placeOf(event));
      return this.redraw();
    }
    if (!this.moved) return;
    const [x, y] = [this.view.x - (event.clientX - before.clientX) / this.scale, this.view.y + (event.clientY - before.clientY) / this.scale];
    if (!others.length) return this.setView({ ...this.view, x, y });
    const distance = (pointer) => Math.hypot(pointer.clientX - others[0].clientX, pointer.clientY - others[0].clientY);
    const middle = { clientX: (event.clientX + others[0].clientX) / 2, clientY: (event.clientY + others[0].clientY) / 2 };
    this.zoomAt(middle, (this.view.zoom * distance(event)) / Math.max(1, distance(before)));
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId) || this.pointers.size) return;
    const { drawn } = this;
    this.drawn = null;
    if (drawn && this.moved) this.select(drawn);
    else if (!this.moved) this.tapped(event);
    this.redraw();
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
    this.drawn = null;
    this.redraw();
  }

  tapped(event) {
    const thumb = this.thumbUnder(event);
    const [i] = thumb ? [thumb.i] : this.points?.nearest(...this.placeOf(event), PICKED_WITHIN / this.scale, 1) ?? [];
    if (i !== undefined) this.open(i);
  }

  thumbUnder(event) {
    const box = this.stage.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    return this.thumbs?.find(({ x, y }) => {
      const [cx, cy] = this.pixelOf(x, y);
      return Math.abs(px - cx) < THUMB / 2 && Math.abs(py - cy) < THUMB / 2;
    });
  }

  async hover(event) {
    const thumb = event && this.thumbUnder(event);
    const [i] = !event || !this.points ? [] : thumb ? [thumb.i] : this.points.nearest(...this.placeOf(event), PICKED_WITHIN / this.scale, 1);
    if (i === this.hovered) return;
    this.hovered = i;
    this.stage.classList.toggle("over", i !== undefined);
    if (i === undefined) return (this.card.hidden = true);
    const [photo] = await this.tilesOf([i]);
    if (this.hovered !== i || !photo) return;
    const image = element("img", "");
    image.alt = "";
    image.src = photo.src;
    this.card.replaceChildren(image, element("span", "what", photo.name));
    this.card.hidden = false;
    const [px, py] = this.pixelOf(this.points.x(i), this.points.y(i));
    this.card.style.left = `${Math.max(4, Math.min(px + 14, this.stage.clientWidth - this.card.offsetWidth - 4))}px`;
    this.card.style.top = `${Math.max(4, Math.min(py + 14, this.stage.clientHeight - this.card.offsetHeight - 4))}px`;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 0.15 * Math.min(this.stage.clientWidth, this.stage.clientHeight) / this.scale;
    const by = (x, y) => () => this.setView({ ...this.view, x: this.view.x + x * step, y: this.view.y + y * step });
    const action = {
      ArrowLeft: by(-1, 0),
      ArrowRight: by(1, 0),
      ArrowUp: by(0, 1),
      ArrowDown: by(0, -1),
      "+": () => this.zoomBy(ZOOM_STEP),
      "=": () => this.zoomBy(ZOOM_STEP),
      "-": () => this.zoomBy(1 / ZOOM_STEP),
      0: () => this.setView(ALL_OF_IT),
      v: () => this.selectView(),
      Enter: () => this.openMiddle(),
      Escape: () => (this.lassoing ? this.setLassoing(false) : this.area && this.sendArea(null)),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  // Selecting and opening ----------------------------------------------------------------------------------

  setLassoing(on) {
    this.lassoing = on;
    this.lasso.setAttribute("aria-pressed", String(on));
    this.stage.classList.toggle("lassoing", on);
  }

  select(corners) {
    this.setLassoing(false);
    const step = Math.max(1, corners.length / MOST_CORNERS);
    const kept = Array.from({ length: Math.min(corners.length, MOST_CORNERS) }, (_, n) => corners[Math.floor(n * step)]);
    if (kept.length >= 3) this.sendArea(kept);
  }

  selectView() {
    const [x0, y0, x1, y1] = this.edges();
    this.sendArea([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
  }

  sendArea(corners) {
    const within = (value) => Math.min(9.9, Math.max(-9.9, value));
    this.area = corners?.map((corner) => corner.map(within)) ?? null;
    this.reload();
    this.send("area", corners ? asArea(this.method, this.area) : "");
  }

  openMiddle() {
    const [i] = this.points.nearest(this.view.x, this.view.y, 0.5 / this.view.zoom, 1);
    if (i !== undefined) this.open(i);
  }

  // Open a photo in the viewer; one goes on from there to its neighbours on the map.
  async open(i) {
    const near = this.points.nearest(this.points.x(i), this.points.y(i), 120 / this.scale, NEIGHBOURS + 1);
    const photos = await this.tilesOf([i, ...near.filter((other) => other !== i)].slice(0, NEIGHBOURS + 1));
    const photo = photos.find(({ id }) => id === this.points.ids[i]);
    if (!photo) return;
    this.grid.photos = photos;
    openPhoto(this.grid, photo);
  }

  leave() {
    this.resized.disconnect();
    clearTimeout(this.settling);
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const host = parentElement.querySelector(".map");
  const made = (host.vsMap ??= new PhotoMap(host));
  const { opened, named, ...shown } = data;
  const grid = (made.grid ??= { root: parentElement, photos: [], more: null, loadMore: async () => {} });
  Object.assign(grid, {
    data,
    send: (name, value) => setTriggerValue(name, value),
    act: {
      similar: ({ id }) => goTo("./", { photo: id }, data.library),
      reconstruct: ({ id }) => goTo("reconstructions", { photo: id }, data.library),
    },
  });
  allGrids.add(grid);
  made.show(shown, grid.send);
  followAddress();
  return () => {
    allGrids.delete(grid);
    made.leave();
    host.vsMap = null;
    if (viewer?.grid === grid) viewer = null;
  };
}

// The viewer: one photo fills the window, over the grid that it belongs to. Its state is `?open=ID` in the page's
// address, set here and not by the server, so that going on to the next photo waits for nobody. Opened by a tap it
// is a step of the history, so Back closes it; going on changes that step's address.
const VIEWER_ICONS = {
  prev: "M15.4 7.4 14 6l-6 6 6 6 1.4-1.4L10.8 12z",
  next: "M8.6 16.6 10 18l6-6-6-6-1.4 1.4 4.6 4.6z",
  close: "M19 6.4 17.6 5 12 10.6 6.4 5 5 6.4l5.6 5.6L5 17.6 6.4 19l5.6-5.6 5.6 5.6 1.4-1.4-5.6-5.6z",
  why: "M10 2v2H5a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h5v2h2V2zm0 16H5l5-6zM19 4h-5v2h5v12l-5-6v8h5a2 2 0 0 0 2-2V6a2 2 0 0 0-2-2z",
  info: "M11 7h2v2h-2zm0 4h2v6h-2zm1-9a10 10 0 1 0 0 20 10 10 0 0 0 0-20zm0 18a8 8 0 1 1 0-16 8 8 0 0 1 0 16z",
  download: "M5 20h14v-2H5zM19 9h-4V3H9v6H5l7 7z",
  copy: "M16 1H4a2 2 0 0 0-2 2v14h2V3h12zm3 4H8a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h11a2 2 0 0 0 2-2V7a2 2 0 0 0-2-2zm0 16H8V7h11z",
  folder: "M9.2 6l2 2H20v10H4V6h5.2M10 4H4a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h16a2 2 0 0 0 2-2V8a2 2 0 0 0-2-2h-8z",
  model: "M3 3v8h8V3zm6 6H5V5h4zm-6 4v8h8v-8zm6 6H5v-4h4zm4-16v8h8V3zm6 6h-4V5h4zm-6 4v8h8v-8zm6 6h-4v-4h4z",
  play: "M8 5v14l11-7z",
  similar: "M15.5 14h-.8l-.3-.3a6.5 6.5 0 1 0-.7.7l.3.3v.8l5 5 1.5-1.5-5-5zm-6 0a4.5 4.5 0 1 1 0-9 4.5 4.5 0 0 1 0 9z",
};
const LARGEST_ZOOM = 12;
const WHEEL_STEP = 1.0015; // zoom for each pixel that the wheel scrolls
const DOUBLE_TAP_ZOOM = 3;
const MOST_BATCHES = 20; // that are looked through for a photo
const SWIPE = 60; // pixels from which a stroke is a swipe
const TAP_MS = 300; // between the two of a double tap

const openedByTap = () => Boolean(history.state?.viewer);
const addressOf = (id, library) => {
  const parameters = new URLSearchParams(location.search);
  parameters.set("open", id);
  if (library) parameters.set("library", library);
  return location.pathname + "?" + parameters;
};

// The grid's photos, those behind a stack included, in the order in which one goes on through them.
const inOrder = (photos) => photos.flatMap((photo) => [photo, ...(photo.stack ?? [])]);

class Viewer {
  // `grid` is what the photo belongs to: {root, photos, data, act, send(name, value), loadMore()}.
  constructor(grid) {
    this.grid = grid;
    this.photo = null;
    this.withDetails = false;
    this.details = new Map(); // by photo id, promises
    this.pointers = new Map();
    this.build();
  }

  build() {
    const dialog = (this.dialog = element("dialog", "viewer"));
    dialog.setAttribute("aria-label", "Photo");
    this.stage = element("div", "stage");
    this.image = element("img", "shown");
    this.image.decoding = "async";
    this.image.draggable = false;
    this.part = partOutline(this.image);
    this.state = element("span", "state");
    this.stage.append(this.image, this.part, this.state);
    this.name = element("span", "name");
    this.count = element("span", "count");
    this.status = element("span", "said");
    this.status.setAttribute("role", "status");
    const title = element("div", "title");
    title.append(this.name, this.count);
    const { data } = this.grid;
    this.download = element("a", "action");
    this.dress(this.download, "download", "Download the original", "d");
    this.play = element("a", "action");
    this.dress(this.play, "play", "Play the video from here", "v");
    this.play.target = "_blank";
    this.live = this.button("play", "Play the Live photo", "v", () => this.playLive());
    const actions = element("div", "actions");
    actions.append(
      this.button("similar", "More like this", "s", () => this.grid.act.similar(this.photo)),
      this.button("model", "What the model sees", "m", () => this.grid.act.reconstruct(this.photo)),
      (this.why = this.button("why", "Why did this match?", "w", () => this.grid.act.explain(this.photo))),
      this.play,
      this.live,
      this.download,
      this.button("copy", "Copy the path", "c", () => this.copyPath()),
      ...(data.local ? [this.button("folder", "Show in the file manager", "f", () => this.reveal())] : []),
      (this.info = this.button("info", "Details", "i", () => this.showDetails(!this.withDetails))),
    );
    this.close = this.button("close", "Close", "Esc", () => this.leave());
    const bar = element("header", "bar");
    bar.append(title, actions, this.close);
    this.previous = this.button("prev", "Previous photo", "←", () => this.step(-1));
    this.previous.classList.add("turn", "left");
    this.next = this.button("next", "Next photo", "→", () => this.step(1));
    this.next.classList.add("turn", "right");
    this.panel = element("aside", "details");
    this.panel.hidden = true;
    this.panel.setAttribute("aria-label", "Details");
    const middle = element("div", "middle");
    middle.append(this.stage, this.previous, this.next);
    dialog.append(bar, middle, this.panel, this.status);
    dialog.oncancel = (event) => {
      event.preventDefault();
      this.leave();
    };
    dialog.onkeydown = (event) => this.key(event);
    this.stage.onwheel = (event) => {
      event.preventDefault();
      this.zoomAt(event.clientX, event.clientY, this.zoom * WHEEL_STEP ** -event.deltaY);
    };
    this.stage.onpointerdown = (event) => this.down(event);
    this.stage.onpointermove = (event) => this.move(event);
    this.stage.onpointerup = this.stage.onpointercancel = (event) => this.up(event);
    this.image.onload = () => (this.state.textContent = "");
    this.grid.root.append(dialog);
  }

  button(name, label, key, action) {
    const button = element("button", "action");
    button.type = "button";
    button.onclick = action;
    this.dress(button, name, label, key);
    return button;
  }

  dress(node, name, label, key) {
    node.title = `${label} (${key})`;
    node.setAttribute("aria-label", label);
    node.append(icon(VIEWER_ICONS[name]));
  }

  get photos() {
    return inOrder(this.grid.photos);
  }

  // Show a photo of the grid, or one that is given with it.
  show(photo) {
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.dialog.focus();
    }
    if (this.photo?.id === photo.id) return;
    this.photo = photo;
    this.setZoom(1, 0, 0);
    this.part.outline(photo.box);
    this.why.hidden = !(queryInAddress() && this.grid.data.explained);
    const { image } = this;
    image.alt = photo.name;
    this.name.textContent = photo.name;
    this.download.href = this.url(photo) + "&download=1";
    this.download.download = "";
    this.play.hidden = photo.seconds === undefined;
    this.play.href = `${this.url(photo)}&video=1#t=${photo.seconds}`;
    this.loadFull(photo);
    this.status.textContent = "";
    this.stopLive();
    this.offerLive(photo);
    if (this.placeAmong(photo) < 0) this.look(photo);
    if (this.withDetails) this.fillDetails();
  }

  // Say which one of the grid's photos it is, and get the ones beside it. Returns its place, -1 for none.
  placeAmong(photo) {
    const photos = this.photos;
    const place = photos.findIndex(({ id }) => id === photo.id);
    const total = this.grid.data.total ?? photos.length;
    this.count.textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${total.toLocaleString("en")}`;
    this.previous.disabled = place <= 0;
    this.next.disabled = place < 0 || (place + 1 >= photos.length && !this.grid.more);
    for (const near of [photos[place + 1], photos[place - 1]]) if (place >= 0 && near) new Image().src = this.url(near);
    if (place >= 0 && place + 8 >= photos.length) this.grid.loadMore();
    return place;
  }

  // A photo that the address names may be among those that the grid has not asked for yet.
  async look(photo) {
    for (let batch = 0; batch < MOST_BATCHES && this.grid.more; batch++) {
      await this.grid.loadMore();
      if (this.photo?.id !== photo.id) return;
      if (this.photos.some(({ id }) => id === photo.id)) return this.placeAmong(photo);
    }
  }

  url(photo) {
    const { library } = this.grid.data;
    const address = photo.src.replace(/^thumb/, "photo");
    return address + (library && !address.includes("&library=") ? `&library=${library}` : "");
  }

  // The small picture at once, the large one as soon as it is there.
  loadFull(photo) {
    const full = new Image();
    this.image.src = photo.src;
    this.state.textContent = "";
    watchPicture(full, (text) => {
      if (this.photo?.id !== photo.id) return;
      this.state.textContent = text;
      if (!text) this.image.src = full.src;
    });
    full.onerror = async () => {
      const state = await failedState(full.src);
      if (this.photo?.id !== photo.id) return;
      this.state.textContent = state;
      if (state !== PICTURE_STATES.gone) setTimeout(() => this.photo?.id === photo.id && (full.src = full.src), 2000);
    };
    full.src = this.url(photo);
  }

  async step(by) {
    const from = this.photo;
    let photos = this.photos;
    let target = photos.findIndex(({ id }) => id === from.id) + by;
    if (target >= photos.length) {
      await this.grid.loadMore();
      if (this.photo !== from) return;
      photos = this.photos;
    }
    if (target < 0 || target >= photos.length) return;
    history.replaceState(history.state, "", addressOf(photos[target].id, this.grid.data.library));
    this.show(photos[target]);
  }

  leave() {
    if (openedByTap()) history.back();
    else {
      const parameters = new URLSearchParams(location.search);
      parameters.delete("open");
      const text = parameters.toString();
      history.replaceState(history.state, "", location.pathname + (text && "?" + text));
      window.dispatchEvent(new PopStateEvent("popstate", { state: history.state })); // Streamlit keeps the address, too
    }
  }

  hide() {
    const last = this.photo;
    this.photo = null;
    this.stopLive();
    this.image.removeAttribute("src");
    if (!this.dialog.open) return;
    this.dialog.close();
    const tile = last && this.grid.root.querySelector(`.tile[data-id="${last.id}"]`);
    tile?.scrollIntoView({ block: "nearest" });
    tile?.querySelector(".open").focus({ preventScroll: true });
  }

  key(event) {
    if (event.key === "?") return; // the list of keys (`frame.js`)
    event.stopPropagation(); // Streamlit has keys of its own
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const center = () => [this.stage.clientWidth / 2, this.stage.clientHeight / 2 + this.stage.getBoundingClientRect().top];
    const actions = {
      ArrowLeft: () => (this.zoom > 1 ? this.pan(80, 0) : this.step(-1)),
      ArrowRight: () => (this.zoom > 1 ? this.pan(-80, 0) : this.step(1)),
      ArrowUp: () => this.zoom > 1 && this.pan(0, 80),
      ArrowDown: () => this.zoom > 1 && this.pan(0, -80),
      "+": () => this.zoomAt(...center(), this.zoom * 1.5),
      "=": () => this.zoomAt(...center(), this.zoom * 1.5),
      "-": () => this.zoomAt(...center(), this.zoom / 1.5),
      0: () => this.setZoom(1, 0, 0),
      i: () => this.info.click(),
      c: () => this.copyPath(),
      d: () => this.download.click(),
      v: () => [this.play, this.live].find((one) => !one.hidden)?.click(),
      s: () => this.grid.act.similar(this.photo),
      m: () => this.grid.act.reconstruct(this.photo),
      w: () => this.why.hidden || this.why.click(),
      f: () => this.grid.data.local && this.reveal(),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  // Live and motion photos ---------------------------------------------------------------------------------

  async offerLive(photo) {
    this.live.hidden = true;
    if (photo.seconds !== undefined) return;
    const found = await this.read(photo);
    if (this.photo === photo) this.live.hidden = !found?.live;
  }

  // The moving part in place of the still, once; again or another photo ends it.
  playLive() {
    if (this.moving) return this.stopLive();
    const video = (this.moving = element("video", "shown moving"));
    Object.assign(video, { src: this.url(this.photo) + "&video=1", muted: true, playsInline: true, autoplay: true });
    video.onended = () => this.stopLive();
    video.onerror = () => {
      this.stopLive();
      this.say("This browser does not play this kind of video.");
    };
    this.live.setAttribute("aria-pressed", "true");
    this.stage.append(video);
  }

  stopLive() {
    this.moving?.remove();
    this.moving = null;
    this.live.removeAttribute("aria-pressed");
  }

  // Details ------------------------------------------------------------------------------------------------

  async read(photo) {
    if (!this.details.has(photo.id)) {
      const { library } = this.grid.data;
      const got = fetch(`details/${photo.id}` + (library ? `?library=${library}` : ""))
        .then((answer) => (answer.ok ? answer.json() : null))
        .catch(() => null);
      this.details.set(photo.id, got);
      if ((await got) === null) this.details.delete(photo.id);
    }
    return this.details.get(photo.id) ?? null;
  }

  showDetails(on) {
    this.withDetails = on;
    this.panel.hidden = !on;
    this.info.setAttribute("aria-pressed", String(on));
    if (on) this.fillDetails();
  }

  async fillDetails() {
    const { photo } = this;
    const found = await this.read(photo);
    if (this.photo !== photo) return;
    const list = element("dl", "facts");
    const rows = found ? [...(photo.facts ?? []), ...found.facts] : [["Details", "could not be read"]];
    for (const [name, value] of rows) {
      const line = element("dd", "", value);
      if (name === "Place" && found?.place) line.append(this.nearHere(found.place));
      list.append(element("dt", "", name), line);
    }
    this.panel.replaceChildren(list);
  }

  nearHere([latitude, longitude]) {
    const { library } = this.grid.data;
    const asked = new URLSearchParams({ place: `${latitude.toFixed(6)},${longitude.toFixed(6)},10` });
    if (library) asked.set("library", library);
    const link = element("a", "near", "Photos within 10 km");
    link.href = `./browse?${asked}`;
    return link;
  }

  async copyPath() {
    const found = await this.read(this.photo);
    const done = found !== null && (await copyText(found.path, this.dialog));
    this.say(done ? "The path is copied." : "The path could not be copied. The details show it.");
  }

  reveal() {
    this.grid.send("reveal", this.photo.id);
    this.say("Opening the file manager…");
  }

  say(text) {
    this.status.textContent = text;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (this.status.textContent = ""), 4000);
  }

  // Zoom ---------------------------------------------------------------------------------------------------

  setZoom(zoom, x, y) {
    this.zoom = Math.min(LARGEST_ZOOM, Math.max(1, zoom));
    const [width, height] = [this.stage.clientWidth, this.stage.clientHeight];
    const edge = (size) => ((this.zoom - 1) * size) / 2; // no farther than the stage's edge
    this.x = Math.min(edge(width), Math.max(-edge(width), this.zoom === 1 ? 0 : x));
    this.y = Math.min(edge(height), Math.max(-edge(height), this.zoom === 1 ? 0 : y));
    this.stage.style.setProperty("--zoom", this.zoom);
    for (const shown of [this.image, this.part]) {
      shown.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.zoom})`;
    }
    this.stage.classList.toggle("zoomed", this.zoom > 1);
  }

  pan(byX, byY) {
    this.setZoom(this.zoom, this.x + byX, this.y + byY);
  }

  // What lies at this point of the window stays there.
  zoomAt(clientX, clientY, zoom) {
    const box = this.stage.getBoundingClientRect();
    const [px, py] = [clientX - box.left - box.width / 2, clientY - box.top - box.height / 2];
    const by = Math.min(LARGEST_ZOOM, Math.max(1, zoom)) / this.zoom;
    this.setZoom(zoom, px - (px - this.x) * by, py - (py - this.y) * by);
  }

  down(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size === 1) this.stroke = { x: event.clientX, y: event.clientY, pinched: false };
    else this.stroke.pinched = true;
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers.values()].filter((pointer) => pointer.pointerId !== event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (others.length === 1) {
      const distance = (pointer) => Math.hypot(pointer.clientX - others[0].clientX, pointer.clientY - others[0].clientY);
      const middle = [(event.clientX + others[0].clientX) / 2, (event.clientY + others[0].clientY) / 2];
      this.zoomAt(...middle, (this.zoom * distance(event)) / Math.max(1, distance(before)));
    } else if (!others.length && this.zoom > 1) {
      this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    }
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId) || this.pointers.size || event.type === "pointercancel") return;
    const { x, y, pinched } = this.stroke;
    const [byX, byY] = [event.clientX - x, event.clientY - y];
    if (pinched) return;
    if (Math.hypot(byX, byY) < 10) this.tapped(event);
    else if (this.zoom === 1 && Math.abs(byX) > SWIPE && Math.abs(byX) > 2 * Math.abs(byY)) this.step(byX < 0 ? 1 : -1);
    else if (this.zoom === 1 && event.pointerType === "touch" && byY > 2 * SWIPE && byY > 2 * Math.abs(byX)) this.leave();
  }

  tapped(event) {
    const twice = event.timeStamp - (this.lastTap ?? -TAP_MS) < TAP_MS;
    this.lastTap = twice ? -TAP_MS : event.timeStamp;
    if (!twice) return;
    if (this.zoom > 1) this.setZoom(1, 0, 0);
    else this.zoomAt(event.clientX, event.clientY, DOUBLE_TAP_ZOOM);
  }
}

// The clipboard of browsers is for secure pages only; an app on another machine's address is none.
async function copyText(text, parent) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = element("textarea", "");
    area.value = text;
    parent.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

// All grids of the page whose photos can be opened, and the viewer that is open. -----------------------------

const allGrids = new Set();
let viewer = null;

// Another page of the app, in one step of the history.
// What the page's address says was searched for: a photo of the library, or an upload.
function queryInAddress() {
  const parameters = new URLSearchParams(location.search);
  const name = ["photo", "upload"].find((each) => parameters.has(each));
  const part = parameters.get("part") ?? "";
  return name && { [name]: parameters.get(name), ...(/^[\d.,]+$/.test(part) && { part }) };
}

function goTo(page, query, library) {
  const parameters = new URLSearchParams({ ...query, ...(library && { library }) });
  history.pushState({}, "", `${page}?${parameters}`);
  window.dispatchEvent(new PopStateEvent("popstate", { state: {} })); // Streamlit then runs the page of this address
}

function openPhoto(grid, photo) {
  history.pushState({ ...history.state, viewer: true }, "", addressOf(photo.id, grid.data.library));
  followAddress();
}

// Open or close what the address says. Its id is one of another library where it names another one.
function followAddress() {
  const parameters = new URLSearchParams(location.search);
  const id = Number(parameters.get("open") ?? NaN);
  const named = parameters.get("library");
  const grids = [...allGrids].filter((grid) => grid.data.viewer && grid.root.isConnected);
  const candidates = viewer && grids.includes(viewer.grid) ? [viewer.grid, ...grids] : grids;
  for (const grid of candidates) {
    if (named !== null && named !== grid.data.library && named !== grid.data.named) continue;
    const photo = [...inOrder(grid.photos), ...(grid.data.opened ? [grid.data.opened] : [])].find((one) => one.id === id);
    if (!photo) continue;
    const wanted = (grid.viewer ??= new Viewer(grid));
    hideOthers(grids, wanted);
    viewer = wanted;
    viewer.show(photo);
    return;
  }
  hideOthers(grids, null);
  viewer = null;
}

function hideOthers(grids, wanted) {
  for (const { viewer: other } of grids) if (other && other !== wanted) other.hide();
}

window.addEventListener("popstate", followAddress);

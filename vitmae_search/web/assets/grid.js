// A grid of photos. Names arrive as data and are only ever set as text.
const ICONS = {
  similar: "M15.5 14h-.8l-.3-.3a6.5 6.5 0 1 0-.7.7l.3.3v.8l5 5 1.5-1.5-5-5zm-6 0a4.5 4.5 0 1 1 0-9 4.5 4.5 0 0 1 0 9z",
};

// `act` has what taps do: {open(photo), similar(photo), reconstruct(photo)}.
function tile(photo, act) {
  const item = element("li", "tile");
  item.dataset.id = photo.id;
  const open = element("button", "open");
  open.type = "button";
  open.title = photo.name;
  open.dataset.photo = photo.id;
  open.setAttribute("aria-label", photo.label);
  open.onclick = () => act.open(photo);
  const image = element("img", "");
  const state = element("span", "state");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = "";
  watchPicture(image, (text) => {
    item.classList.toggle("unseen", text !== "");
    state.textContent = text;
  });
  image.src = photo.src;
  open.append(image, state);
  if (photo.box) {
    const part = partOutline(image);
    part.outline(photo.box);
    open.classList.add("whole");
    open.append(part);
  }
  item.append(open);
  if (photo.similar) {
    const similar = element("button", "similar");
    similar.type = "button";
    similar.title = "More like this";
    similar.setAttribute("aria-label", "More like " + photo.name);
    similar.onclick = () => act.similar(photo);
    similar.append(icon(ICONS.similar));
    item.append(similar);
  }
  if (photo.stack?.length) item.append(stackButton(photo, item, act));
  const foot = element("div", "foot");
  foot.append(element("span", "name", photo.name));
  if (photo.note) foot.append(element("span", "note", photo.note));
  item.append(foot);
  return item;
}

// The near-identical photos of a stack, shown behind its first one while the button is pressed.
function stackButton(photo, item, act) {
  const button = element("button", "stack", "+" + photo.stack.length);
  button.type = "button";
  button.title = `${photo.stack.length} near-identical`;
  button.setAttribute("aria-label", `${button.title} to ${photo.name}`);
  button.setAttribute("aria-expanded", "false");
  const members = photo.stack.map((member) => {
    const made = tile(member, act);
    made.classList.add("member");
    return made;
  });
  button.onclick = () => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) members.forEach((member) => member.remove());
    else item.after(...members);
  };
  return button;
}

const RETRY_MS = 3_000;

// What of Streamlit's page is scrolled.
function mainOf(list) {
  const main = '[data-testid="stMain"]';
  return list.getRootNode().host?.closest(main) ?? list.closest(main);
}

// Another page begins at its first photo, other results begin at the top.
function moveTo(list, start, first) {
  if (!start || list.dataset.start === start) return;
  list.dataset.start = start;
  const main = mainOf(list);
  if (first) main?.scrollTo(0, 0);
  else holdAtTop(list, main);
}

const SETTLED_MS = 2_000;

// Scroll to the list, and stay there while what is above it is still being drawn, unless the visitor does something.
function holdAtTop(list, main) {
  const hold = () => list.scrollIntoView({ block: "start" });
  hold();
  if (!main) return;
  const observer = new ResizeObserver(hold);
  for (const part of main.children) observer.observe(part);
  const end = () => {
    observer.disconnect();
    for (const kind of ENDS_HOLD) removeEventListener(kind, end, true);
  };
  for (const kind of ENDS_HOLD) addEventListener(kind, end, true);
  list.endHold = end;
  setTimeout(end, SETTLED_MS);
}

const ENDS_HOLD = ["wheel", "pointerdown", "keydown", "touchstart"];

// The tiles of photos, with the line above the first one that is no longer alike.
function tilesOf(photos, data, act) {
  const similar = Boolean(data.viewer);
  return photos.flatMap((photo) => [...(photo.line ? [element("li", "line", photo.line)] : []), tile({ similar, ...photo }, act)]);
}

// The next photos, from the address that came with those before; one request at a time.
function loadMore(grid, list, act) {
  if (!grid.more) return Promise.resolve();
  const { more } = grid;
  const drawn = list.dataset.drawn;
  grid.loading ??= fetch(more)
    .then((answer) => {
      if (answer.ok) return answer.json();
      if (answer.status === 404) return { photos: [], more: null }; // the server does not know the search any more
      return Promise.reject(new Error(answer.status));
    })
    .then((batch) => {
      if (list.dataset.drawn !== drawn) return;
      grid.photos = [...grid.photos, ...batch.photos];
      grid.more = batch.more;
      list.append(...tilesOf(batch.photos, grid.data, act));
      markSelected(list, grid.data.selected);
    })
    .catch(() => new Promise((resolve) => setTimeout(resolve, RETRY_MS)))
    .finally(() => {
      grid.loading = null;
      watchEnd(grid, list, act);
    });
  return grid.loading;
}

// Ask for the next photos as the last ones come near the window.
function watchEnd(grid, list, act) {
  grid.watcher?.disconnect();
  if (!grid.more || !list.lastElementChild) return;
  grid.watcher = new IntersectionObserver(
    (entries) => entries.some((entry) => entry.isIntersecting) && loadMore(grid, list, act),
    { rootMargin: "0px 0px 1500px 0px", root: mainOf(list) },
  );
  grid.watcher.observe(list.lastElementChild);
}

// Back comes to the place that one left: how far a page is scrolled, and how many photos it has, are kept in its
// step of the history.
const PLACE_MS = 200; // after scrolling

function pageAddress() {
  const parameters = new URLSearchParams(location.search);
  parameters.delete("open");
  parameters.delete("library");
  return `${location.pathname}?${parameters}`;
}

function keepPlace(grid, list) {
  const main = mainOf(list);
  grid.address = pageAddress();
  if (!main || grid.forget) return;
  grid.savePlace = () => {
    if (viewer || grid.restoring || !list.isConnected || grid.address !== pageAddress()) return;
    history.replaceState({ ...history.state, place: { top: main.scrollTop, count: grid.photos.length } }, "");
  };
  let timer;
  const scrolled = () => {
    clearTimeout(timer);
    timer = setTimeout(grid.savePlace, PLACE_MS);
  };
  main.addEventListener("scroll", scrolled);
  grid.forget = () => main.removeEventListener("scroll", scrolled);
}

async function restorePlace(grid, list, act) {
  const place = history.state?.place;
  if (!place || grid.restoring) return;
  const { drawn } = list.dataset;
  grid.restoring = true;
  while (grid.more && grid.photos.length < place.count && list.isConnected && list.dataset.drawn === drawn) {
    await loadMore(grid, list, act);
  }
  grid.restoring = false;
  list.endHold?.();
  if (list.dataset.drawn === drawn) mainOf(list)?.scrollTo(0, place.top);
}

// Arrow keys go from photo to photo.
function pressedInGrid(event, list, grid, act) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const opens = [...list.querySelectorAll(".open")];
  const at = opens.indexOf(event.target.closest(".tile")?.querySelector(".open"));
  if (at < 0) return;
  const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const target = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns }[event.key];
  if (target !== undefined) opens[target]?.focus();
  else if (event.key === "s" && grid.data.viewer) act.similar({ id: Number(opens[at].dataset.photo) });
  else return;
  event.preventDefault();
  event.stopPropagation();
}

document.addEventListener("vs-photos", () => {
  for (const grid of allGrids) {
    const first = grid.root.isConnected && grid.root.querySelector(".open");
    if (first) return first.focus();
  }
});

// What the viewer knows of this grid; it lives as long as the grid's place on the page.
function gridOf(list) {
  if (!list.vsGrid) list.vsGrid = { root: list.getRootNode(), photos: [], data: {}, loadMore: async () => {} };
  return list.vsGrid;
}

// While photos are selected each one says whether it is; the tiles stay, so that the focus does.
function markSelected(list, selected) {
  const ids = new Set(selected ?? []);
  for (const open of list.querySelectorAll(".open")) {
    const marked = ids.has(Number(open.dataset.photo));
    if (selected) open.setAttribute("aria-pressed", String(marked));
    else open.removeAttribute("aria-pressed");
    open.closest(".tile").classList.toggle("selected", marked);
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const { start, first, opened, named, selected, ...shown } = data;
  const list = parentElement.querySelector(".grid");
  const grid = gridOf(list);
  const drawn = JSON.stringify(shown);
  Object.assign(grid, { data, root: parentElement, send: (name, value) => setTriggerValue(name, value) });
  const leaving = (action) => (photo) => {
    grid.savePlace?.();
    action(photo);
  };
  const act = {
    open: leaving((photo) =>
      shown.viewer && !grid.data.selected ? openPhoto(grid, photo) : grid.send("pick", photo.id),
    ),
    similar: leaving((photo) =>
      shown.elsewhere ? goTo("./", { photo: photo.id }, data.library) : grid.send("similar", photo.id),
    ),
    reconstruct: (photo) => goTo("reconstructions", { photo: photo.id }, data.library),
    explain: (photo) => goTo("match", { ...queryInAddress(), hit: photo.id, space: data.explained }, data.library),
  };
  grid.act = act;
  // A rerun that changes nothing leaves the pictures alone.
  if (list.dataset.drawn !== drawn) {
    list.replaceChildren(...tilesOf(shown.photos, shown, act));
    list.setAttribute("aria-label", shown.label);
    list.classList.toggle("small", Boolean(shown.small));
    list.dataset.drawn = drawn;
    grid.photos = shown.photos;
    grid.more = shown.more;
    grid.loading = null;
    watchEnd(grid, list, act);
  }
  grid.loadMore = () => loadMore(grid, list, act);
  markSelected(list, selected);
  const anew = list.dataset.start !== start;
  moveTo(list, start, first);
  if (start && shown.viewer) {
    keepPlace(grid, list);
    if (anew) restorePlace(grid, list, act);
  }
  list.onkeydown = (event) => pressedInGrid(event, list, grid, act);
  allGrids.add(grid);
  if (shown.viewer) followAddress();
  return () => {
    allGrids.delete(grid);
    grid.forget?.();
    grid.forget = null;
    if (viewer?.grid === grid) viewer = null;
  };
}

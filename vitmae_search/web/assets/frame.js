// What belongs to every page: keys, pictures that are pasted or dropped anywhere, pictures beside the grids that are
// fetched again, and the phone's menu.
const PICTURES = ".vs-query img";
const MENU_COVERS_PAGE = "(max-width: 768px)"; // Streamlit's own limit

const watched = new WeakSet();

function pictureFailed(event) {
  const image = event.target;
  if (!(image instanceof HTMLImageElement) || !image.matches(PICTURES) || watched.has(image)) return;
  watched.add(image);
  watchPicture(image, (text) => (image.parentElement.dataset.state = text))();
}

function closeMenu(event) {
  if (!event.target.closest?.('[data-testid="stSidebarNavLink"]') || !matchMedia(MENU_COVERS_PAGE).matches) return;
  // After Streamlit has seen the click.
  setTimeout(() => document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click());
}

// Keys -------------------------------------------------------------------------------------------------------

const PAGES = {
  s: "", b: "browse", m: "map", r: "reconstructions", i: "inside", l: "library", t: "training", p: "plugins",
};
const NEXT_KEY_MS = 1_500; // how long the second key of two may take
const KEYS = [
  ["On every page", [
    ["?", "this list"],
    ["g s", "go to Search; g b Browse, g m Map, g r Reconstructions, g l Library"],
    ["n", "new search"],
    ["p", "to the photos"],
    ["Ctrl + V", "search with a picture from the clipboard; or drop one anywhere"],
  ]],
  ["Among the photos", [
    ["← → ↑ ↓", "from photo to photo"],
    ["Enter", "open the photo"],
    ["s", "more like this"],
  ]],
  ["On the map", [
    ["← → ↑ ↓", "move"],
    ["+ − 0", "nearer, farther, all of it"],
    ["Enter", "open the photo in the middle"],
    ["v", "select what is in view"],
    ["Esc", "select nothing"],
  ]],
  ["An open photo", [
    ["← →", "the photo before, the next one"],
    ["Esc", "close it"],
    ["+ − 0", "zoom in, out, back"],
    ["i", "details"],
    ["s", "more like this"],
    ["m", "what the model sees"],
    ["w", "why it matched, in the results of a search"],
    ["d", "download the original"],
    ["c", "copy the path"],
    ["v", "play the video, at its frame"],
    ["f", "show in the file manager, at the machine itself"],
  ]],
];

let goes = 0; // when "g" was pressed

function isTyped(event) {
  const target = event.composedPath()[0];
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable], [role='combobox'], [role='slider']") !== null;
}

function follow(page) {
  const wanted = new URL(page || ".", document.baseURI).pathname;
  const links = [...document.querySelectorAll('[data-testid="stTopNavLink"], [data-testid="stSidebarNavLink"]')];
  links.find((link) => new URL(link.href).pathname.replace(/\/$/, "") === wanted.replace(/\/$/, ""))?.click();
}

// Of a page that is opened for the first time, the buttons come a moment after the photos.
const BUTTON_MS = 1_500;

function clickOnceThere(selector, until = performance.now() + BUTTON_MS) {
  const button = document.querySelector(selector);
  if (button) button.click();
  else if (performance.now() < until) requestAnimationFrame(() => clickOnceThere(selector, until));
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyped(event)) return;
  const second = event.timeStamp - goes < NEXT_KEY_MS;
  goes = 0;
  if (event.key === "?") showKeys();
  else if (second && event.key in PAGES) follow(PAGES[event.key]);
  else if (document.querySelector('[role="dialog"]')) return;
  else if (event.key === "g") goes = event.timeStamp;
  else if (event.key === "n") clickOnceThere(".st-key-vs_new button");
  else if (event.key === "p") document.dispatchEvent(new CustomEvent("vs-photos"));
  else return;
  event.preventDefault();
  event.stopPropagation(); // Streamlit has keys of its own
}

let frame = null; // where the list of keys and messages are drawn

function showKeys() {
  if (frame.querySelector(".vs-keys")) return;
  const dialog = document.createElement("dialog");
  dialog.className = "vs-keys";
  dialog.setAttribute("aria-label", "Keys");
  const add = (parent, tag, text) => {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    parent.append(node);
    return node;
  };
  const close = add(add(dialog, "header"), "button", "×");
  close.setAttribute("aria-label", "Close");
  close.onclick = () => dialog.close();
  for (const [title, keys] of KEYS) {
    const part = add(dialog, "section");
    add(part, "h2", title);
    const list = add(part, "dl");
    for (const [key, text] of keys) {
      add(add(list, "dt"), "kbd", key);
      add(list, "dd", text);
    }
  }
  dialog.onclick = (event) => event.target === dialog && dialog.close();
  dialog.onkeydown = (event) => event.stopPropagation();
  dialog.onclose = () => dialog.remove();
  frame.append(dialog);
  dialog.showModal();
}

// Pictures from the clipboard or another window --------------------------------------------------------------

let said = null;

function say(text) {
  said.textContent = text;
  said.hidden = !text;
}

function pictureOf(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files.find((file) => !file.type) ?? null;
}

async function searchWith(file, stays = /\/reconstructions\/?$/.test(location.pathname)) { // with what is hidden
  say("Sending the picture…");
  try {
    const answer = await fetch("upload?" + new URLSearchParams({ name: file.name || "pasted picture" }), { method: "POST", body: file });
    if (!answer.ok) throw new Error(await answer.text());
    const { token } = await answer.json();
    const parameters = new URLSearchParams(stays ? location.search : "");
    for (const name of ["photo", "library", "open", "page"]) parameters.delete(name);
    parameters.set("upload", token);
    history.pushState({}, "", `${stays ? location.pathname : new URL(".", document.baseURI).pathname}?${parameters}`);
    window.dispatchEvent(new PopStateEvent("popstate", { state: {} })); // Streamlit then runs the page of this address
    say("");
  } catch (error) {
    say(error instanceof TypeError ? "The picture could not be sent." : error.message);
    setTimeout(() => say(""), 6_000);
  }
}

const overUploader = (event) => event.target.closest?.('[data-testid="stFileUploaderDropzone"], [data-testid="stFileUploader"]');
const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

function pasted(event) {
  const file = pictureOf(event.clipboardData);
  if (!file) return;
  event.preventDefault();
  searchWith(file);
}

function dragged(event) {
  if (!hasFiles(event)) return;
  if (overUploader(event)) return say("");
  event.preventDefault();
  say("Drop the picture to search with it");
}

function dropped(event) {
  if (!hasFiles(event)) return say("");
  const file = pictureOf(event.dataTransfer);
  const field = overUploader(event);
  if (field && !file) return say(""); // Streamlit says which files it takes
  event.preventDefault();
  if (field) event.stopImmediatePropagation();
  if (file) searchWith(file, ...(field ? [true] : []));
  else say("");
}

// A file that is chosen goes the same way: Streamlit's own needs the server that has the page.
function chosen(event) {
  const file = event.target.matches?.('.st-key-vs_upload input[type="file"]') && event.target.files[0];
  if (!file) return;
  event.stopImmediatePropagation();
  searchWith(file, true);
}

// The chosen library, for a page that is opened or loaded again without its name in the address. Browsers keep one set
// of cookies for all ports.
function keepLibrary({ name, identity }) {
  const port = location.port ? `_${location.port}` : "";
  document.cookie = `${name}${port}=${identity}; path=/; max-age=31536000; samesite=strict`;
}

export default function ({ parentElement, data }) {
  if (data?.library?.identity) keepLibrary(data.library);
  frame = parentElement.querySelector(".frame");
  if (!frame.childElementCount) {
    said = document.createElement("div");
    said.className = "vs-said";
    said.setAttribute("role", "status");
    said.hidden = true;
    const open = document.createElement("button");
    open.className = "vs-open-keys";
    open.textContent = "?";
    open.title = "Keys (?)";
    open.setAttribute("aria-label", "Keys");
    open.onclick = showKeys;
    frame.append(said, open);
  }
  if (document.documentElement.dataset.vsFrame) return;
  document.documentElement.dataset.vsFrame = "on";
  document.addEventListener("error", pictureFailed, true);
  document.addEventListener("click", closeMenu, true);
  document.addEventListener("keydown", pressed);
  document.addEventListener("paste", pasted);
  document.addEventListener("dragover", dragged);
  document.addEventListener("dragleave", (event) => !event.relatedTarget && say(""));
  document.addEventListener("drop", dropped, true);
  document.addEventListener("change", chosen, true);
}

// A grid of photos. Names arrive as data and are only ever set as text.
const ICONS = {
  similar: "M15.5 14h-.8l-.3-.3a6.5 6.5 0 1 0-.7.7l.3.3v.8l5 5 1.5-1.5-5-5zm-6 0a4.5 4.5 0 1 1 0-9 4.5 4.5 0 0 1 0 9z",
};

let openedHere = false; // whether the step of the history before an open photo is known to be this page

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

function element(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function tile(photo, send) {
  const item = element("li", "tile");
  const open = element("button", "open");
  open.type = "button";
  open.title = photo.name;
  open.dataset.photo = photo.id;
  open.setAttribute("aria-label", photo.label);
  open.onclick = () => {
    openedHere = !open.hasAttribute("aria-pressed");
    send("open", photo.id);
  };
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
  item.append(open);
  if (photo.similar) {
    const similar = element("button", "similar");
    similar.type = "button";
    similar.title = "More like this";
    similar.setAttribute("aria-label", "More like " + photo.name);
    similar.onclick = () => send("similar", photo.id);
    similar.append(icon(ICONS.similar));
    item.append(similar);
  }
  if (photo.stack?.length) item.append(stackButton(photo, item, send));
  const foot = element("div", "foot");
  foot.append(element("span", "name", photo.name));
  if (photo.note) foot.append(element("span", "note", photo.note));
  item.append(foot);
  return item;
}

// The near-identical photos of a stack, shown behind its first one while the button is pressed.
function stackButton(photo, item, send) {
  const button = element("button", "stack", "+" + photo.stack.length);
  button.type = "button";
  button.title = `${photo.stack.length} near-identical`;
  button.setAttribute("aria-label", `${button.title} to ${photo.name}`);
  button.setAttribute("aria-expanded", "false");
  const members = photo.stack.map((member) => {
    const made = tile(member, send);
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

// Another page begins at its first photo, other results begin at the top.
function moveTo(list, start, first) {
  if (!start || list.dataset.start === start) return;
  list.dataset.start = start;
  const main = list.getRootNode().host?.closest('[data-testid="stMain"]') ?? list.closest('[data-testid="stMain"]');
  if (first) main?.scrollTo(0, 0);
  else list.scrollIntoView({ block: "start" });
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
  const { leave, start, first, selected, ...shown } = data;
  const list = parentElement.querySelector(".grid");
  const drawn = JSON.stringify(shown);
  // A rerun that changes nothing leaves the pictures alone.
  if (list.dataset.drawn !== drawn) {
    const send = (name, id) => setTriggerValue(name, id);
    const tiles = (photo) => [...(photo.line ? [element("li", "line", photo.line)] : []), tile(photo, send)];
    list.replaceChildren(...shown.photos.flatMap(tiles));
    list.setAttribute("aria-label", shown.label);
    list.classList.toggle("small", Boolean(shown.small));
    list.dataset.drawn = drawn;
  }
  markSelected(list, selected);
  moveTo(list, start, first);
  if (leave && new URLSearchParams(location.search).has("open")) {
    if (openedHere) history.back();
    else setTriggerValue("leave", true);
  }
}

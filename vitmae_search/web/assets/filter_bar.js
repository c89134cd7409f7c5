// Filters as chips, and the lists that they are chosen from. The lists come with their counts from `counts/KIND`, and
// only when they are opened. A choice is sent as parameters of the page's address, null for one that goes.
// Names arrive as data and are only ever set as text.
const CHIP_ICONS = {
  close: "M19 6.4 17.6 5 12 10.6 6.4 5 5 6.4l5.6 5.6L5 17.6 6.4 19l5.6-5.6 5.6 5.6 1.4-1.4-5.6-5.6z",
  down: "M7.4 8.6 12 13.2l4.6-4.6L18 10l-6 6-6-6z",
};
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

const number = (count) => count.toLocaleString("en");

async function counts(data, kind, inside) {
  const parameters = new URLSearchParams(data.query);
  if (inside !== undefined) parameters.set("inside", inside);
  const answer = await fetch(`counts/${kind}?${parameters}`).catch(() => null);
  return answer?.ok ? answer.json() : null;
}

// One line of a list: what it is, and how many.
function choice(text, count, chosen, choose) {
  const button = element("button", "choice");
  button.type = "button";
  button.setAttribute("aria-pressed", String(chosen));
  button.append(element("span", "what", text));
  if (count !== undefined) button.append(element("span", "count", number(count)));
  button.onclick = choose;
  return button;
}

// Lists ------------------------------------------------------------------------------------------------------

async function listOf(facet, data, send) {
  if (facet.kind === "sort") return facet.options.map(([value, text]) => choice(text, undefined, value === facet.value, () => send({ sort: value })));
  if (facet.kind === "folder") return folders(facet, data, send);
  if (facet.kind === "place") return placeChoices(facet, data, send, await counts(data, "place"));
  const found = await counts(data, facet.kind);
  if (found === null) return [element("p", "hint", "The list could not be read. Open it again in a while.")];
  if (facet.kind === "month") return dates(found, facet, send);
  if (!found.length) return [element("p", "hint", "No photo says so.")];
  return found.map(([value, text, count]) => choice(text, count, value === facet.value, () => send({ [facet.name]: value })));
}

async function folders(facet, data, send, inside) {
  const found = await counts(data, "folder", inside);
  if (found === null) return [element("p", "hint", "The folders could not be read. Open them again in a while.")];
  const nodes = await Promise.all(found.map((folder) => folderNode(folder, facet, data, send, found.length === 1 && inside === undefined)));
  return nodes;
}

async function folderNode([path, name, count, hasMore, separator], facet, data, send, open) {
  const node = element("div", "folder");
  const line = element("div", "line");
  const toggle = element("button", "toggle");
  toggle.type = "button";
  toggle.append(icon(CHIP_ICONS.down));
  toggle.disabled = !hasMore;
  toggle.setAttribute("aria-label", "Folders in " + name);
  const below = element("div", "below");
  const show = async (on) => {
    toggle.setAttribute("aria-expanded", String(on));
    below.hidden = !on;
    if (on && !below.childElementCount) below.replaceChildren(...(await folders(facet, data, send, path)));
  };
  toggle.onclick = () => show(toggle.getAttribute("aria-expanded") !== "true");
  line.append(toggle, choice(name, count, facet.value === path, () => send({ under: facet.value === path ? null : path })));
  node.append(line, below);
  await show(hasMore && (open || Boolean(facet.value?.startsWith(path + separator))));
  return node;
}

function dates(months, facet, send) {
  const years = new Map();
  for (const [month, , count] of months) {
    const year = month.slice(0, 4);
    years.set(year, [...(years.get(year) ?? []), [month, count]]);
  }
  const span = (after, before) => () => send(facet.value === `${after} ${before}` ? { after: null, before: null } : { after, before });
  const nodes = facet.presets.map(([days, text]) => choice(text, undefined, facet.value === days + " ", () => send({ after: days, before: null })));
  const highest = Math.max(...months.map(([, , count]) => count), 1);
  for (const [year, found] of [...years].reverse()) {
    const total = found.reduce((sum, [, count]) => sum + count, 0);
    const [first, last] = [`${year}-01-01`, `${year}-12-31`];
    const node = element("div", "year");
    node.append(choice(year, total, facet.value === `${first} ${last}`, span(first, last)));
    const row = element("div", "months");
    for (let month = 1; month <= 12; month++) {
      const text = `${year}-${String(month).padStart(2, "0")}`;
      const count = found.find(([value]) => value === text)?.[1] ?? 0;
      const [from, to] = [`${text}-01`, `${text}-${new Date(Date.UTC(Number(year), month, 0)).getUTCDate()}`];
      const button = element("button", "bar-month");
      button.type = "button";
      button.disabled = !count;
      button.title = `${MONTHS[month - 1]} ${year}: ${number(count)}`;
      button.setAttribute("aria-label", button.title);
      button.setAttribute("aria-pressed", String(facet.value === `${from} ${to}`));
      const bar = element("i", "");
      bar.style.height = `${count ? 12 + 88 * (count / highest) : 0}%`;
      button.append(bar, element("span", "", MONTHS[month - 1][0]));
      button.onclick = span(from, to);
      row.append(button);
    }
    node.append(row);
    nodes.push(node);
  }
  return nodes;
}

// The bar of chips -------------------------------------------------------------------------------------------

function chip(facet, data, send) {
  const node = element("div", "chip");
  node.classList.toggle("on", Boolean(facet.text && facet.clear));
  const button = element("button", "open");
  button.type = "button";
  button.append(element("span", "what", facet.text ?? facet.title));
  if (facet.text) button.title = `${facet.title}: ${facet.text}`;
  node.append(button);
  if (facet.kind) {
    button.append(icon(CHIP_ICONS.down));
    button.setAttribute("aria-haspopup", "true");
    button.onclick = () => openMenu(button, facet, data, send);
  } else button.disabled = true;
  if (facet.text && facet.clear) {
    const remove = element("button", "remove");
    remove.type = "button";
    remove.title = "Remove this filter";
    remove.setAttribute("aria-label", `Remove the filter ${facet.text}`);
    remove.append(icon(CHIP_ICONS.close));
    remove.onclick = () => send(Object.fromEntries(facet.clear.map((name) => [name, null])));
    node.append(remove);
  }
  return node;
}

async function openMenu(button, facet, data, send) {
  const root = button.getRootNode();
  const menu = element("div", `menu ${facet.kind}`);
  menu.popover = "auto";
  menu.setAttribute("role", "dialog");
  menu.setAttribute("aria-label", facet.title);
  menu.append(element("p", "hint", "Counting…"));
  (root.querySelector(".bar") ?? button).after(menu);
  menu.ontoggle = (event) => event.newState === "closed" && menu.remove();
  menu.onkeydown = (event) => event.key !== "Tab" && event.stopPropagation();
  menu.showPopover();
  const box = button.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${box.bottom + 6}px`;
  menu.style.maxHeight = `${Math.max(180, innerHeight - box.bottom - 20)}px`;
  menu.replaceChildren(...(await listOf(facet, data, (change) => (menu.hidePopover(), send(change)))));
  menu.querySelector("button:not(:disabled)")?.focus();
}

function drawBar(bar, data, send) {
  const chips = data.facets.map((facet) => chip(facet, data, send));
  if (data.clear.length) {
    const clear = element("button", "clear", "Clear all");
    clear.type = "button";
    clear.onclick = () => send(Object.fromEntries(data.clear.map((name) => [name, null])));
    chips.push(clear);
  }
  bar.replaceChildren(...chips);
  bar.setAttribute("aria-label", data.label);
}

// The photos come first: on two cores counting would hold them up.
const MOST_WAIT_MS = 1_500;

async function photosShown() {
  const end = performance.now() + MOST_WAIT_MS;
  const later = () => new Promise((resolve) => setTimeout(resolve, 50));
  const pictures = () =>
    [...document.querySelectorAll("*")].flatMap((node) => [...(node.shadowRoot?.querySelectorAll(".grid img") ?? [])]);
  const onItsWay = (picture) => !picture.complete && picture.getBoundingClientRect().top < innerHeight;
  await later();
  while (performance.now() < end && pictures().some(onItsWay)) await later();
}

async function drawRail(bar, data, send) {
  const { drawn } = bar.dataset;
  await photosShown();
  if (bar.dataset.drawn !== drawn) return; // another one is under way
  const parts = await Promise.all(
    data.facets.map(async (facet) => {
      const part = element("section", "part");
      part.append(element("h2", "", facet.title), ...(await listOf(facet, data, send)));
      return part;
    }),
  );
  bar.replaceChildren(...parts);
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const bar = parentElement.querySelector(".bar");
  const drawn = JSON.stringify(data);
  if (bar.dataset.drawn === drawn) return;
  bar.dataset.drawn = drawn;
  bar.classList.toggle("rail", data.rail);
  const send = (change) => setTriggerValue("change", change);
  if (data.rail) drawRail(bar, data, send);
  else drawBar(bar, data, send);
}

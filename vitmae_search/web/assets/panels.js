// A reconstruction: the completed photo, and the raw panels. Squares of the painted one are tapped, or painted
// over, to hide or show them.

function picture(panel) {
  const image = element("img", "");
  image.src = panel.src;
  image.alt = panel.alt;
  return image;
}

// Buttons over the picture, one a square. A stroke gives every square that it crosses the state of its first.
function squares(data, send) {
  const board = element("div", "board");
  board.style.gridTemplateColumns = `repeat(${data.columns}, 1fr)`;
  const cells = data.mask.map((hidden, i) => {
    const cell = element("button", "cell");
    cell.type = "button";
    cell.dataset.index = i;
    const row = Math.floor(i / data.columns) + 1;
    cell.setAttribute("aria-label", `Hide square ${row}, ${(i % data.columns) + 1}`);
    cell.setAttribute("aria-pressed", String(Boolean(hidden)));
    return cell;
  });
  board.append(...cells);

  let state = null;
  const set = (cell) => cell.setAttribute("aria-pressed", state);
  const toggled = (cell) => (cell.getAttribute("aria-pressed") === "true" ? "false" : "true");
  const done = () => {
    if (state === null) return;
    state = null;
    send(cells.filter((cell) => cell.getAttribute("aria-pressed") === "true").map((cell) => Number(cell.dataset.index)));
  };
  const under = (event) => {
    const found = board.getRootNode().elementFromPoint(event.clientX, event.clientY);
    return found && found.classList.contains("cell") && board.contains(found) ? found : null;
  };
  board.onpointerdown = (event) => {
    const cell = under(event);
    if (!cell || event.button !== 0) return;
    event.preventDefault();
    board.setPointerCapture(event.pointerId);
    state = toggled(cell);
    set(cell);
  };
  board.onpointermove = (event) => {
    const cell = state === null ? null : under(event);
    if (cell) set(cell);
  };
  board.onpointerup = done;
  board.onpointercancel = done;
  board.onkeydown = (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    state = toggled(event.target);
    set(event.target);
    done();
  };
  return board;
}

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const row = parentElement.querySelector(".panels");
  const drawn = JSON.stringify(data);
  if (row.dataset.drawn === drawn) return;
  row.dataset.drawn = drawn;
  const focused = row.getRootNode().activeElement?.dataset?.index;
  row.replaceChildren(
    ...data.panels.map((panel) => {
      const figure = element("figure", panel.kind);
      const frame = element("div", "frame");
      frame.append(picture(panel));
      if (panel.kind === "painted") frame.append(squares(data, (hidden) => setStateValue("hidden", hidden)));
      const caption = element("figcaption", "");
      caption.append(element("b", "", panel.title), element("span", "", panel.text));
      figure.append(frame, caption);
      return figure;
    }),
  );
  if (focused !== undefined) row.querySelector(`.cell[data-index="${focused}"]`)?.focus({ preventScroll: true });
}

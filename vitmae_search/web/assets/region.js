// A box on the query's picture: drawn with the mouse, a finger or a pen, moved by what is inside it, resized by its
// corners; with the keyboard, arrows move it, with Shift they resize it, and Enter searches.
const STEP = 0.02; // of the picture's side, for a key
const LEAST = 0.05; // least side of a box
const CORNERS = ["nw", "ne", "sw", "se"];

const within = (value, low, high) => Math.min(high, Math.max(low, value));
const same = (one, other) => one.every((value, i) => Math.abs(value - other[i]) < 1e-4);

// A box of at least LEAST on each side, inside the picture.
function settled([left, top, width, height]) {
  const [w, h] = [within(width, LEAST, 1), within(height, LEAST, 1)];
  return [within(left, 0, 1 - w), within(top, 0, 1 - h), w, h];
}

function place(board, box) {
  const [left, top, width, height] = box.map((share) => `${100 * share}%`);
  Object.assign(board.box.style, { left, top, width, height });
  board.drawn = box;
}

// What a stroke from one point to another makes of the box that was there when it began.
function stroked(stroke, [x, y]) {
  const { kind, from, before } = stroke;
  const [left, top, width, height] = before;
  if (kind === "move") return settled([left + x - from[0], top + y - from[1], width, height]);
  const fixed = {
    draw: from,
    nw: [left + width, top + height],
    ne: [left, top + height],
    sw: [left + width, top],
    se: [left, top],
  }[kind];
  return [Math.min(x, fixed[0]), Math.min(y, fixed[1]), Math.abs(x - fixed[0]), Math.abs(y - fixed[1])];
}

function board(data, send) {
  const root = element("div", "board");
  const image = element("img", "");
  image.alt = `The picture that is searched with: ${data.name}`;
  image.src = data.src;
  image.draggable = false;
  const box = element("div", "box");
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-roledescription", "box on the picture");
  box.setAttribute("aria-label", "The part to search for. Arrow keys move it, with Shift they resize it, Enter searches.");
  box.append(...CORNERS.map((corner) => {
    const handle = element("span", `corner ${corner}`);
    handle.dataset.corner = corner;
    return handle;
  }));
  root.append(image, box);
  const made = { root, box, send };
  let stroke = null;

  // The page's box. It does not end a stroke: what is being drawn comes after it.
  made.show = ({ box: wanted, searched }) => {
    made.sent = searched ? wanted : null;
    if (!stroke) place(made, wanted);
  };
  made.show(data);

  const finish = () => {
    place(made, settled(made.drawn));
    if (made.sent && same(made.sent, made.drawn)) return;
    made.sent = made.drawn;
    made.send(made.drawn.map((value) => Math.round(value * 1e4) / 1e4));
  };
  const at = (event) => {
    const area = root.getBoundingClientRect();
    return [within((event.clientX - area.left) / area.width, 0, 1), within((event.clientY - area.top) / area.height, 0, 1)];
  };
  const cancel = () => {
    if (stroke) place(made, stroke.before);
    stroke = null;
  };
  root.onpointerdown = (event) => {
    if (stroke) return cancel(); // a second finger: the first one did not mean to draw
    if (event.button !== 0) return;
    event.preventDefault();
    const corner = event.target.dataset?.corner;
    const kind = corner ?? (event.target === box ? "move" : "draw");
    stroke = { kind, from: at(event), before: made.drawn, id: event.pointerId, moved: false };
    root.setPointerCapture(event.pointerId);
    box.focus({ preventScroll: true });
  };
  root.onpointermove = (event) => {
    if (stroke?.id !== event.pointerId) return;
    const to = at(event);
    stroke.moved ||= Math.hypot(to[0] - stroke.from[0], to[1] - stroke.from[1]) > 0.01;
    if (stroke.moved) place(made, stroked(stroke, to));
  };
  root.onpointerup = (event) => {
    if (stroke?.id !== event.pointerId) return;
    const { moved } = stroke;
    stroke = null;
    if (moved) finish();
  };
  root.onpointercancel = cancel;
  box.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    const [left, top, width, height] = made.drawn;
    if (by) {
      const wide = within(width + by[0], LEAST, 1 - left);
      const high = within(height + by[1], LEAST, 1 - top);
      place(made, event.shiftKey ? [left, top, wide, high] : settled([left + by[0], top + by[1], width, height]));
    } else if (event.key === "Enter") finish();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return made;
}

const boards = new WeakMap();

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".region");
  const drawn = JSON.stringify(data);
  if (root.dataset.drawn === drawn) return;
  root.dataset.drawn = drawn;
  const send = (box) => setTriggerValue("box", box);
  const kept = boards.get(root);
  if (kept && kept.picture === data.src) {
    kept.send = send;
    kept.show(data);
    return;
  }
  const made = Object.assign(board(data, send), { picture: data.src });
  boards.set(root, made);
  root.replaceChildren(made.root);
}

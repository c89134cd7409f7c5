// A frame around the part of a photo that was found, over an image that shows the whole photo (`object-fit: contain`).
// `outline([left, top, width, height])` are shares of its sides; nothing hides the frame.
function partOutline(image) {
  const part = svgElement("svg", { class: "part", preserveAspectRatio: "xMidYMid meet", "aria-hidden": "true" });
  const frames = ["outer", "inner"].map((name) => svgElement("rect", { class: name }));
  part.append(...frames);
  let box = null;
  const place = () => {
    const [wide, high] = [image.naturalWidth, image.naturalHeight];
    part.classList.toggle("placed", Boolean(box && wide));
    if (!box || !wide) return;
    const [left, top, width, height] = box;
    part.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    const at = { x: left * wide, y: top * high, width: width * wide, height: height * high };
    for (const frame of frames) for (const [name, value] of Object.entries(at)) frame.setAttribute(name, value);
  };
  image.addEventListener("load", place);
  part.outline = (found) => {
    box = found ?? null;
    place();
  };
  return part;
}

// The points of a map: reading them, finding them by their place, and drawing them, with WebGL or without.
const LOW = -0.5, WIDTH = 2; // the range of the coordinates that are sent
const CELLS = 128; // of the grid by which points are found, along each side
const NO_GROUP = 255;
const NO_COLOR = [136, 136, 136];
const MOST_WITHOUT_WEBGL = 20_000; // points that are drawn

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

class Points {
  constructor(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    Object.assign(this, JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))));
    const at = 4 + length;
    this.ids = new Uint32Array(buffer, at, this.count);
    this.places = new Uint16Array(buffer, at + 4 * this.count, 2 * this.count);
    this.groups = new Uint8Array(buffer, at + 8 * this.count, this.count);
    this.sort();
  }

  x(i) {
    return LOW + (this.places[2 * i] * WIDTH) / 65535;
  }

  y(i) {
    return LOW + (this.places[2 * i + 1] * WIDTH) / 65535;
  }

  // Points by the cells of a grid: those of cell c are order[starts[c]] to order[starts[c + 1] - 1].
  sort() {
    const shift = 65536 / CELLS;
    const cell = (i) => Math.floor(this.places[2 * i + 1] / shift) * CELLS + Math.floor(this.places[2 * i] / shift);
    this.starts = new Uint32Array(CELLS * CELLS + 1);
    for (let i = 0; i < this.count; i++) this.starts[cell(i) + 1]++;
    for (let c = 0; c < CELLS * CELLS; c++) this.starts[c + 1] += this.starts[c];
    const next = this.starts.slice();
    this.order = new Uint32Array(this.count);
    for (let i = 0; i < this.count; i++) this.order[next[cell(i)]++] = i;
  }

  // The points in a rectangle, at most `most` of them.
  within(x0, y0, x1, y1, most = Infinity) {
    const found = [];
    const at = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(((value - LOW) / WIDTH) * CELLS)));
    for (let row = at(y0); row <= at(y1); row++) {
      const [first, last] = [this.starts[row * CELLS + at(x0)], this.starts[row * CELLS + at(x1) + 1]];
      for (let n = first; n < last; n++) {
        const i = this.order[n];
        const [x, y] = [this.x(i), this.y(i)];
        if (x < x0 || x > x1 || y < y0 || y > y1) continue;
        if (found.push(i) >= most) return found;
      }
    }
    return found;
  }

  // The points nearest to a place, the nearest first.
  nearest(x, y, radius, most) {
    const distance = (i) => Math.hypot(this.x(i) - x, this.y(i) - y);
    return this.within(x - radius, y - radius, x + radius, y + radius)
      .map((i) => [distance(i), i])
      .filter(([far]) => far <= radius)
      .sort((a, b) => a[0] - b[0])
      .slice(0, most)
      .map(([, i]) => i);
  }

  inPolygon(corners) {
    const inside = new Uint8Array(this.count);
    const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)];
    for (const i of this.within(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys))) {
      const [x, y] = [this.x(i), this.y(i)];
      let odd = 0;
      for (let a = 0, b = corners.length - 1; a < corners.length; b = a++) {
        const [x1, y1] = corners[b];
        const [x2, y2] = corners[a];
        if (y1 > y !== y2 > y && x < x1 + ((x2 - x1) * (y - y1)) / (y2 - y1)) odd ^= 1;
      }
      inside[i] = odd;
    }
    return inside;
  }

  // (N, 4) bytes: the colour of each point; those that are not `chosen` are faint.
  colors(chosen) {
    const palette = this.legend.map(({ color }) => channels(color));
    const colors = new Uint8Array(4 * this.count);
    for (let i = 0; i < this.count; i++) {
      const group = this.groups[i];
      const [r, g, b] = group === NO_GROUP ? NO_COLOR : palette[group];
      colors.set([r, g, b, chosen(i, group) ? 215 : 28], 4 * i);
    }
    return colors;
  }
}

const VERTEX = `
attribute vec2 place; attribute vec4 color; uniform vec2 center; uniform vec2 scale; uniform float size; varying vec4 shown;
void main() {
  gl_Position = vec4((place * ${WIDTH.toFixed(1)} + ${LOW.toFixed(1)} - center) * scale, 0.0, 1.0);
  gl_PointSize = size; shown = vec4(color.rgb * color.a, color.a);
}`;
const FRAGMENT = `
precision mediump float; varying vec4 shown; uniform float round;
void main() {
  vec2 from = gl_PointCoord - 0.5;
  if (round > 0.5 && dot(from, from) > 0.25) discard;
  gl_FragColor = shown;
}`;

// Draws with WebGL 1. Throws where there is none.
class WebGLDrawing {
  constructor(canvas) {
    const gl = (this.gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true }));
    if (!gl) throw new Error("no WebGL");
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error("no WebGL");
    gl.useProgram(program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.uniforms = Object.fromEntries(["center", "scale", "size", "round"].map((name) => [name, gl.getUniformLocation(program, name)]));
    this.attributes = ["place", "color"].map((name) => gl.getAttribLocation(program, name));
    this.buffers = [gl.createBuffer(), gl.createBuffer()];
  }

  load(points, colors) {
    const { gl } = this;
    this.count = points.count;
    const kinds = [[points.places, 2, gl.UNSIGNED_SHORT], [colors, 4, gl.UNSIGNED_BYTE]];
    kinds.forEach(([data, size, kind], i) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[i]);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(this.attributes[i]);
      gl.vertexAttribPointer(this.attributes[i], size, kind, true, 0, 0);
    });
  }

  // `view` is {x, y, scale}: the place in the middle, and pixels for each unit.
  draw(view, width, height, size) {
    const { gl, uniforms } = this;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(uniforms.center, view.x, view.y);
    gl.uniform2f(uniforms.scale, (2 * view.scale) / width, (2 * view.scale) / height);
    gl.uniform1f(uniforms.size, size);
    gl.uniform1f(uniforms.round, size > 4 ? 1 : 0);
    gl.drawArrays(gl.POINTS, 0, this.count);
    return this.count;
  }
}

// Draws without WebGL: of many points some.
class CanvasDrawing {
  constructor(canvas) {
    this.context = canvas.getContext("2d");
  }

  load(points, colors) {
    this.points = points;
    this.step = Math.max(1, Math.ceil(points.count / MOST_WITHOUT_WEBGL));
    this.styles = new Map();
    for (let i = 0; i < points.count; i += this.step) {
      const [r, g, b, a] = colors.subarray(4 * i, 4 * i + 4);
      const style = `rgba(${r}, ${g}, ${b}, ${(a / 255).toFixed(2)})`;
      if (!this.styles.has(style)) this.styles.set(style, []);
      this.styles.get(style).push(i);
    }
  }

  draw(view, width, height, size) {
    const { context, points } = this;
    context.clearRect(0, 0, width, height);
    let drawn = 0;
    for (const [style, members] of this.styles) {
      context.fillStyle = style;
      for (const i of members) {
        const x = width / 2 + (points.x(i) - view.x) * view.scale;
        const y = height / 2 - (points.y(i) - view.y) * view.scale;
        if (x < -size || y < -size || x > width + size || y > height + size) continue;
        context.fillRect(x - size / 2, y - size / 2, size, size);
        drawn++;
      }
    }
    return drawn;
  }
}

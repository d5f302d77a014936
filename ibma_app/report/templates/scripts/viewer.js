/* Viewers of the maps that lie in the page. Without them the page reads as it stands. Blocks are packed by report/figures/embed.py, configurations by report/figures/viewer.py. */
const NONE = -32768;
const PLANES = [ // axes to the right and up, axis through; what each edge is
  { right: 1, up: 2, through: 0, name: "x", left: "P", rightmost: "A" },
  { right: 0, up: 2, through: 1, name: "y", left: "L", rightmost: "R" },
  { right: 0, up: 1, through: 2, name: "z", left: "L", rightmost: "R" },
];
const PALEST = 0.35; // where colours begin at a threshold, as in report/figures/picture.py
const MASK_GREY = [128, 135, 144, 70]; // of the mask where there is no template, as in the still pictures
const viewers = new Map(); // element -> its Viewer, or the promise of it

/* ---- blocks ---- */

const unpacked = new Map(); // id -> promise of its bytes

function unpack(id) {
  if (!unpacked.has(id)) {
    const text = document.getElementById(id).textContent;
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    unpacked.set(id, new Response(stream).arrayBuffer().then((content) => new Uint8Array(content)));
  }
  return unpacked.get(id);
}

function readCodes(bytes) {
  const n = bytes.length / 2, codes = new Int16Array(n);
  for (let v = 0, last = 0; v < n; v++) {
    const zigzag = (bytes[v] << 8) | bytes[n + v];
    codes[v] = last + ((zigzag >>> 1) ^ -(zigzag & 1)); // wraps, as the writer's differences do
    last = codes[v];
  }
  return codes;
}

function readBits(bytes, n) {
  const flags = new Uint8Array(n);
  for (let v = 0; v < n; v++) flags[v] = (bytes[v >> 3] >> (7 - (v & 7))) & 1;
  return flags;
}

async function readMap(part) {
  const codes = readCodes(await unpack(part.block));
  const read = part.unit === null ? (v) => part.step * codes[v]
    : (v) => (codes[v] === NONE ? null : part.unit * Math.exp(part.step * codes[v]));
  return { ...part, codes, read };
}

/* ---- geometry: affines are three rows of four ---- */

const apply = (m, p) => m.map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2] + row[3]);

function invert(m) {
  const [[a, b, c, p], [d, e, f, q], [g, h, i, r]] = m;
  const det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  const rows = [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((one) => one / det));
  return rows.map((row) => [...row, -(row[0] * p + row[1] * q + row[2] * r)]);
}

/* Paint one slice of a volume: colour(raveled voxel, pixels, offset) for each pixel of size step inside the box. */
function paint(volume, config, plane, at, steps, colour) {
  const { right, up, through } = plane;
  const width = Math.max(1, Math.round((config.high[right] - config.low[right]) / steps[right]));
  const height = Math.max(1, Math.round((config.high[up] - config.low[up]) / steps[up]));
  const image = new ImageData(width, height), [X, Y, Z] = volume.shape, m = volume.inverse;
  const point = [0, 0, 0];
  point[through] = at[through];
  for (let row = 0; row < height; row++) {
    point[up] = config.high[up] - (row + 0.5) * steps[up];
    for (let column = 0; column < width; column++) {
      point[right] = config.low[right] + (column + 0.5) * steps[right];
      const i = Math.round(m[0][0] * point[0] + m[0][1] * point[1] + m[0][2] * point[2] + m[0][3]);
      const j = Math.round(m[1][0] * point[0] + m[1][1] * point[1] + m[1][2] * point[2] + m[1][3]);
      const k = Math.round(m[2][0] * point[0] + m[2][1] * point[1] + m[2][2] * point[2] + m[2][3]);
      if (i < 0 || j < 0 || k < 0 || i >= X || j >= Y || k >= Z) continue;
      colour((i * Y + j) * Z + k, image.data, 4 * (row * width + column));
    }
  }
  const sheet = document.createElement("canvas");
  sheet.width = width;
  sheet.height = height;
  sheet.getContext("2d").putImageData(image, 0, 0);
  return sheet;
}

/* ---- numbers for a reader ---- */

const minus = (text) => text.replace("-", "−");

function write(value, digits) {
  if (!Number.isFinite(value)) return "–";
  const far = value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3);
  return minus(far ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits))));
}

/* Write a value with the decimals that its steps allow: the error is a tenth of the last one at most. */
function writeStepped(value, step) {
  const decimals = Math.max(0, Math.floor(-Math.log10(5 * step)));
  return decimals > 6 || Math.abs(value) >= 1e6 ? minus(value.toExponential(2)) : minus(value.toFixed(decimals));
}

const writeMm = (value) => minus(String(Number(value.toFixed(1))));

/* ---- a viewer ---- */

class Viewer {
  constructor(element, config) {
    this.element = element;
    this.config = config;
    this.part = (name) => element.querySelector(`.${name}`);
    this.canvases = [...element.querySelectorAll(".slice canvas")];
  }

  async load() {
    const { config } = this;
    this.volume = { shape: config.shape, inverse: invert(config.affine) };
    await this.loadLayers(config.shape[0] * config.shape[1] * config.shape[2]);
    if (config.backdrop) {
      const { shape, affine, levels, block } = config.backdrop;
      this.backdrop = { shape, inverse: invert(affine), levels, grey: await unpack(block) };
      this.backdrop.steps = [0, 1, 2].map((axis) => Math.abs(affine[axis][axis]));
    }
    const [x, y] = [0, 1].map((axis) => config.high[axis] - config.low[axis]);
    this.part("slices").style.gridTemplateColumns = `${y}fr ${x}fr ${x}fr`; // one scale for all three
    this.begin();
    return this;
  }

  begin() {
    this.fill();
    this.listen();
    this.go(this.config.start);
    this.element.dataset.ready = "true";
  }

  /* Read the maps at the places that the mask lets through, of all that there are. */
  async loadLayers(size) {
    const { config } = this, inside = readBits(await unpack(config.mask), size);
    this.index = new Int32Array(size).fill(-1); // raveled voxel -> its place in the maps
    let n = 0;
    for (let voxel = 0; voxel < size; voxel++) if (inside[voxel]) this.index[voxel] = n++;
    this.maps = await Promise.all(config.maps.map(async (part) =>
      ({ ...(await readMap(part)), colours: await unpack(part.palette) })));
    this.z = this.maps[0];
    this.shown = await Promise.all(config.shown.map(async (part) =>
      ({ ...part, flags: readBits(await unpack(part.block), n) })));
    this.half = config.half && (await readMap(config.half));
  }

  fill() {
    const add = (select, text) => select.append(new Option(text, String(select.length)));
    for (const map of this.maps) add(this.part("map"), map.label);
    add(this.part("shown"), "the whole mask");
    for (const one of this.shown) add(this.part("shown"), `significant by ${one.label}`);
    this.part("shown").value = this.shown.length ? "1" : "0"; // as the still pictures begin
    const top = Math.ceil(20 * this.config.top) / 20;
    this.part("threshold").max = String(top);
  }

  listen() {
    this.listenToControls();
    const boxes = [...this.element.querySelectorAll(".mm")];
    for (const box of boxes) {
      box.addEventListener("change", () => {
        const place = boxes.map((one) => Number.parseFloat(one.value));
        if (place.every(Number.isFinite)) this.go(place);
      });
    }
    this.canvases.forEach((canvas, number) => {
      const plane = PLANES[number];
      const point = (event) => {
        const { left, top, width, height } = canvas.getBoundingClientRect(), { low, high } = this.config;
        const place = [...this.at], a = plane.right, b = plane.up;
        place[a] = low[a] + ((event.clientX - left) / width) * (high[a] - low[a]);
        place[b] = high[b] - ((event.clientY - top) / height) * (high[b] - low[b]);
        this.go(place);
      };
      canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); point(event); });
      canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) point(event); });
      canvas.addEventListener("keydown", (event) => this.step(event, plane));
    });
  }

  listenToControls() {
    for (const name of ["map", "shown", "threshold"]) this.part(name).addEventListener("input", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.part("slices"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  step(event, plane) {
    const moves = {
      ArrowLeft: [plane.right, -1], ArrowRight: [plane.right, 1], ArrowDown: [plane.up, -1], ArrowUp: [plane.up, 1],
      PageDown: [plane.through, -1], PageUp: [plane.through, 1],
    };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const place = [...this.at];
    place[move[0]] += move[1] * this.config.steps[move[0]];
    this.go(place);
  }

  /* Move the crosshair to the voxel nearest to a place in mm. */
  go(place) {
    const clamp = (index, axis) => Math.min(Math.max(Math.round(index), 0), this.config.shape[axis] - 1);
    const [i, j, k] = apply(this.volume.inverse, place).map(clamp);
    this.at = apply(this.config.affine, [i, j, k]);
    this.voxel = this.index[(i * this.config.shape[1] + j) * this.config.shape[2] + k];
    const boxes = this.element.querySelectorAll(".mm");
    boxes.forEach((box, axis) => { box.value = String(Number(this.at[axis].toFixed(1))); });
    this.draw();
  }

  draw() {
    if (!this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this.paint(); });
    }
  }

  /* What is to be seen of which map: colour(place in the maps, pixels, offset) paints it, or returns false. */
  choose() {
    const { z } = this, map = this.maps[Number(this.part("map").value)];
    const chosen = Number(this.part("shown").value), flags = chosen ? this.shown[chosen - 1].flags : null;
    const threshold = Number(this.part("threshold").value), least = threshold / z.step, { codes, colours } = map;
    const from = map === z ? Math.max(threshold, chosen ? this.shown[chosen - 1].least : 0) : 0;
    const entryOf = this.colouring(map, from);
    const colour = (v, pixels, offset) => {
      if (v < 0 || (flags && !flags[v]) || (threshold && this.height(z.codes[v]) < least)) return false;
      const entry = 3 * entryOf(codes[v] * map.step);
      pixels[offset] = colours[entry];
      pixels[offset + 1] = colours[entry + 1];
      pixels[offset + 2] = colours[entry + 2];
      pixels[offset + 3] = 255;
      return true;
    };
    return { map, threshold, from, entryOf, colour };
  }

  paint() {
    const { config } = this, { map, threshold, from, entryOf, colour } = this.choose();
    const overlay = (voxel, pixels, offset) => colour(this.index[voxel], pixels, offset);
    const { backdrop } = this;
    const under = backdrop ? (voxel, pixels, offset) => {
      const level = backdrop.grey[voxel];
      if (!level) return;
      pixels.fill((255 * (level - 1)) / (backdrop.levels - 2), offset, offset + 3);
      pixels[offset + 3] = 255;
    } : (voxel, pixels, offset) => { if (this.index[voxel] >= 0) pixels.set(MASK_GREY, offset); };
    const [ground, steps] = backdrop ? [backdrop, backdrop.steps] : [this.volume, config.steps];
    this.canvases.forEach((canvas, number) => {
      const plane = PLANES[number];
      const below = paint(ground, config, plane, this.at, steps, under);
      const above = paint(this.volume, config, plane, this.at, config.steps, overlay);
      this.compose(canvas, plane, [[below, Boolean(backdrop)], [above, false]]); // pixels of maps stay voxels
    });
    this.legend(map, threshold, from, entryOf);
    this.read();
  }

  /* Return the entry of a value's colour: colours begin where the map is shown from, as in the still pictures. */
  colouring(map, from) {
    const signed = map.low < 0 && map.high > 0, high = Math.max(map.high, from + 1e-9);
    if (!from) return (value) => Math.round(Math.min(Math.max((254 * (value - map.low)) / (map.high - map.low), 0), 254));
    const share = (size) => Math.min(Math.max((size - from) / (high - from), 0), 1);
    if (!signed) return (value) => Math.round(254 * share(value));
    return (value) => Math.round(127 + Math.sign(value) * 127 * (PALEST + (1 - PALEST) * share(Math.abs(value))));
  }

  /* Lay the layers of a slice on each other, and the crosshair over them. */
  compose(canvas, plane, layers) {
    const { low, high } = this.config, ratio = window.devicePixelRatio || 1, { right, up } = plane;
    const width = canvas.clientWidth, height = (width * (high[up] - low[up])) / (high[right] - low[right]);
    if (!width) return;
    canvas.style.aspectRatio = `${high[right] - low[right]} / ${high[up] - low[up]}`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    for (const [sheet, smooth] of layers) {
      pen.imageSmoothingEnabled = smooth;
      pen.drawImage(sheet, 0, 0, canvas.width, canvas.height);
    }
    pen.scale(ratio, ratio);
    const style = getComputedStyle(this.element);
    const x = ((this.at[right] - low[right]) / (high[right] - low[right])) * width;
    const y = ((high[up] - this.at[up]) / (high[up] - low[up])) * height;
    pen.strokeStyle = style.getPropertyValue("--cross");
    pen.lineWidth = 1.25;
    pen.beginPath(); // a gap in the middle: the voxel itself stays to be seen
    for (const [x0, y0, x1, y1] of [[0, y, x - 7, y], [x + 7, y, width, y], [x, 0, x, y - 7], [x, y + 7, x, height]]) {
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
    }
    pen.stroke();
    pen.fillStyle = style.getPropertyValue("--ink");
    pen.font = `12px ${style.fontFamily}`;
    pen.textBaseline = "top";
    pen.fillText(plane.left, 3, 3);
    pen.textAlign = "right";
    pen.fillText(plane.rightmost, width - 3, 3);
    canvas.parentElement.querySelector(".at").textContent = `${plane.name} = ${writeMm(this.at[plane.through])} mm`;
  }

  /* What the threshold is compared with: z of F tests has no direction. */
  height(z) {
    return this.config.signed ? Math.abs(z) : z;
  }

  legend(map, threshold, from, entryOf) {
    const bar = this.part("scale"), pen = bar.getContext("2d"), image = pen.createImageData(255, 1);
    for (let entry = 0; entry < 255; entry++) {
      const value = map.low + ((map.high - map.low) * entry) / 254;
      const hidden = from && this.height(value) < from;
      for (let part = 0; part < 3; part++) image.data[4 * entry + part] = map.colours[3 * entryOf(value) + part];
      image.data[4 * entry + 3] = hidden ? 0 : 255;
    }
    bar.width = 255;
    bar.height = 1;
    pen.putImageData(image, 0, 0);
    this.part("low").textContent = write(map.low, 3);
    this.part("high").textContent = write(map.high, 3);
    this.part("quantity").textContent = from ? `${map.label}, shown from ${write(from, 3)}` : map.label;
    this.part("level").textContent = threshold.toFixed(2);
  }

  where() {
    return [`x, y, z = ${this.at.map(writeMm).join(", ")} mm`];
  }

  /* Say what is at the crosshair, whatever map is drawn. */
  read() {
    const facts = this.where();
    if (this.voxel < 0) facts.push("outside of the mask");
    else {
      for (const map of this.maps) {
        const text = writeStepped(map.read(this.voxel), map.step), units = map.units ? ` ${map.units}` : "";
        facts.push(`${map.key} ${text}${map.key === "effect" ? this.margin() : ""}${units}`);
      }
      const found = this.shown.filter((one) => one.flags[this.voxel]).map((one) => one.name);
      if (this.shown.length) facts.push(found.length ? `significant by ${found.join(", ")}` : "not significant");
    }
    this.part("readout").textContent = facts.join(" · ");
  }

  margin() {
    const half = this.half ? this.half.read(this.voxel) : null;
    return half === null ? "" : ` ± ${write(half, 2)}`;
  }
}

function open(element) {
  if (!viewers.has(element)) {
    const config = JSON.parse(element.dataset.config);
    const loading = new (config.meshes ? MeshViewer : Viewer)(element, config).load();
    viewers.set(element, loading);
    loading.catch((error) => {
      element.querySelector(".readout").textContent = "The viewer cannot be drawn in this browser.";
      throw error;
    });
  }
  return viewers.get(element);
}

function showViewers() {
  const able = "DecompressionStream" in window && "IntersectionObserver" in window && "ResizeObserver" in window;
  if (!able) return; // an old browser: the page stays as it is without scripts
  const nearby = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { nearby.unobserve(entry.target); open(entry.target); }
  }, { rootMargin: "400px" });
  for (const element of document.querySelectorAll(".viewer")) {
    element.hidden = false;
    nearby.observe(element);
  }
}

/* Viewers of maps on meshes: each hemisphere in a canvas of its own, turned by dragging. Packed by report/figures/mesh_viewer.py. */
const LIGHT = 0.45, DEPTH = 0.35; // shading, as of the still pictures
const TURN = Math.PI / 12; // of an arrow key
const CLICK = 4; // pixels that a pointer may move in a click
const readUnsigned = (bytes) => new Uint16Array(readCodes(bytes).buffer);

/* Turning about the vertical and then the horizontal axis of the screen: rows are right, up and towards the reader. */
function turning(around, over) {
  const [c, s, d, t] = [Math.cos(around), Math.sin(around), Math.cos(over), Math.sin(over)];
  return [[c, s, 0], [t * s, -t * c, d], [d * s, -d * c, -t]];
}

class MeshViewer extends Viewer {
  async load() {
    await this.loadLayers(this.config.size);
    this.places = this.config.places && readCodes(await unpack(this.config.places.block));
    this.meshes = await Promise.all(this.config.meshes.map((part) => this.loadMesh(part)));
    const largest = Math.max(...this.meshes.map((mesh) => mesh.radius));
    for (const mesh of this.meshes) mesh.span = largest;
    this.part("slices").style.gridTemplateColumns = `repeat(${this.meshes.length}, 1fr)`;
    this.begin();
    return this;
  }

  async loadMesh(part) {
    const codes = readCodes(await unpack(part.points)), points = Float32Array.from(codes, (code) => part.step * code);
    const triangles = readUnsigned(await unpack(part.triangles)), depth = await unpack(part.depth), n = part.size;
    const mesh = { ...part, points, triangles, depth, n };
    mesh.normals = this.normals(mesh);
    mesh.radius = 0;
    for (let v = 0; v < n; v++) mesh.radius = Math.max(mesh.radius, Math.hypot(points[v], points[n + v], points[2 * n + v]));
    this.look(mesh, "lateral");
    return mesh;
  }

  normals({ points, triangles, n }) {
    const normals = new Float32Array(3 * n), T = triangles.length / 3;
    for (let t = 0; t < T; t++) {
      const [a, b, c] = [triangles[t], triangles[T + t], triangles[2 * T + t]];
      const u = [0, 1, 2].map((axis) => points[axis * n + b] - points[axis * n + a]);
      const w = [0, 1, 2].map((axis) => points[axis * n + c] - points[axis * n + a]);
      const face = [u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]];
      for (const corner of [a, b, c]) for (let axis = 0; axis < 3; axis++) normals[axis * n + corner] += face[axis];
    }
    for (let v = 0; v < n; v++) {
      const length = Math.hypot(normals[v], normals[n + v], normals[2 * n + v]) || 1;
      for (let axis = 0; axis < 3; axis++) normals[axis * n + v] /= length;
    }
    return normals;
  }

  /* Show a hemisphere from outside (lateral) or inside (medial). */
  look(mesh, side) {
    mesh.around = ((side === "lateral") === (mesh.label === "right") ? 1 : -1) * Math.PI / 2;
    mesh.over = 0;
  }

  listen() {
    this.listenToControls();
    this.canvases.forEach((canvas, number) => {
      const mesh = this.meshes[number];
      let from = null;
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        from = { x: event.clientX, y: event.clientY, around: mesh.around, over: mesh.over };
      });
      canvas.addEventListener("pointermove", (event) => {
        if (!from || !(event.buttons & 1)) return;
        const scale = Math.PI / canvas.clientWidth;
        mesh.around = from.around - scale * (event.clientX - from.x);
        mesh.over = Math.min(Math.max(from.over + scale * (event.clientY - from.y), -Math.PI / 2), Math.PI / 2);
        this.draw();
      });
      canvas.addEventListener("pointerup", (event) => {
        if (from && Math.hypot(event.clientX - from.x, event.clientY - from.y) < CLICK) this.pick(canvas, mesh, event);
        from = null;
      });
      canvas.addEventListener("keydown", (event) => this.turn(event, mesh));
    });
  }

  turn(event, mesh) {
    const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }, move = moves[event.key];
    const side = { l: "lateral", m: "medial" }[event.key];
    if ((!move && !side) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (side) this.look(mesh, side);
    else {
      mesh.around += move[0] * TURN;
      mesh.over = Math.min(Math.max(mesh.over + move[1] * TURN, -Math.PI / 2), Math.PI / 2);
    }
    this.draw();
  }

  pick(canvas, mesh, event) {
    const { left, top, width, height } = canvas.getBoundingClientRect(), { seen } = mesh;
    const x = Math.floor(((event.clientX - left) / width) * seen.width), y = Math.floor(((event.clientY - top) / height) * seen.height);
    const vertex = seen.vertex[y * seen.width + x];
    if (vertex >= 0) this.go(mesh.start + vertex);
  }

  /* Choose an element by its number, or the one that is nearest to a place in mm. */
  go(place) {
    this.voxel = this.index[Array.isArray(place) ? this.nearest(place) : place];
    this.chosen = Array.isArray(place) ? this.nearest(place) : place;
    const mesh = this.meshOf(this.chosen);
    if (mesh && Array.isArray(place)) this.face(mesh, this.chosen - mesh.start);
    this.draw();
  }

  meshOf(element) {
    return this.meshes.find((mesh) => element >= mesh.start && element < mesh.start + mesh.size);
  }

  nearest(place) {
    let best = this.config.start, least = Infinity;
    if (!this.places) return best;
    const n = this.places.length / 3, { step } = this.config.places;
    for (let element = 0; element < this.index.length; element++) {
      const v = this.index[element];
      if (v < 0 || !this.meshOf(element)) continue;
      const away = Math.hypot(...[0, 1, 2].map((axis) => step * this.places[axis * n + v] - place[axis]));
      if (away < least) [best, least] = [element, away];
    }
    return best;
  }

  /* Turn a hemisphere so that a vertex is seen: from the side to which its normal points. */
  face(mesh, vertex) {
    const outwards = (mesh.normals[vertex] > 0) === (mesh.label === "right");
    this.look(mesh, outwards ? "lateral" : "medial");
  }

  paint() {
    const chosen = this.choose();
    this.canvases.forEach((canvas, number) => this.paintMesh(canvas, this.meshes[number], chosen.colour));
    this.legend(chosen.map, chosen.threshold, chosen.from, chosen.entryOf);
    this.read();
  }

  /* Draw a hemisphere: of what lies behind each other, each pixel shows the nearest, in the colour of its nearest vertex. */
  paintMesh(canvas, mesh, colour) {
    const ratio = window.devicePixelRatio || 1, width = Math.round(canvas.clientWidth * ratio), height = Math.round(0.8 * width);
    if (!width) return;
    canvas.style.aspectRatio = `${width} / ${height}`;
    canvas.width = width;
    canvas.height = height;
    const { n, points, normals, triangles } = mesh, T = triangles.length / 3;
    const [right, up, near] = turning(mesh.around, mesh.over), scale = 0.49 * width / mesh.span;
    const x = new Float32Array(n), y = new Float32Array(n), z = new Float32Array(n), grey = new Float32Array(n);
    for (let v = 0; v < n; v++) {
      const p = [points[v], points[n + v], points[2 * n + v]], q = [normals[v], normals[n + v], normals[2 * n + v]];
      x[v] = width / 2 + scale * (right[0] * p[0] + right[1] * p[1] + right[2] * p[2]);
      y[v] = height / 2 - scale * (up[0] * p[0] + up[1] * p[1] + up[2] * p[2]);
      z[v] = near[0] * p[0] + near[1] * p[1] + near[2] * p[2];
      const facing = Math.abs(near[0] * q[0] + near[1] * q[1] + near[2] * q[2]);
      grey[v] = (1 - LIGHT + LIGHT * facing) * (1 - (DEPTH * mesh.depth[v]) / 255);
    }
    const vertex = new Int32Array(width * height).fill(-1), nearest = new Float32Array(width * height).fill(-Infinity);
    const light = new Float32Array(width * height);
    for (let t = 0; t < T; t++) {
      const a = triangles[t], b = triangles[T + t], c = triangles[2 * T + t];
      const area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a]);
      if (!area) continue;
      const x0 = Math.max(0, Math.ceil(Math.min(x[a], x[b], x[c]) - 0.5)), x1 = Math.min(width - 1, Math.floor(Math.max(x[a], x[b], x[c]) - 0.5));
      const y0 = Math.max(0, Math.ceil(Math.min(y[a], y[b], y[c]) - 0.5)), y1 = Math.min(height - 1, Math.floor(Math.max(y[a], y[b], y[c]) - 0.5));
      for (let row = y0; row <= y1; row++) {
        for (let column = x0; column <= x1; column++) {
          const dx = column + 0.5 - x[a], dy = row + 0.5 - y[a];
          const v = (dx * (y[c] - y[a]) - dy * (x[c] - x[a])) / area, w = ((x[b] - x[a]) * dy - (y[b] - y[a]) * dx) / area, u = 1 - v - w;
          if (u < -1e-6 || v < -1e-6 || w < -1e-6) continue;
          const pixel = row * width + column, depth = u * z[a] + v * z[b] + w * z[c];
          if (depth <= nearest[pixel]) continue;
          nearest[pixel] = depth;
          vertex[pixel] = u >= v && u >= w ? a : v >= w ? b : c;
          light[pixel] = u * grey[a] + v * grey[b] + w * grey[c];
        }
      }
    }
    mesh.seen = { vertex, width, height };
    const pen = canvas.getContext("2d"), image = pen.createImageData(width, height), pixels = image.data;
    for (let pixel = 0; pixel < vertex.length; pixel++) {
      if (vertex[pixel] < 0 || colour(this.index[mesh.start + vertex[pixel]], pixels, 4 * pixel)) continue;
      pixels.fill(40 + 205 * light[pixel], 4 * pixel, 4 * pixel + 3);
      pixels[4 * pixel + 3] = 255;
    }
    pen.putImageData(image, 0, 0);
    const own = this.chosen - mesh.start;
    if (own >= 0 && own < n && this.isSeen(vertex, own)) this.mark(pen, x[own], y[own], ratio);
    canvas.parentElement.querySelector(".at").textContent = `${mesh.label} hemisphere`;
  }

  isSeen(vertex, own) {
    return vertex.includes(own);
  }

  mark(pen, x, y, ratio) {
    pen.strokeStyle = getComputedStyle(this.element).getPropertyValue("--cross");
    pen.lineWidth = 1.5 * ratio;
    pen.beginPath();
    pen.arc(x, y, 6 * ratio, 0, 2 * Math.PI);
    pen.stroke();
  }

  where() {
    const mesh = this.meshOf(this.chosen), facts = mesh ? [`${mesh.name}, vertex ${this.chosen - mesh.start}`] : [];
    if (this.places && this.voxel >= 0) {
      const n = this.places.length / 3, { step } = this.config.places;
      facts.push(`x, y, z = ${[0, 1, 2].map((axis) => writeMm(step * this.places[axis * n + this.voxel])).join(", ")} mm`);
    }
    return facts;
  }
}

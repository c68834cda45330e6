"use strict";
// The detector map: reads the pixels out of a PNG, draws those of the chosen types, tells what is under the cursor.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("map");
  const context = canvas.getContext("2d");
  const readout = document.getElementById("readout");
  const flagOf = Object.fromEntries(data.flags.map((f) => [f.name, f]));
  const bitValue = (name) => (flagOf[name] ? 2 ** flagOf[name].bit : 0);
  const has = (value, name) => flagOf[name] !== undefined && Math.floor(value / 2 ** flagOf[name].bit) % 2 === 1;
  const NOT_TYPES = ["DO_NOT_USE", "REFERENCE_PIXEL"];
  const REFERENCE_COLOR = "#c9ced3";
  const { nx, ny } = data;

  const state = {
    scale: 1, // screen pixels for one detector pixel
    left: 0, // detector coordinates of the lower left corner
    bottom: 0,
    on: new Set(data.flags.map((f) => f.name).filter((n) => !NOT_TYPES.includes(n))),
    mode: "type",
    paper: false, // while the page is being printed
    held: null,
    image: null, // index into the palette, one a pixel, row 0 at the bottom
    old: null,
    sparse: null, // places of pixels with flags, in order
    order: null, // place -> number of the flagged science pixel (for the evidence)
  };

  // --- data -------------------------------------------------------------------------------------------

  function readImage(source) {
    return new Promise((resolve, reject) => {
      const picture = new Image();
      picture.onload = () => {
        const hidden = document.createElement("canvas");
        hidden.width = nx;
        hidden.height = ny;
        const drawing = hidden.getContext("2d", { willReadFrequently: true });
        drawing.drawImage(picture, 0, 0);
        const bytes = drawing.getImageData(0, 0, nx, ny).data;
        const gray = source.palette.length <= 256;
        const index = new Uint16Array(nx * ny);
        for (let k = 0; k < index.length; k++) {
          index[k] = gray ? bytes[4 * k] : bytes[4 * k] * 256 + bytes[4 * k + 1];
        }
        resolve(index);
      };
      picture.onerror = () => reject(new Error("the map can't be read"));
      picture.src = source.image;
    });
  }

  function decode(text) {
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let k = 0; k < raw.length; k++) bytes[k] = raw.charCodeAt(k);
    return new DataView(bytes.buffer);
  }

  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  const value = (place) => data.palette[state.image[place]];
  const oldValue = (place) => (state.old ? data.old.palette[state.old[place]] : 0);

  function prepare() {
    const sparse = [];
    const order = new Map();
    let number = 0;
    for (let place = 0; place < nx * ny; place++) {
      const v = value(place);
      if (v !== 0 || (state.old && oldValue(place) !== 0)) sparse.push(place);
      if (v !== 0 && !has(v, "REFERENCE_PIXEL")) order.set(place, number++);
    }
    state.sparse = Uint32Array.from(sparse);
    state.order = order;
    state.quantities = (data.quantities || []).map((q) => ({ name: q.name, view: decode(q.data) }));
    if (data.kept) {
      const view = decode(data.kept);
      state.kept = new Map();
      for (let k = 0; k < view.byteLength / 4; k++) state.kept.set(view.getUint32(4 * k, true), k);
    }
  }

  /** Quantities of the evidence at a pixel, or null where the page has none. */
  function evidenceAt(place) {
    if (!state.quantities.length || !state.order.has(place)) return null;
    let k = state.order.get(place);
    if (state.kept) {
      if (!state.kept.has(k)) return null;
      k = state.kept.get(k);
    }
    return Object.fromEntries(state.quantities.map((q) => [q.name, half(q.view.getUint16(2 * k, true))]));
  }

  // --- drawing ----------------------------------------------------------------------------------------

  /** The type that gives a pixel its color, among those switched on; null for none. */
  function shownType(v) {
    for (const name of data.priority) if (state.on.has(name) && has(v, name)) return name;
    for (const flag of data.flags) {
      if (!NOT_TYPES.includes(flag.name) && state.on.has(flag.name) && has(v, flag.name)) return flag.name;
    }
    const bare = v !== 0 && data.flags.every((f) => f.name === "DO_NOT_USE" || !has(v, f.name));
    return bare && state.mode === "unusable" ? "DO_NOT_USE" : null;
  }

  const typeBits = () => {
    let bits = 0;
    for (const name of state.on) bits += bitValue(name);
    return bits;
  };

  function colorOf(place, cache) {
    const v = value(place);
    if (state.mode === "change") {
      const key = v * 4294967296 + oldValue(place);
      if (!cache.has(key)) cache.set(key, changeColor(v, oldValue(place)));
      return cache.get(key);
    }
    if (!cache.has(v)) cache.set(v, typeColor(v));
    return cache.get(v);
  }

  function typeColor(v) {
    if (has(v, "REFERENCE_PIXEL")) return REFERENCE_COLOR;
    const unusable = has(v, "DO_NOT_USE");
    if ((state.mode === "unusable" && !unusable) || (state.mode === "usable" && unusable)) return null;
    const name = shownType(v);
    return name ? flagOf[name].color : null;
  }

  function changeColor(v, old) {
    if (has(v, "REFERENCE_PIXEL")) return REFERENCE_COLOR;
    const mask = typeBits();
    const common = (a) => data.flags.some((f) => state.on.has(f.name) && has(a, f.name)) && mask > 0;
    const now = common(v);
    const before = common(old);
    if (now && !before) return "#D55E00";
    if (before && !now) return "#0072B2";
    return now ? "#9aa3ab" : null;
  }

  function draw() {
    const width = canvas.width;
    const height = canvas.height;
    context.fillStyle = "#fbfbfa";
    context.fillRect(0, 0, width, height);
    if (!state.image) return;
    const size = Math.max(state.scale, 2 * (window.devicePixelRatio || 1));
    const grow = (size - state.scale) / 2;
    const groups = new Map();
    const cache = new Map();
    let drawn = 0;
    const x1 = state.left + width / state.scale;
    const y1 = state.bottom + height / state.scale;
    for (const place of state.sparse) {
      const y = Math.floor(place / nx);
      const x = place - y * nx;
      if (x + 1 < state.left || x > x1 || y + 1 < state.bottom || y > y1) continue;
      const color = colorOf(place, cache);
      if (!color) continue;
      if (color !== REFERENCE_COLOR) drawn++;
      if (!groups.has(color)) groups.set(color, []);
      groups.get(color).push(x, y);
    }
    const order = [REFERENCE_COLOR, ...[...data.priority].reverse().map((n) => flagOf[n].color)];
    const sorted = [...groups.keys()].sort((a, b) => order.indexOf(a) - order.indexOf(b));
    for (const color of sorted) {
      context.fillStyle = color;
      const places = groups.get(color);
      const exact = color === REFERENCE_COLOR;
      const side = exact ? state.scale : size;
      const shift = exact ? 0 : grow;
      for (let k = 0; k < places.length; k += 2) {
        const left = (places[k] - state.left) * state.scale - shift;
        const top = height - (places[k + 1] + 1 - state.bottom) * state.scale - shift;
        context.fillRect(left, top, side, side);
      }
    }
    canvas.dataset.drawn = String(drawn);
    if (state.held) mark(state.held.x, state.held.y);
  }

  function mark(x, y) {
    const side = Math.max(state.scale, 8);
    const middle = [(x + 0.5 - state.left) * state.scale, canvas.height - (y + 0.5 - state.bottom) * state.scale];
    context.strokeStyle = "#000000";
    context.lineWidth = 2;
    context.strokeRect(middle[0] - side / 2 - 3, middle[1] - side / 2 - 3, side + 6, side + 6);
  }

  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }

  // --- view -------------------------------------------------------------------------------------------

  const fitScale = () => Math.min(canvas.width / nx, canvas.height / ny);

  function showWhole() {
    state.scale = fitScale();
    state.left = (nx - canvas.width / state.scale) / 2;
    state.bottom = (ny - canvas.height / state.scale) / 2;
    touch();
    redraw();
  }

  function resize() {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const whole = width * (ny / nx);
    const height = state.paper ? whole : Math.max(160, Math.min(whole, 0.86 * window.innerHeight + 160));
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    showWhole();
  }

  function zoom(factor, px, py) {
    const x = state.left + px / state.scale;
    const y = state.bottom + (canvas.height - py) / state.scale;
    state.scale = Math.min(Math.max(state.scale * factor, fitScale()), 64 * (window.devicePixelRatio || 1));
    state.left = x - px / state.scale;
    state.bottom = y - (canvas.height - py) / state.scale;
    limit();
    touch();
    redraw();
  }

  function limit() {
    const wide = canvas.width / state.scale;
    const high = canvas.height / state.scale;
    state.left = wide >= nx ? (nx - wide) / 2 : Math.min(Math.max(state.left, 0), nx - wide);
    state.bottom = high >= ny ? (ny - high) / 2 : Math.min(Math.max(state.bottom, 0), ny - high);
  }

  // at the whole frame a finger scrolls the page, zoomed in it moves the map
  function touch() {
    canvas.style.touchAction = state.scale > fitScale() * 1.01 ? "none" : "pan-y";
  }

  function toPixel(event) {
    const box = canvas.getBoundingClientRect();
    const ratio = canvas.width / box.width;
    const px = (event.clientX - box.left) * ratio;
    const py = (event.clientY - box.top) * ratio;
    const x = Math.floor(state.left + px / state.scale);
    const y = Math.floor(state.bottom + (canvas.height - py) / state.scale);
    return { x, y, px, py, inside: x >= 0 && x < nx && y >= 0 && y < ny };
  }

  /** The flagged pixel nearest to a place of the screen, within a few screen pixels; the pixel itself otherwise. */
  function nearest(place) {
    const reach = Math.ceil((5 * (window.devicePixelRatio || 1)) / state.scale);
    if (reach < 1 || state.scale > 6) return place;
    const cache = new Map();
    let best = null;
    for (let dy = -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) {
        const x = place.x + dx;
        const y = place.y + dy;
        if (x < 0 || y < 0 || x >= nx || y >= ny) continue;
        const here = y * nx + x;
        const color = colorOf(here, cache);
        if (!color || color === REFERENCE_COLOR) continue;
        const far = dx * dx + dy * dy;
        if (!best || far < best.far) best = { x, y, far, inside: true };
      }
    }
    return best || place;
  }

  // --- readout ----------------------------------------------------------------------------------------

  function element(name, text, css) {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (css) node.className = css;
    return node;
  }

  const number = (v) => (Number.isNaN(v) ? "not measured" : Number(v.toPrecision(3)).toString());
  const names = (v) => data.flags.filter((f) => has(v, f.name)).map((f) => f.name);
  const COMPARE = {
    "<": (a, b) => a < b,
    "<=": (a, b) => a <= b,
    ">": (a, b) => a > b,
    ">=": (a, b) => a >= b,
  };

  function show(place, held) {
    readout.replaceChildren();
    if (!place || !place.inside) {
      readout.append(element("p", "Move over the map, or go to a pixel.", "empty"));
      return;
    }
    const at = place.y * nx + place.x;
    const v = value(at);
    const title = element("p", `(${place.x + data.x0}, ${place.y + data.y0})${held ? ", held" : ""}`, "place");
    readout.append(title);
    readout.dataset.x = place.x + data.x0;
    readout.dataset.y = place.y + data.y0;
    readout.dataset.value = v;
    if (v === 0) readout.append(element("p", "good: no flag"));
    else {
      const list = element("ul");
      for (const name of names(v)) {
        const item = element("li");
        const strong = element("strong", name);
        item.append(strong, `: ${flagOf[name].text}`);
        list.append(item);
      }
      readout.append(list);
    }
    if (state.old) {
      const before = data.old.palette[state.old[at]];
      readout.append(element("p", `previous mask: ${oldNames(before).join(", ") || "good"}`));
    }
    showEvidence(at, v);
  }

  const ALL = (data.allNames || []).concat();
  function oldNames(v) {
    const known = names(v);
    const rest = data.flags.reduce((left, f) => (has(left, f.name) ? left - 2 ** f.bit : left), v);
    return rest ? known.concat(ALL.filter((f) => Math.floor(rest / 2 ** f.bit) % 2 === 1).map((f) => f.name)) : known;
  }

  function showEvidence(at, v) {
    const found = evidenceAt(at);
    if (!found) {
      if (v !== 0 && data.kept && !has(v, "REFERENCE_PIXEL")) {
        readout.append(element("p", "Its evidence is not in this page: badpix explain has it.", "empty"));
      }
      return;
    }
    const flags = names(v);
    const list = element("ul");
    const read = (data.rules || [])
      .filter((rule) => rule.flags.some((f) => flags.includes(f)))
      .map((rule) => {
        const limit = typeof rule.limit === "string" ? found[rule.limit] : rule.limit;
        return { rule, limit, holds: COMPARE[rule.comparison](found[rule.quantity], limit) };
      });
    const holding = read.filter((r) => r.holds); // those that speak for the flag, where there are some
    for (const { rule, limit, holds } of holding.length ? holding : read) {
      const sign = holds ? rule.comparison : `not ${rule.comparison}`;
      const text = `${rule.search}: ${rule.quantity.replaceAll("_", " ")} ${number(found[rule.quantity])} ${sign} `;
      list.append(element("li", `${text}${number(limit)} ${rule.unit} (${rule.meaning})`));
    }
    if (list.childElementCount) readout.append(list);
    const more = element("details");
    const table = element("table");
    more.append(element("summary", "All quantities"), table);
    for (const [name, amount] of Object.entries(found)) {
      const row = element("tr");
      row.append(element("td", name.replaceAll("_", " ")), element("td", number(amount), "number"));
      table.append(row);
    }
    readout.append(more);
  }

  // --- switches ---------------------------------------------------------------------------------------

  function makeSwitches() {
    const box = document.getElementById("types");
    const counts = new Map();
    for (const place of state.sparse) {
      const v = value(place);
      if (has(v, "REFERENCE_PIXEL")) continue;
      counts.set(v, (counts.get(v) || 0) + 1);
    }
    for (const flag of data.flags) {
      if (NOT_TYPES.includes(flag.name)) continue;
      let total = 0;
      for (const [v, n] of counts) if (has(v, flag.name)) total += n;
      const label = element("label");
      const input = element("input");
      input.type = "checkbox";
      input.checked = true;
      input.dataset.type = flag.name;
      input.addEventListener("change", () => {
        if (input.checked) state.on.add(flag.name);
        else state.on.delete(flag.name);
        redraw();
      });
      const swatch = element("span", "", "swatch");
      swatch.style.background = flag.color;
      label.append(input, swatch, flag.name, element("span", total.toLocaleString("en"), "count"));
      box.append(label);
    }
    const row = element("div", undefined, "all-none");
    for (const [text, on] of [["All", true], ["None", false]]) {
      const button = element("button", text);
      button.type = "button";
      button.addEventListener("click", () => {
        for (const input of box.querySelectorAll("input")) {
          if (input.checked !== on) input.click();
        }
      });
      row.append(button);
    }
    box.append(row);
  }

  function makeModes() {
    const box = document.getElementById("modes");
    const modes = { type: "All flagged pixels", unusable: "Only DO_NOT_USE", usable: "Only those still in use" };
    if (data.old) modes.change = "Change: orange appeared, blue disappeared, gray stayed";
    for (const [mode, text] of Object.entries(modes)) {
      const label = element("label");
      const input = element("input");
      input.type = "radio";
      input.name = "mode";
      input.value = mode;
      input.checked = mode === state.mode;
      input.addEventListener("change", () => {
        state.mode = mode;
        redraw();
      });
      label.append(input, text);
      box.append(label);
    }
  }

  // --- events -----------------------------------------------------------------------------------------

  function listen() {
    const fingers = new Map();
    let start = null;
    let spread = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.focus({ preventScroll: true });
      fingers.set(event.pointerId, event);
      start = { ...toPixel(event), left: state.left, bottom: state.bottom, moved: false };
      if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const here = toPixel(event);
      if (fingers.has(event.pointerId)) fingers.set(event.pointerId, event);
      if (fingers.size === 2) {
        const [a, b] = [...fingers.values()].map(toPixel);
        const now = Math.hypot(a.px - b.px, a.py - b.py);
        if (spread) zoom(now / spread, (a.px + b.px) / 2, (a.py + b.py) / 2);
        spread = now;
      } else if (start && fingers.size === 1) {
        const dx = here.px - start.px;
        const dy = here.py - start.py;
        if (Math.hypot(dx, dy) > 4) start.moved = true;
        state.left = start.left - dx / state.scale;
        state.bottom = start.bottom + dy / state.scale;
        limit();
        redraw();
      } else if (!state.held) show(nearest(here), false);
    });
    const release = (event) => {
      if (start && !start.moved && fingers.size === 1 && event.type === "pointerup") {
        const place = nearest(toPixel(event));
        const same = state.held && state.held.x === place.x && state.held.y === place.y;
        state.held = same || !place.inside ? null : place;
        show(place, state.held !== null);
        redraw();
      }
      fingers.delete(event.pointerId);
      spread = 0;
      if (!fingers.size) start = null;
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", (event) => fingers.delete(event.pointerId));
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (document.activeElement !== canvas && !event.ctrlKey) return;
        event.preventDefault();
        const here = toPixel(event);
        zoom(Math.exp(-event.deltaY / 300), here.px, here.py);
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      const step = 0.1 * (canvas.width / state.scale);
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (moves[event.key]) {
        state.left += moves[event.key][0];
        state.bottom += moves[event.key][1];
        limit();
        redraw();
      } else if (event.key === "+" || event.key === "=") zoom(1.5, canvas.width / 2, canvas.height / 2);
      else if (event.key === "-") zoom(1 / 1.5, canvas.width / 2, canvas.height / 2);
      else if (event.key === "Escape") {
        state.held = null;
        showWhole();
      } else return;
      event.preventDefault();
    });
    const center = (factor) => () => zoom(factor, canvas.width / 2, canvas.height / 2);
    document.getElementById("zoom-in").addEventListener("click", center(2));
    document.getElementById("zoom-out").addEventListener("click", center(0.5));
    document.getElementById("zoom-reset").addEventListener("click", showWhole);
    document.getElementById("go").addEventListener("submit", (event) => {
      event.preventDefault();
      const x = Number(document.getElementById("go-x").value) - data.x0;
      const y = Number(document.getElementById("go-y").value) - data.y0;
      const inside = Number.isInteger(x) && Number.isInteger(y) && x >= 0 && y >= 0 && x < nx && y < ny;
      if (!inside) {
        state.held = null;
        readout.replaceChildren(element("p", "There is no such pixel.", "empty"));
        return;
      }
      state.held = { x, y, inside };
      state.scale = Math.max(state.scale, 10 * (window.devicePixelRatio || 1));
      state.left = x + 0.5 - canvas.width / state.scale / 2;
      state.bottom = y + 0.5 - canvas.height / state.scale / 2;
      limit();
      touch();
      show(state.held, true);
      redraw();
    });
    let last = canvas.clientWidth;
    window.addEventListener("resize", () => {
      if (canvas.clientWidth !== last) {
        last = canvas.clientWidth;
        resize();
      }
    });
    window.addEventListener("beforeprint", () => {
      state.paper = true;
      resize();
      draw();
    });
    window.addEventListener("afterprint", () => {
      state.paper = false;
      resize();
    });
  }

  async function start() {
    const x = document.getElementById("go-x");
    const y = document.getElementById("go-y");
    [x.min, x.max, y.min, y.max] = [data.x0, data.x0 + nx - 1, data.y0, data.y0 + ny - 1];
    state.image = await readImage(data);
    if (data.old) state.old = await readImage(data.old);
    prepare();
    makeSwitches();
    makeModes();
    listen();
    resize();
    draw();
    document.documentElement.dataset.ready = "yes";
  }

  start().catch((error) => {
    document.getElementById("map-hint").textContent = `The map can't be shown: ${error.message}`;
    document.documentElement.dataset.ready = "failed";
  });
})();

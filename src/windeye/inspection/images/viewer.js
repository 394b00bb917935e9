// One photograph, and over it the weights of any layer, head and query that the page holds.
"use strict";
for (const figure of document.querySelectorAll("figure.viewer")) {
  const told = JSON.parse(figure.querySelector("script").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const canvas = figure.querySelector("canvas"), readout = figure.querySelector(".readout");
  const colours = bytes(told.colours), pen = canvas.getContext("2d", { willReadFrequently: true });
  const state = { layer: told.chosen, head: "mean", query: 0 };
  const photo = new Image();
  let grey = null, shown = null;

  for (const layer of told.layers) {
    // Sixteen bits a weight, in units of a share of the heaviest of its head; what is not zero is at least one.
    layer.codes = new Uint16Array(bytes(layer.data).buffer);
    layer.tokens = (layer.rows.length - 1) * (layer.columns.length - 1);
    layer.heads = layer.most[0].length;
  }

  // The heads of a choice: one, those of a kind, or all.
  function heads(layer) {
    if (typeof state.head === "number") return state.head < layer.heads ? [state.head] : [];
    const all = [...Array(layer.heads).keys()];
    return state.head === "mean" ? all : all.filter((head) => layer.kinds[head] === state.head);
  }

  function weights() {
    const layer = told.layers[state.layer];
    let chosen = heads(layer);
    if (!chosen.length) { state.head = "mean"; chosen = heads(layer); }
    const mean = new Float64Array(layer.tokens), seen = new Uint8Array(layer.tokens);
    for (const head of chosen) {
      const unit = layer.most[state.query][head] / 65535 / chosen.length;
      const start = (state.query * layer.heads + head) * layer.tokens;
      for (let token = 0; token < layer.tokens; token++) {
        const code = layer.codes[start + token];
        mean[token] += code * unit;
        if (code) seen[token] = 1;
      }
    }
    return { layer, mean, seen, most: mean.reduce((a, b) => Math.max(a, b), 1e-30) };
  }

  // The token of every row or column of pixels.
  function places(borders, count) {
    const found = new Uint32Array(count);
    for (let pixel = 0, token = 0; pixel < count; pixel++) {
      while (token < borders.length - 2 && (pixel + 0.5) / count >= borders[token + 1]) token++;
      found[pixel] = token;
    }
    return found;
  }

  function draw() {
    if (!grey) return;
    shown = weights();
    const { layer, mean, seen, most } = shown, wide = layer.columns.length - 1;
    const down = places(layer.rows, canvas.height), across = places(layer.columns, canvas.width);
    const image = pen.createImageData(canvas.width, canvas.height);
    for (let y = 0, at = 0; y < canvas.height; y++)
      for (let x = 0; x < canvas.width; x++, at++) {
        const share = mean[down[y] * wide + across[x]] / most, light = grey[at] / 255, cover = Math.sqrt(share);
        const colour = 3 * Math.round(share * (colours.length / 3 - 1));
        for (let c = 0; c < 3; c++)
          image.data[4 * at + c] = (1 - cover) * 0.45 * grey[at] + cover * colours[colour + c] * (0.3 + 0.7 * light);
        image.data[4 * at + 3] = 255;
      }
    pen.putImageData(image, 0, 0);
    border(layer, seen);
    const boxes = layer.boxes && layer.boxes[state.query];
    if (boxes) for (const head of heads(layer)) box(boxes[head], `hsl(${(360 * head) / layer.heads} 100% 60%)`);
    const query = told.queries[state.query];
    if (query.at) {
      for (const [colour, width] of [["#fff", 4], ["#ff3d2e", 2]]) {
        pen.strokeStyle = colour; pen.lineWidth = width;
        pen.beginPath(); pen.arc(query.at[1] * canvas.width, query.at[0] * canvas.height, 7, 0, 7); pen.stroke();
      }
    }
    tell(null);
    for (const button of figure.querySelectorAll("button")) {
      const { kind, value } = button.dataset;
      button.ariaPressed = String(String(state[kind]) === value);
    }
  }

  // Lines between tokens of which one gets weight and one does not.
  function border(layer, seen) {
    const tall = layer.rows.length - 1, wide = layer.columns.length - 1;
    if (seen.every(Boolean)) return;
    const is = (y, x) => y >= 0 && x >= 0 && y < tall && x < wide && seen[y * wide + x] === 1;
    const px = (x) => layer.columns[x] * canvas.width, py = (y) => layer.rows[y] * canvas.height;
    pen.strokeStyle = "#fff"; pen.lineWidth = 1;
    pen.beginPath();
    for (let y = 0; y <= tall; y++)
      for (let x = 0; x <= wide; x++) {
        if (x < wide && is(y, x) !== is(y - 1, x)) { pen.moveTo(px(x), py(y)); pen.lineTo(px(x + 1), py(y)); }
        if (y < tall && is(y, x) !== is(y, x - 1)) { pen.moveTo(px(x), py(y)); pen.lineTo(px(x), py(y + 1)); }
      }
    pen.stroke();
  }

  function box([left, top, right, bottom], colour) {
    pen.strokeStyle = colour; pen.lineWidth = 1.5;
    pen.strokeRect(left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height);
  }

  function tell(at) {
    const { layer, mean } = shown;
    const sum = mean.reduce((a, b) => a + b, 0), rows = layer.rows.length - 1, wide = layer.columns.length - 1;
    let text = `layer ${layer.name}: ${layer.mixer}; ${rows} x ${wide} tokens, ${(100 * sum).toFixed(1)} % of the weight`;
    if (at) {
      const y = Math.min(at[0], canvas.height - 1), x = Math.min(at[1], canvas.width - 1);
      const row = places(layer.rows, canvas.height)[y], column = places(layer.columns, canvas.width)[x];
      const pixel = `${Math.floor(((y + 0.5) / canvas.height) * told.size[0])},${Math.floor(((x + 0.5) / canvas.width) * told.size[1])}`;
      text += `\npixel ${pixel}: token ${row},${column} has ${(100 * mean[row * wide + column]).toPrecision(3)} %`;
    }
    readout.textContent = text;
  }

  function choose(kind, value) {
    state[kind] = value;
    if (kind === "layer") buttons();
    draw();
  }

  function button(row, kind, value, text) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.dataset.kind = kind;
    made.dataset.value = value;
    made.addEventListener("click", () => choose(kind, value));
    row.append(made);
  }

  function rowOf(controls, name) {
    const row = document.createElement("div"), label = document.createElement("span");
    label.textContent = name;
    row.append(label);
    controls.append(row);
    return row;
  }

  function buttons() {
    const controls = figure.querySelector(".controls");
    controls.replaceChildren();
    if (told.queries.length > 1) {
      const row = rowOf(controls, "query");
      told.queries.forEach(({ name }, number) => button(row, "query", number, name));
    }
    let stage = null, row = null;
    told.layers.forEach((layer, number) => {
      if (layer.stage !== stage) row = rowOf(controls, `stage ${(stage = layer.stage)}`);
      button(row, "layer", number, layer.name.slice(String(stage).length + 1));
    });
    const layer = told.layers[state.layer];
    row = rowOf(controls, "heads");
    button(row, "head", "mean", "mean");
    for (const kind of new Set(layer.kinds)) button(row, "head", kind, kind);
    for (let head = 0; head < layer.heads; head++) button(row, "head", head, head);
  }

  canvas.addEventListener("pointermove", (event) => {
    const area = canvas.getBoundingClientRect();
    const y = Math.floor(((event.clientY - area.top) / area.height) * canvas.height);
    const x = Math.floor(((event.clientX - area.left) / area.width) * canvas.width);
    if (shown && y >= 0 && x >= 0) tell([y, x]);
  });
  canvas.addEventListener("pointerleave", () => shown && tell(null));
  // Left and right go through the layers.
  canvas.addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (step) choose("layer", (state.layer + step + told.layers.length) % told.layers.length);
  });

  photo.addEventListener("load", () => {
    canvas.width = photo.naturalWidth; canvas.height = photo.naturalHeight;
    pen.drawImage(photo, 0, 0);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    grey = new Float32Array(canvas.width * canvas.height);
    for (let at = 0; at < grey.length; at++) grey[at] = (pixels[4 * at] + pixels[4 * at + 1] + pixels[4 * at + 2]) / 3;
    draw();
  });
  buttons();
  photo.src = told.photo;
}

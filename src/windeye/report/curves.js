// Curves over many thousand points on a canvas: each pixel shows the least and the greatest value that falls into it.
// The wheel zooms, dragging moves, a double click shows all; arrows, + and - do the same from the keyboard.
"use strict";
for (const figure of document.querySelectorAll("figure.curves")) {
  const told = JSON.parse(figure.querySelector("script").textContent);
  const canvas = figure.querySelector("canvas"), readout = figure.querySelector(".readout");
  const series = told.series.map(({ name, data }) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    return { name, values: new Float32Array(bytes.buffer) };
  });
  const n = series[0].values.length, left = 64, panel = 110, gap = 22;
  let first = 0, last = n, at = null, from = null;

  function draw() {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.style.height = series.length * (panel + gap) + 20 + "px";
    canvas.width = width * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "12px system-ui, sans-serif";
    const ink = getComputedStyle(figure).color, wide = width - left - 8;
    const x = (place) => left + ((place + 0.5 - first) / (last - first)) * wide;
    series.forEach(({ name, values }, number) => {
      const top = number * (panel + gap) + 16;
      const seen = Float32Array.from(values.subarray(Math.floor(first), Math.ceil(last))).sort();
      let low = seen[0], high = seen[seen.length - 1];
      // A few sinks would press all else onto the axis: they are cut off, and their height is told.
      const most = high, usual = low + 1.2 * (seen[Math.floor(0.99 * (seen.length - 1))] - low), cut = most > low + 3 * (usual - low);
      if (cut && usual > low) high = usual;
      if (!(high > low)) { low -= 0.5; high += 0.5; }
      const y = (value) => top + panel - ((Math.min(value, high) - low) / (high - low)) * panel;
      pen.fillStyle = ink;
      pen.textAlign = "left";
      pen.fillText(name + (high < most ? " (cut off; up to " + most.toPrecision(3) + ")" : ""), left, top - 4);
      pen.textAlign = "right";
      pen.fillText(high.toPrecision(3), left - 6, top + 10);
      pen.fillText(low.toPrecision(3), left - 6, top + panel);
      pen.strokeStyle = "#cfd6dc";
      pen.strokeRect(left, top, wide, panel);
      pen.strokeStyle = told.colours[number % told.colours.length];
      pen.beginPath();
      const each = (last - first) / wide;
      if (each < 1) {
        for (let i = Math.max(0, Math.floor(first)); i < Math.min(n, Math.ceil(last)); i++) pen.lineTo(x(i), y(values[i]));
      } else {
        for (let pixel = 0; pixel < wide; pixel++) {
          const begin = Math.floor(first + pixel * each), end = Math.min(n, Math.ceil(first + (pixel + 1) * each));
          let least = Infinity, most = -Infinity;
          for (let i = begin; i < end; i++) { least = Math.min(least, values[i]); most = Math.max(most, values[i]); }
          if (most >= least) { pen.lineTo(left + pixel, y(least)); pen.lineTo(left + pixel, y(most) - 0.5); }
        }
      }
      pen.stroke();
      if (at !== null && at >= first && at < last) {
        pen.strokeStyle = ink;
        pen.beginPath(); pen.moveTo(x(at), top); pen.lineTo(x(at), top + panel); pen.stroke();
      }
    });
    pen.fillStyle = ink;
    const bottom = series.length * (panel + gap) + 14;
    pen.textAlign = "left";
    pen.fillText(Math.ceil(first), left, bottom);
    pen.textAlign = "right";
    pen.fillText(Math.floor(last) - 1, width - 8, bottom);
  }

  function show() {
    if (at === null) return;
    const values = series.map(({ name, values }) => name + " " + values[at].toPrecision(4)).join(" · ");
    readout.textContent = at + (told.labels ? " " + JSON.stringify(told.labels[at]) : "") + ": " + values;
    if (told.labels) {
      const context = figure.querySelector(".context"), mark = document.createElement("mark");
      mark.textContent = told.labels[at];
      context.replaceChildren(told.labels.slice(Math.max(0, at - 40), at).join(""), mark,
                              told.labels.slice(at + 1, at + 41).join(""));
    }
  }

  function view(begin, size) {
    size = Math.max(Math.min(n, 10), Math.min(n, size));
    first = Math.max(0, Math.min(n - size, begin));
    last = first + size;
    draw();
  }
  const place = (event) => {
    const inside = (event.offsetX - left) / (canvas.clientWidth - left - 8);
    return first + Math.max(0, Math.min(0.999999, inside)) * (last - first);
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const centre = place(event), factor = Math.exp(event.deltaY / 400);
    view(centre - (centre - first) * factor, (last - first) * factor);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => { from = [event.offsetX, first]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { from = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (from) view(from[1] - ((event.offsetX - from[0]) / (canvas.clientWidth - left - 8)) * (last - first), last - first);
    at = Math.floor(place(event));
    draw();
    show();
  });
  canvas.addEventListener("dblclick", () => view(0, n));
  canvas.addEventListener("keydown", (event) => {
    const size = last - first, steps = { ArrowLeft: -0.2, ArrowRight: 0.2 }, scales = { "+": 0.5, "-": 2 };
    if (event.key in steps) view(first + steps[event.key] * size, size);
    else if (event.key in scales) view(first + (size - size * scales[event.key]) / 2, size * scales[event.key]);
    else if (event.key === "Home") view(0, n);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(canvas);
}

// One sensor over time: scores, evidence, incidents, labels, with faults behind them. The sensor is chosen, a stretch zoomed into.

// ---------------------------------------------------------------- scores over time

const sensors = data.shown.map((one) => {
  let time = one.t0;
  return { ...one, time: one.t.map((step) => (time += step)) };
});
const SEVERITIES = { minor: 0.35, major: 0.65, critical: 1 }; // opacity
let current = 0;
let zoom = null;
for (const [index, one] of sensors.entries()) at("sensor").append(el("option", { value: index }, one.id));
at("show-unlabelled").parentElement.hidden = !figures.without_labels;

function timeTicks(start, end, room) {
  const units = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000, 7776000, 31536000].map((s) => s * 1000);
  const step = units.find((unit) => (end - start) / unit <= room / 110) || units.at(-1);
  const ticks = [];
  for (let tick = Math.ceil(start / step) * step; tick <= end; tick += step) {
    const text = iso(tick);
    ticks.push([tick, step >= 86400000 ? text.slice(0, 10) : step >= 60000 ? `${text.slice(5, 10)} ${text.slice(11, 16)}` : text.slice(11, 19)]);
  }
  return ticks;
}

function drawTime() {
  const one = sensors[current];
  const place = at("time");
  place.replaceChildren();
  at("zoom-out").hidden = zoom === null;
  if (!one || !one.time.length) return;
  const W = Math.max(place.clientWidth, 300), H = 402, left = 58, right = 8, top = 8;
  const floor = 230; // of the scores
  const strip = { top: 244, floor: 324 }, spans = 334, marks = 366; // evidence over level, incidents, labels
  const [start, end] = zoom || [one.time[0], Math.max(one.time.at(-1), one.time[0] + 1)];
  const x = (ms) => left + ((ms - start) / (end - start)) * (W - left - right);
  const y = (score) => floor - score * (floor - top);
  const MOST = 4; // what is beyond is cut off: from 1 on it alarms
  const evidence = (alarm) => strip.floor - (Math.min(alarm, MOST) / MOST) * (strip.floor - strip.top);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, height: H });
  root.append(svg("clipPath", { id: "inside" }, svg("rect", { x: left, y: 0, width: W - left - right, height: H })));
  const inner = svg("g", { "clip-path": "url(#inside)" });
  const box = (from, to, attributes) => {
    const a = Math.max(x(from), left), b = Math.min(Math.max(x(to), x(from) + 1.5), W - right);
    if (b > a) inner.append(svg("rect", { x: a, width: b - a, ...attributes }));
  };
  for (const [upper, lower] of [[top, floor], [strip.top, strip.floor]]) {
    box(one.time[0], one.from ?? one.time.at(-1), { y: upper, height: lower - upper, fill: "var(--warm)" });
    for (const [from, to, , found] of one.faults) box(from, to, { y: upper, height: lower - upper, fill: "var(--fault)", opacity: found ? 0.3 : 0.13 });
  }
  const scale = (at, text) => {
    root.append(svg("line", { x1: left, x2: W - right, y1: at, y2: at, class: "axis" }));
    root.append(svg("text", { x: left - 7, y: at + 4, "text-anchor": "end" }, text));
  };
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) scale(y(tick), String(tick));
  scale(evidence(0), "0");
  scale(evidence(MOST), `≥ ${MOST}`);
  for (const [tick, text] of timeTicks(start, end, W)) {
    root.append(svg("line", { x1: x(tick), x2: x(tick), y1: H - 24, y2: H - 20, class: "axis" }));
    root.append(svg("text", { x: x(tick), y: H - 5, "text-anchor": x(tick) > W - 60 ? "end" : x(tick) < left + 40 ? "start" : "middle" }, text));
  }
  const first = Math.max(lower(one.time, start) - 1, 0), last = Math.min(lower(one.time, end) + 2, one.time.length);
  const path = (values, height) => {
    let d = "", open = false;
    for (let i = first; i < last; i++) {
      const value = values[i];
      if (value === null) { open = false; continue; }
      if (one.gap !== null && i && one.time[i] - one.time[i - 1] > one.gap) open = false; // nothing was read in between
      d += `${open ? "L" : "M"}${x(one.time[i]).toFixed(1)} ${height(value).toFixed(1)}${open ? "" : "h0"}`; // h0: a dot where the line is a single point
      open = true;
    }
    return d;
  };
  if (at("show-unlabelled").checked && one.unlabelled) {
    inner.append(svg("path", { d: path(one.unlabelled, y), fill: "none", stroke: "var(--second)", "stroke-width": 1, "stroke-linecap": "round", opacity: 0.8 }));
  }
  inner.append(svg("path", { d: path(one.score, y), fill: "none", stroke: "var(--main)", "stroke-width": 1.1, "stroke-linejoin": "round", "stroke-linecap": "round" }));
  inner.append(svg("path", { d: path(one.alarm, evidence), fill: "none", stroke: "var(--third)", "stroke-width": 1.1, "stroke-linejoin": "round", "stroke-linecap": "round" }));
  root.append(svg("line", { x1: left, x2: W - right, y1: evidence(1), y2: evidence(1), stroke: "var(--fault)", "stroke-width": 1.2, "stroke-dasharray": "5 4" }));
  root.append(svg("text", { x: left - 7, y: evidence(1) + 4, "text-anchor": "end" }, "alarm 1"));
  for (const incident of one.incidents) box(incident.from, incident.to, { y: spans, height: 12, rx: 2, fill: "var(--third)", opacity: SEVERITIES[incident.severity] });
  root.append(svg("text", { x: left - 7, y: spans + 10, "text-anchor": "end" }, "incidents"));
  for (const [code, token] of [["1", "--good"], ["2", "--fault"]]) {
    let d = "";
    for (let i = first; i < last; i++) {
      if (one.labelled[i] !== code) continue;
      const width = Math.max(x(one.time[i + 1] ?? one.time[i]) - x(one.time[i]), 1.2);
      d += `M${x(one.time[i]).toFixed(1)} ${marks}h${Math.min(width, 12).toFixed(1)}`;
    }
    if (d) inner.append(svg("path", { d, stroke: `var(${token})`, "stroke-width": 9, fill: "none" }));
  }
  root.append(svg("text", { x: left - 7, y: marks + 4, "text-anchor": "end" }, "labels"));
  const cursor = svg("line", { y1: top, y2: marks + 6, stroke: "var(--faint)", visibility: "hidden" });
  const brush = svg("rect", { y: top, height: strip.floor - top, fill: "var(--main)", opacity: 0.15, visibility: "hidden" });
  root.append(inner, cursor, brush);
  place.append(root);

  const ms = (event) => {
    const bounds = root.getBoundingClientRect();
    const px = ((event.clientX - bounds.left) / bounds.width) * W;
    return start + ((Math.min(Math.max(px, left), W - right) - left) / (W - left - right)) * (end - start);
  };
  let grip = null;
  root.addEventListener("pointermove", (event) => {
    const here = ms(event);
    if (grip !== null) {
      brush.setAttribute("visibility", "visible");
      brush.setAttribute("x", Math.min(x(grip), x(here)));
      brush.setAttribute("width", Math.abs(x(here) - x(grip)));
    }
    let i = Math.min(lower(one.time, here), one.time.length - 1);
    if (i > 0 && here - one.time[i - 1] < one.time[i] - here) i--;
    cursor.setAttribute("x1", x(one.time[i]));
    cursor.setAttribute("x2", x(one.time[i]));
    cursor.setAttribute("visibility", "visible");
    const fault = one.faults.find(([from, to]) => one.time[i] >= from && one.time[i] <= to);
    const incident = one.incidents.find(({ from, to }) => one.time[i] >= from && one.time[i] <= to);
    tell(event, [
      `${when(one.time[i])}, row ${one.row[i] + 1}`,
      `score ${short(one.score[i])}` + (one.every > 1 ? ` (highest of ${plural(one.every, "row")}, as the alarm)` : ""),
      `alarm ${short(one.alarm[i])}`,
      one.unlabelled ? `score without labels ${short(one.unlabelled[i])}` : "",
      fault ? `fault: ${fault[2]}, ${fault[3] ? "found" : "not found"}` : "",
      incident ? `incident: ${incident.kind}, ${incident.severity}, ${incident.reason ?? "open"}, highest alarm ${short(incident.alarm)}, ${plural(incident.events, "event")}` : "",
      one.labelled[i] === "0" ? "no label" : `label: ${one.labelled[i] === "1" ? "normal" : "anomaly"}`,
    ].filter(Boolean).join("\n"));
  });
  root.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); tell(null, ""); });
  root.addEventListener("pointerdown", (event) => { grip = ms(event); root.setPointerCapture(event.pointerId); event.preventDefault(); });
  root.addEventListener("pointerup", (event) => {
    const here = ms(event);
    if (grip !== null && Math.abs(x(here) - x(grip)) > 6) { zoom = [Math.min(grip, here), Math.max(grip, here)]; drawTime(); }
    grip = null;
  });
  root.addEventListener("dblclick", () => { zoom = null; drawTime(); });
}

function lower(sorted, value) {
  let from = 0, to = sorted.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (sorted[middle] < value) from = middle + 1; else to = middle;
  }
  return from;
}

function choose(index, around = null) {
  if (!sensors.length) return;
  current = (index + sensors.length) % sensors.length;
  at("sensor").value = current;
  zoom = around;
  drawTime();
}
function visit(id, ms = null) {
  const index = sensors.findIndex((one) => one.id === id);
  if (index < 0) return;
  const one = sensors[index], wide = (one.time.at(-1) - one.time[0]) * 0.02;
  choose(index, ms === null ? null : [Math.max(ms - wide, one.time[0]), Math.min(ms + wide, one.time.at(-1))]);
  at("section-time").scrollIntoView({ behavior: "smooth" });
}

at("sensor").addEventListener("change", (event) => choose(Number(event.target.value)));
at("previous").addEventListener("click", () => choose(current - 1));
at("next").addEventListener("click", () => choose(current + 1));
at("zoom-out").addEventListener("click", () => choose(current));
at("show-unlabelled").addEventListener("change", drawTime);
addEventListener("keydown", (event) => {
  if (event.target.closest("select, input")) return;
  if (event.key === "ArrowLeft") choose(current - 1);
  if (event.key === "ArrowRight") choose(current + 1);
  if (event.key === "Escape") choose(current);
});
at("time-legend").append(
  key("score", "--main"), key("alarm: evidence over level, which alarms from 1 on", "--third"), key("incident, the darker the more severe", "--third", "--opacity: 1;"),
  key("fault, found", "--fault", "--opacity: .4;"), key("fault, not found", "--fault", "--opacity: .18;"),
  key("not evaluated", "--warm", "--opacity: 1;"), key("label normal", "--good", "--opacity: 1;"), key("label anomaly", "--fault", "--opacity: 1;"),
  el("i", {}, "Drag to look closer, double-click to go back."),
);

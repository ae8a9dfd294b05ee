"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const figures = data.figures;
const at = (id) => document.getElementById(id);
const COLOURS = { detector: "--main", unlabelled: "--second", hst: "--third", iforest: "--fourth", zscore: "--fifth" };
const colour = (line) => `var(${COLOURS[line]})`;

// ---------------------------------------------------------------- words and numbers

const fixed = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));
const short = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(4))));
const percent = (value) => (value === null || value === undefined ? "–" : `${Number((100 * value).toPrecision(3))} %`);
const iso = (ms) => new Date(ms).toISOString();
const when = (ms) => iso(ms).replace("T", " ").replace(/\.000Z$|Z$/, "");
const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") node.style.cssText = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const tip = at("tip");
function tell(event, text) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const right = event.clientX + 16 + tip.offsetWidth > innerWidth;
  tip.style.left = `${right ? event.clientX - tip.offsetWidth - 12 : event.clientX + 14}px`;
  tip.style.top = `${event.clientY + 14}px`;
}

const key = (text, token, extra = "") => {
  const span = el("span", { style: `--colour: var(${token}); ${extra}` }, text);
  if (extra.includes("opacity")) span.className = "box";
  return span;
};

// ---------------------------------------------------------------- head

at("files").textContent = figures.files.join(", ");
const protocol = figures.protocol;
const share = protocol.label_coverage === 1 ? "all labelled" : `${percent(protocol.label_coverage)} of the labelled`;
at("about").textContent =
  `${plural(figures.rows, "row")} of ${plural(Object.keys(figures.sensors).length, "sensor")}, ` +
  `${when(data.span_ms[0])} to ${when(data.span_ms[1])} UTC. ${plural(figures.evaluated, "row")} judged, ${whole(figures.anomalies)} of them anomalies. ` +
  `Verdicts on ${share} ${protocol.intervals ? "segments, as intervals" : "rows"}, ${protocol.label_delay} late; ${whole(figures.verdicts.given)} arrived.` +
  (figures.complete ? "" : " Interrupted: these are the rows done by then.");

function card(name, value, below, mood = "") {
  at("cards").append(
    el("div", { class: "card" }, el("div", { class: "name" }, name), el("div", { class: "value" }, value), el("div", { class: `below ${mood}` }, below)),
  );
}
function gain(now, before) {
  if (now === null || !figures.without_labels || before === null) return ["", ""];
  const by = now - before;
  return [`${by >= 0 ? "+" : "−"}${Math.abs(by).toFixed(3)} by verdicts`, by > 0.0005 ? "better" : by < -0.0005 ? "worse" : ""];
}
const threshold = figures.at_threshold;
const before = figures.without_labels || {};
card("ROC AUC", fixed(figures.roc_auc), ...gain(figures.roc_auc, before.roc_auc));
card("Average precision", fixed(figures.average_precision), ...gain(figures.average_precision, before.average_precision));
card("Faults noticed", `${whole(figures.segments.detected)} of ${whole(figures.segments.total)}`,
  figures.segments.delay_events_median === null ? "" : `half of them within ${plural(Math.floor(figures.segments.delay_events_median) + 1, "event")}`);
card("Alarms a day", threshold.alarms_per_day >= 100 ? whole(threshold.alarms_per_day) : short(threshold.alarms_per_day && Number(threshold.alarms_per_day.toPrecision(2))), "incidents opened, true and false");
const wanted = figures.settings.threshold.false_alarm_rate;
card("False-alarm rate", percent(threshold.false_alarm_rate), `${percent(wanted)} tolerated`, threshold.false_alarm_rate > 2 * wanted ? "worse" : "");
card("Precision, recall", [threshold.precision, threshold.recall].map((part) => (part === null ? "–" : `${Math.round(100 * part)}`)).join(" / "), "percent of rows, at a score of 1");

// ---------------------------------------------------------------- scores over time

const sensors = data.shown.map((one) => {
  let time = one.t0;
  return { ...one, time: one.t.map((step) => (time += step)) };
});
let current = 0;
let zoom = null;
for (const [index, one] of sensors.entries()) at("sensor").append(el("option", { value: index }, one.id));
at("show-unlabelled").parentElement.hidden = !figures.without_labels;

function logTicks(low, high) {
  const ticks = [];
  for (let tick = 1e-6; tick <= high; tick *= 10) if (tick >= low) ticks.push(Number(tick.toPrecision(1)));
  return ticks;
}

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
  const W = Math.max(place.clientWidth, 300), H = 330, left = 46, right = 8, top = 8, bottom = 48;
  const [start, end] = zoom || [one.time[0], Math.max(one.time.at(-1), one.time[0] + 1)];
  const x = (ms) => left + ((ms - start) / (end - start)) * (W - left - right);
  const known = one.score.filter((score) => score > 0).sort((a, b) => a - b);
  const LOW = Math.min(0.1, Math.max(known[Math.floor(known.length / 20)] ?? 0.1, 1e-5)); // a few calm rows may touch the floor
  const peak = Math.max(10, known.at(-1) ?? 10);
  const high = Math.pow(10, Math.ceil(Math.log10(peak) * 2) / 2);
  const floor = H - bottom;
  const y = (score) => top + (1 - Math.log(Math.max(score, LOW) / LOW) / Math.log(high / LOW)) * (floor - top);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, height: H });
  root.append(svg("clipPath", { id: "inside" }, svg("rect", { x: left, y: 0, width: W - left - right, height: H })));
  const inner = svg("g", { "clip-path": "url(#inside)" });
  const box = (from, to, attributes) => {
    const a = Math.max(x(from), left), b = Math.min(Math.max(x(to), x(from) + 1.5), W - right);
    if (b > a) inner.append(svg("rect", { x: a, width: b - a, ...attributes }));
  };
  box(one.time[0], one.from ?? one.time.at(-1), { y: top, height: floor - top, fill: "var(--warm)" });
  for (const [from, to, , noticed] of one.faults) box(from, to, { y: top, height: floor - top, fill: "var(--fault)", opacity: noticed ? 0.3 : 0.13 });
  for (const tick of logTicks(LOW, high)) {
    root.append(svg("line", { x1: left, x2: W - right, y1: y(tick), y2: y(tick), class: "axis" }));
    root.append(svg("text", { x: left - 7, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (const [tick, text] of timeTicks(start, end, W)) {
    root.append(svg("line", { x1: x(tick), x2: x(tick), y1: floor, y2: floor + 4, class: "axis" }));
    root.append(svg("text", { x: x(tick), y: H - 5, "text-anchor": x(tick) > W - 60 ? "end" : x(tick) < left + 40 ? "start" : "middle" }, text));
  }
  const first = Math.max(lower(one.time, start) - 1, 0), last = Math.min(lower(one.time, end) + 2, one.time.length);
  const path = (values) => {
    let d = "", open = false;
    for (let i = first; i < last; i++) {
      const value = values[i];
      if (value === null) { open = false; continue; }
      d += `${open ? "L" : "M"}${x(one.time[i]).toFixed(1)} ${y(value).toFixed(1)}`;
      open = true;
    }
    return d;
  };
  if (at("show-unlabelled").checked && one.unlabelled) {
    inner.append(svg("path", { d: path(one.unlabelled), fill: "none", stroke: "var(--second)", "stroke-width": 1, opacity: 0.8 }));
  }
  inner.append(svg("path", { d: path(one.score), fill: "none", stroke: "var(--main)", "stroke-width": 1.1, "stroke-linejoin": "round" }));
  root.append(svg("line", { x1: left, x2: W - right, y1: y(1), y2: y(1), stroke: "var(--fault)", "stroke-width": 1.2, "stroke-dasharray": "5 4" }));
  root.append(svg("text", { x: W - right - 4, y: y(1) - 5, "text-anchor": "end", fill: "var(--fault)" }, "threshold"));
  for (const [said, token] of [["1", "--good"], ["2", "--fault"]]) {
    let d = "";
    for (let i = first; i < last; i++) {
      if (one.told[i] !== said) continue;
      const width = Math.max(x(one.time[i + 1] ?? one.time[i]) - x(one.time[i]), 1.2);
      d += `M${x(one.time[i]).toFixed(1)} ${floor + 14}h${Math.min(width, 12).toFixed(1)}`;
    }
    if (d) inner.append(svg("path", { d, stroke: `var(${token})`, "stroke-width": 9, fill: "none" }));
  }
  root.append(svg("text", { x: left - 7, y: floor + 18, "text-anchor": "end" }, "verdicts"));
  const cursor = svg("line", { y1: top, y2: floor + 20, stroke: "var(--faint)", visibility: "hidden" });
  const brush = svg("rect", { y: top, height: floor - top, fill: "var(--main)", opacity: 0.15, visibility: "hidden" });
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
    tell(event, [
      `${when(one.time[i])}, row ${one.row[i] + 1}`,
      `score ${short(one.score[i])}` + (one.every > 1 ? ` (highest of ${one.every})` : ""),
      one.unlabelled ? `without verdicts ${short(one.unlabelled[i])}` : "",
      fault ? `fault: ${fault[2]}, ${fault[3] ? "noticed" : "not noticed"}` : "",
      one.told[i] === "0" ? "no verdict" : `verdict: ${one.told[i] === "1" ? "normal" : "anomaly"}`,
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
  key("score (log scale)", "--main"), key("fault, noticed", "--fault", "--opacity: .4;"), key("fault, not noticed", "--fault", "--opacity: .18;"),
  key("not judged", "--warm", "--opacity: 1;"), key("verdict normal", "--good", "--opacity: 1;"), key("verdict anomaly", "--fault", "--opacity: 1;"),
  el("i", {}, "Drag to look closer, double-click to go back."),
);

// ---------------------------------------------------------------- curves

function frame(place, xs, ys, xTitle, yTitle, H = 300) {
  place.replaceChildren();
  const W = Math.max(place.clientWidth, 260), left = 54, right = 10, top = 8, bottom = 36;
  const x = (value) => left + ((value - xs[0]) / (xs[1] - xs[0] || 1)) * (W - left - right);
  const y = (value) => H - bottom - ((value - ys[0]) / (ys[1] - ys[0] || 1)) * (H - top - bottom);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, height: H });
  for (let i = 0; i <= 4; i++) {
    const value = ys[0] + ((ys[1] - ys[0]) * i) / 4;
    root.append(svg("line", { x1: left, x2: W - right, y1: y(value), y2: y(value), class: "axis" }));
    root.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(3))));
    const across = xs[0] + ((xs[1] - xs[0]) * i) / 4;
    root.append(svg("text", { x: x(across), y: H - bottom + 16, "text-anchor": i === 4 ? "end" : i ? "middle" : "start" }, across > 2 ? whole(across) : Number(across.toPrecision(3))));
  }
  root.append(svg("text", { x: (W + left) / 2, y: H - 3, "text-anchor": "middle" }, xTitle));
  root.append(svg("text", { x: 11, y: (H - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 11 ${(H - bottom) / 2})` }, yTitle));
  place.append(root);
  return { root, x, y, W, H, left, right, top, bottom };
}

function drawCurves() {
  const chosen = data.curves[at("curve-of").value];
  const pr = frame(at("pr"), [0, 1], [0, 1], "recall", "precision");
  const roc = frame(at("roc"), [0, 1], [0, 1], "false-alarm rate", "recall");
  at("curve-legend").replaceChildren();
  const some = Object.values(chosen)[0];
  const dashed = { stroke: "var(--faint)", "stroke-dasharray": "3 4" };
  roc.root.append(svg("line", { x1: roc.x(0), y1: roc.y(0), x2: roc.x(1), y2: roc.y(1), ...dashed }));
  if (some) pr.root.append(svg("line", { x1: pr.x(0), y1: pr.y(some.share), x2: pr.x(1), y2: pr.y(some.share), ...dashed }));
  else at("pr").append(el("p", { class: "note" }, "Only one class was judged here: there is nothing to tell apart."));
  for (const line of [...data.lines].reverse()) {
    const one = chosen[line];
    if (!one) continue;
    const style = { fill: "none", stroke: colour(line), "stroke-width": line === "detector" ? 2.2 : 1.4 };
    const steps = one.recall.map((recall, i) => `${i ? `H${pr.x(recall).toFixed(1)}V` : `M${pr.x(0)} ${pr.y(one.precision[0]).toFixed(1)}H${pr.x(recall).toFixed(1)}V`}${pr.y(one.precision[i]).toFixed(1)}`);
    pr.root.append(svg("path", { d: steps.join(""), ...style }));
    const points = one.recall.map((recall, i) => `L${roc.x(one.fall_out[i]).toFixed(1)} ${roc.y(recall).toFixed(1)}`);
    roc.root.append(svg("path", { d: `M${roc.x(0)} ${roc.y(0)}${points.join("")}`, ...style }));
    if (one.at) {
      const dot = { r: 4.5, fill: colour(line), stroke: "var(--card)", "stroke-width": 1.5 };
      pr.root.append(svg("circle", { cx: pr.x(one.at[0]), cy: pr.y(one.at[2]), ...dot }));
      roc.root.append(svg("circle", { cx: roc.x(one.at[1]), cy: roc.y(one.at[0]), ...dot }));
    }
    at("curve-legend").prepend(key(`${data.titles[line]}: AP ${fixed(one.average_precision)}, AUC ${fixed(one.roc_auc)}`, COLOURS[line]));
  }
  at("curve-legend").append(el("i", {}, "The dot is the threshold; the dashed line is chance."));
}
for (const name of Object.keys(data.curves)) at("curve-of").append(el("option", { value: name }, name || "all sensors together"));
at("curve-of").addEventListener("change", drawCurves);

// ---------------------------------------------------------------- quality as verdicts arrive

let measure = 1;
function drawProgress() {
  const { row, verdicts, detector, unlabelled } = data.progress;
  if (!row.length) { at("progress").replaceChildren(el("p", { class: "note" }, "No row was judged.")); return; }
  const all = [...detector, ...unlabelled].map((both) => both[measure]).filter((value) => value !== null);
  const low = Math.max(0, Math.floor((Math.min(1, ...all) - 0.02) * 10) / 10), high = Math.min(1, Math.ceil((Math.max(0, ...all) + 0.02) * 10) / 10);
  const { root, x, y, H, bottom, top } = frame(at("progress"), [row[0], row.at(-1)], [low, high], "rows so far", ["ROC AUC", "average precision"][measure]);
  const most = Math.max(verdicts.at(-1), 1), floor = H - bottom;
  const area = row.map((r, i) => `L${x(r).toFixed(1)} ${(floor - (verdicts[i] / most) * (floor - top) * 0.9).toFixed(1)}`);
  root.append(svg("path", { d: `M${x(row[0])} ${floor}${area.join("")}L${x(row.at(-1))} ${floor}Z`, fill: "var(--good)", opacity: 0.13 }));
  for (const [line, values] of [["unlabelled", unlabelled], ["detector", detector]]) {
    let d = "";
    values.forEach((both, i) => { if (both[measure] !== null) d += `${d ? "L" : "M"}${x(row[i]).toFixed(1)} ${y(both[measure]).toFixed(1)}`; });
    root.append(svg("path", { d, fill: "none", stroke: colour(line), "stroke-width": line === "detector" ? 2.2 : 1.6 }));
  }
  root.addEventListener("pointermove", (event) => {
    const bounds = root.getBoundingClientRect();
    const here = ((event.clientX - bounds.left) / bounds.width) * (root.viewBox.baseVal.width);
    let i = row.findIndex((r) => x(r) >= here);
    if (i < 0) i = row.length - 1;
    tell(event, `after ${plural(row[i], "row")}, ${plural(verdicts[i], "verdict")}\nwith verdicts ${fixed(detector[i][measure])}` +
      (unlabelled[i] ? `\nwithout ${fixed(unlabelled[i][measure])}` : ""));
  });
  root.addEventListener("pointerleave", () => tell(null, ""));
}
for (const [index, title] of ["ROC AUC", "average precision"].entries()) {
  at("progress-tools").append(el("button", { class: index === measure ? "on" : "", onclick: (event) => {
    measure = index;
    for (const button of at("progress-tools").children) button.className = button === event.target ? "on" : "";
    drawProgress();
  } }, title));
}
at("progress-legend").append(key("with verdicts", "--main"));
if (figures.without_labels) at("progress-legend").append(key("without", "--second"));
at("progress-legend").append(key("verdicts so far", "--good", "--opacity: .2;"), el("i", {}, "Each point judges all rows up to there, mean of sensors."));

// ---------------------------------------------------------------- tables

function table(place, columns, rows, { click = null, rowClass = null } = {}) {
  let by = null, down = true;
  const draw = () => {
    const value = (row) => columns[by].sort ? columns[by].sort(row) : columns[by].get(row);
    const sorted = by === null ? rows : [...rows].sort((a, b) => {
      const [p, q] = [value(a), value(b)];
      if (p === null || q === null) return (p === null) - (q === null);
      return (p < q ? -1 : p > q ? 1 : 0) * (down ? -1 : 1);
    });
    const head = el("tr", {}, ...columns.map((column, index) => el("th", {
      class: `sortable ${column.text ? "" : "number"}`, title: column.hint || "",
      onclick: () => { down = by === index ? !down : !column.text; by = index; draw(); },
    }, column.title + (by === index ? (down ? " ↓" : " ↑") : ""))));
    const body = sorted.map((row) => {
      const cells = columns.map((column) => {
        const shown = column.show ? column.show(column.get(row), row) : column.get(row) ?? "–";
        return el("td", { class: `${column.text ? "" : "number"} ${column.wrap ? "wrap" : ""}` }, shown);
      });
      const line = el("tr", { class: `${click ? "go" : ""} ${rowClass ? rowClass(row) : ""}` }, ...cells);
      if (click) line.addEventListener("click", () => click(row));
      return line;
    });
    at(place).replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
  };
  draw();
}

const barred = (value) => {
  const cell = el("span", {}, fixed(value));
  cell.append(el("span", { class: "track" }, el("span", { class: "bar", style: `width:${Math.round(56 * (value || 0))}px` })));
  return cell;
};
const both = { ...(figures.without_labels ? { unlabelled: figures.without_labels } : {}), ...figures.against };
table("compare", [
  { title: "", text: true, get: ([name]) => data.titles[name] },
  { title: "ROC AUC", hint: "mean of the sensors that have both classes", get: ([, one]) => one.roc_auc, show: barred },
  { title: "average precision", hint: "mean of the sensors that have both classes", get: ([, one]) => one.average_precision, show: barred },
  { title: "pooled AP", hint: "all sensors together", get: ([, one]) => one.micro.average_precision, show: (v) => fixed(v) },
  { title: "events/s", get: ([, one]) => one.events_per_second ?? null, show: whole },
], [["detector", figures], ...Object.entries(both)], { rowClass: ([name]) => (name === "detector" ? "mine" : "") });
if (!Object.keys(figures.against).length) at("compare").append(el("p", { class: "note", style: "margin-top:10px" }, "Add baselines with ", el("code", {}, "--against hst,iforest,zscore"), "."));

const area = (title, name) => ({ title, get: ([, one]) => one[name], show: barred });
table("sensors", [
  { title: "sensor", text: true, get: ([name]) => name },
  { title: "rows", get: ([, one]) => one.rows, show: whole },
  { title: "judged", get: ([, one]) => one.evaluated, show: whole },
  { title: "anomalies", get: ([, one]) => one.anomalies, show: whole },
  area("ROC AUC", "roc_auc"), area("average precision", "average_precision"),
  { title: "faults noticed", get: ([, one]) => one.segments.detected, show: (v, [, one]) => `${v} of ${one.segments.total}` },
  { title: "events until noticed", hint: "median", get: ([, one]) => one.segments.delay_events_median, show: short },
  { title: "precision", get: ([, one]) => one.precision, show: percent },
  { title: "recall", get: ([, one]) => one.recall, show: percent },
  { title: "false alarms", get: ([, one]) => one.false_alarm_rate, show: percent },
], Object.entries(figures.sensors), { click: ([name]) => visit(name) });

const classes = Object.entries(figures.per_class);
at("section-classes").hidden = classes.length < 2;
table("classes", [
  { title: "class", text: true, get: ([name]) => name },
  { title: "rows", get: ([, one]) => one.rows, show: whole },
  { title: "recall", get: ([, one]) => one.recall, show: percent },
  { title: "faults noticed", get: ([, one]) => one.segments.detected, show: (v, [, one]) => `${v} of ${one.segments.total}` },
  area("ROC AUC", "roc_auc"), area("average precision", "average_precision"),
], classes);

const lost = (shown, total) => (shown < total ? ` The ${whole(shown)} highest are listed.` : "");
const wrong = data.false_alarms, missed = data.unnoticed;
const places = [
  { title: "sensor", text: true, get: (one) => one.sensor },
  { title: "first row", text: true, hint: "file and row, counted from 1: the event's id", get: (one) => one.event },
  { title: "time (UTC)", text: true, get: (one) => one.time, show: when },
  { title: "rows", get: (one) => one.rows, show: whole },
  { title: "highest score", get: (one) => one.score, show: short },
];
at("false-note").textContent = wrong.total
  ? `${plural(wrong.rows, "row")} labelled normal were flagged, in ${plural(wrong.total, "stretch").replace("stretchs", "stretches")}.${lost(wrong.listed.length, wrong.total)} Click one to see it.`
  : "None: no row labelled normal was flagged.";
if (wrong.total) table("false", [...places, { title: "features", text: true, wrap: true, get: (one) => one.named.join(", ") }], wrong.listed, { click: (one) => visit(one.sensor, one.time) });
at("unnoticed-note").textContent = missed.total
  ? `${plural(missed.total, "fault")} never reached a score of 1.${missed.listed.length < missed.total ? ` The ${missed.listed.length} nearest to it are listed.` : ""} Click one to see it.`
  : "None: each had a row that was flagged.";
if (missed.total) table("unnoticed", [...places, { title: "label", text: true, get: (one) => one.label }], missed.listed, { click: (one) => visit(one.sensor, one.time) });

// ---------------------------------------------------------------- worst minutes, advice, settings

function spark(one) {
  const values = one.readings, W = 330, H = 62;
  const known = values.filter((value) => value !== null);
  if (!known.length || !one.named.length) return null;
  const expected = one.named[0][2];
  const low = Math.min(...known, expected), high = Math.max(...known, expected);
  const x = (i) => 5 + (i / Math.max(values.length - 1, 1)) * (W - 10), y = (v) => H - 7 - ((v - low) / (high - low || 1)) * (H - 14);
  let d = "", open = false;
  values.forEach((value, i) => { if (value === null) open = false; else { d += `${open ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`; open = true; } });
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, width: "100%", height: H, preserveAspectRatio: "none" });
  root.append(svg("path", { d, fill: "none", stroke: "var(--main)", "stroke-width": 1.2, "vector-effect": "non-scaling-stroke" }));
  root.append(svg("circle", { cx: x(one.at), cy: y(expected), r: 4, fill: "none", stroke: "var(--good)", "stroke-width": 1.6 }));
  if (values[one.at] !== null) root.append(svg("circle", { cx: x(one.at), cy: y(values[one.at]), r: 4, fill: "var(--fault)" }));
  return root;
}

for (const one of data.worst) {
  const mood = one.label === null ? "" : one.label === "normal" ? "normal" : "fault";
  const rows = one.named.map(([feature, value, expected, part]) => el("tr", {},
    el("td", {}, feature), el("td", { class: "number" }, short(value)), el("td", { class: "number" }, short(expected)),
    el("td", {}, el("span", { class: "bar", style: `width:${Math.round((60 * part) / one.named[0][3])}px` }), ` ${Math.round(100 * part)} %`)));
  const head = el("tr", {}, el("th", {}, "feature"), el("th", { class: "number" }, "read"), el("th", { class: "number" }, "expected"), el("th", {}, "share"));
  const look = el("button", { onclick: () => visit(one.sensor, one.time) }, "Show");
  at("worst").append(el("div", { class: "moment" },
    el("div", { class: "what" }, el("b", {}, `${one.sensor}, score ${short(one.score)}`), el("span", { class: `tag ${mood}` }, one.label ?? "no label"), look),
    el("div", { class: "when" }, `${when(one.time)} UTC, ${one.event}`),
    spark(one), el("table", {}, head, ...rows)));
}
if (!data.worst.length) at("worst").append(el("p", { class: "note" }, "No row scored 1 or above."));

for (const one of data.advice) {
  at("advice").append(el("div", { class: "advice" }, el("b", {}, one.title), el("p", {}, one.text), one.options ? el("code", {}, one.options) : null));
}
if (!data.advice.length) at("advice").append(el("p", { class: "note" }, "Nothing stands out. Try another seed, fewer verdicts, or a longer delay to see how firm these figures are."));

for (const [section, values] of Object.entries(figures.settings)) {
  const rows = Object.entries(flat(values)).map(([name, value]) => el("tr", {}, el("td", {}, el("code", {}, name ? `${section}.${name}` : section)), el("td", {}, JSON.stringify(value))));
  at("settings").append(el("details", {}, el("summary", {}, section), el("table", {}, ...rows)));
}
function flat(value, prefix = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return { [prefix]: value };
  return Object.assign({}, ...Object.entries(value).map(([name, one]) => flat(one, prefix ? `${prefix}.${name}` : name)));
}

at("footer").textContent = `stream-ad ${figures.version}. Every row was scored before anything was learned from it. ` +
  `${whole(figures.events_per_second)} events a second.`;

function drawAll() { drawTime(); drawCurves(); drawProgress(); }
choose(Math.max(0, sensors.reduce((best, one, i) => (one.faults.length > (sensors[best]?.faults.length ?? -1) ? i : best), 0)));
drawAll();
addEventListener("resize", drawAll);

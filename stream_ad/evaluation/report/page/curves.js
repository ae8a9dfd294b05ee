// Curves: precision and recall, ROC, quality as labels arrive.

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
  else at("pr").append(el("p", { class: "note" }, "Only one class was evaluated here: there is nothing to tell apart."));
  for (const line of [...data.lines].reverse()) {
    const one = chosen[line];
    if (!one) continue;
    const style = { fill: "none", stroke: colour(line), "stroke-width": line === "detector" ? 2.2 : 1.4 };
    const steps = one.recall.map((recall, i) => `${i ? `H${pr.x(recall).toFixed(1)}V` : `M${pr.x(0)} ${pr.y(one.precision[0]).toFixed(1)}H${pr.x(recall).toFixed(1)}V`}${pr.y(one.precision[i]).toFixed(1)}`);
    pr.root.append(svg("path", { d: steps.join(""), ...style }));
    const points = one.recall.map((recall, i) => `L${roc.x(one.fall_out[i]).toFixed(1)} ${roc.y(recall).toFixed(1)}`);
    roc.root.append(svg("path", { d: `M${roc.x(0)} ${roc.y(0)}${points.join("")}`, ...style }));
    if (one.of_alarm) {
      const [recall, fallOut, precision] = one.of_alarm;
      const dot = { r: 4.5, fill: colour(line), stroke: "var(--card)", "stroke-width": 1.5 };
      if (precision !== null) pr.root.append(svg("circle", { cx: pr.x(recall), cy: pr.y(precision), ...dot }));
      roc.root.append(svg("circle", { cx: roc.x(fallOut), cy: roc.y(recall), ...dot }));
    }
    at("curve-legend").prepend(key(`${data.titles[line]}: AP ${fixed(one.average_precision)}, AUC ${fixed(one.roc_auc)}`, COLOURS[line]));
  }
  at("curve-legend").append(el("i", {}, "The curves are of the score, the dots of the rows that alarm; the dashed line is chance."));
}
for (const name of Object.keys(data.curves)) at("curve-of").append(el("option", { value: name }, name || "all sensors together"));
at("curve-of").addEventListener("change", drawCurves);

// ---------------------------------------------------------------- quality as labels arrive

let measure = 1;
function drawProgress() {
  const { row, labels, detector, unlabelled } = data.progress;
  if (!row.length) { at("progress").replaceChildren(el("p", { class: "note" }, "No row was evaluated.")); return; }
  const all = [...detector, ...unlabelled].map((both) => both[measure]).filter((value) => value !== null);
  const low = Math.max(0, Math.floor((Math.min(1, ...all) - 0.02) * 10) / 10), high = Math.min(1, Math.ceil((Math.max(0, ...all) + 0.02) * 10) / 10);
  const { root, x, y, H, bottom, top } = frame(at("progress"), [row[0], row.at(-1)], [low, high], "rows so far", ["ROC AUC", "average precision"][measure]);
  const most = Math.max(labels.at(-1), 1), floor = H - bottom;
  const area = row.map((r, i) => `L${x(r).toFixed(1)} ${(floor - (labels[i] / most) * (floor - top) * 0.9).toFixed(1)}`);
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
    tell(event, `after ${plural(row[i], "row")}, ${plural(labels[i], "label")}\nwith labels ${fixed(detector[i][measure])}` +
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
at("progress-legend").append(key("with labels", "--main"));
if (figures.without_labels) at("progress-legend").append(key("without", "--second"));
at("progress-legend").append(key("labels so far", "--good", "--opacity: .2;"), el("i", {}, "Each point covers all rows up to there, mean of sensors."));

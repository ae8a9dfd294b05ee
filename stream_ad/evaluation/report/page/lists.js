// Tables, the worst minutes, advice, settings; at the end, everything is drawn.

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
  { title: "evaluated", get: ([, one]) => one.evaluated, show: whole },
  { title: "anomalies", get: ([, one]) => one.anomalies, show: whole },
  area("ROC AUC", "roc_auc"), area("average precision", "average_precision"),
  { title: "faults found", get: ([, one]) => one.segments.detected, show: (v, [, one]) => `${v} of ${one.segments.total}` },
  { title: "events until found", hint: "median", get: ([, one]) => one.segments.delay_events_median, show: short },
  { title: "incidents", get: ([, one]) => one.incidents, show: whole },
  { title: "false", hint: "incidents that cover no fault", get: ([, one]) => one.false_incidents, show: whole },
], Object.entries(figures.sensors), { click: ([name]) => visit(name) });

const classes = Object.entries(figures.per_class);
at("section-classes").hidden = classes.length < 2;
table("classes", [
  { title: "class", text: true, get: ([name]) => name },
  { title: "rows", get: ([, one]) => one.rows, show: whole },
  area("ROC AUC", "roc_auc"), area("average precision", "average_precision"),
  ...budgets.map((budget) => ({ title: budget.budget, hint: "faults found at this budget", get: ([name]) => budget.by_class[name]?.found ?? null,
    show: (v, [name]) => (v === null ? "–" : `${v} of ${budget.by_class[name].faults}`) })),
], classes);

const unlabelled = figures.without_labels && figures.without_labels.incidents.budgets;
table("budgets", [
  { title: "budget of each sensor", text: true, get: (one) => one.budget + (one.configured ? " (configured)" : ""), sort: (one) => one.rate },
  { title: "promised", hint: "false incidents that it allows on the evaluated rows, all sensors together", get: (one) => one.promised, show: rounded },
  { title: "false incidents", get: (one) => one.false, show: (v, one) => el("span", { class: isOver(one) ? "over" : "" }, whole(v)) },
  { title: "faults found", get: (one) => one.found, show: (v, one) => `${whole(v)} of ${whole(one.faults)}` },
  { title: "events until found", hint: "median", get: (one) => one.median_delay_events, show: short },
  { title: "time in alarm", hint: "share of the evaluated rows that incidents cover", get: (one) => one.time_in_alarm, show: percent },
  ...(unlabelled ? [
    { title: "without labels: false", get: (one) => unlabelled[budgets.indexOf(one)].false, show: whole },
    { title: "found", get: (one) => unlabelled[budgets.indexOf(one)].found, show: whole },
  ] : []),
], budgets, { rowClass: (one) => (one.configured ? "mine" : "") });
const named = (counts) => Object.entries(counts).filter(([, count]) => count).map(([name, count]) => `${whole(count)} ${name.replace("_", " ")}`).join(", ");
const { opened, kinds, severities, reasons } = figures.incidents;
at("budgets-note").textContent = "What would have happened at each budget. What is learned does not depend on it. " +
  (opened ? `At the configured one ${plural(opened, "incident")} opened: ${named(kinds)}; ${named(severities)}; ${named(reasons)}.` : "At the configured one no incident opened.");

const lost = (shown, total) => (shown < total ? ` The ${whole(shown)} with the highest alarm are listed.` : "");
const wrong = data.false_incidents, missed = data.missed;
const places = [
  { title: "sensor", text: true, get: (one) => one.sensor },
  { title: "first row", text: true, hint: "file and row, counted from 1: the event's id", get: (one) => one.event },
  { title: "time (UTC)", text: true, get: (one) => one.time, show: when },
  { title: "rows", get: (one) => one.rows, show: whole },
  { title: "highest alarm", get: (one) => one.alarm, show: short },
];
at("false-note").textContent = wrong.total
  ? `${plural(wrong.total, "incident")} covered rows labelled normal and no fault.${lost(wrong.listed.length, wrong.total)} Click one to see it.`
  : "None: every incident over labelled rows covered a fault.";
if (wrong.total) table("false", [
  ...places,
  { title: "kind", text: true, get: (one) => one.kind },
  { title: "severity", text: true, get: (one) => one.severity },
  { title: "features", text: true, wrap: true, get: (one) => one.named.join(", ") },
], wrong.listed, { click: (one) => visit(one.sensor, one.time) });
at("missed-note").textContent = missed.total
  ? `At ${plural(missed.total, "fault")} nothing alarmed.${lost(missed.listed.length, missed.total)} Click one to see it.`
  : "None: each had a row that alarmed.";
if (missed.total) table("missed", [...places, { title: "label", text: true, get: (one) => one.label }], missed.listed, { click: (one) => visit(one.sensor, one.time) });

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
    el("div", { class: "what" }, el("b", {}, `${one.sensor}, score ${short(one.score)}, alarm ${short(one.alarm)}`), el("span", { class: `tag ${mood}` }, one.label ?? "no label"), look),
    el("div", { class: "when" }, `${when(one.time)} UTC, ${one.event}`),
    spark(one), el("table", {}, head, ...rows)));
}
if (!data.worst.length) at("worst").append(el("p", { class: "note" }, "No row alarmed."));

for (const one of data.advice) {
  at("advice").append(el("div", { class: "advice" }, el("b", {}, one.title), el("p", {}, one.text), one.options ? el("code", {}, one.options) : null));
}
if (!data.advice.length) at("advice").append(el("p", { class: "note" }, "Nothing stands out. Try another seed, fewer labels, or a longer delay to see how firm these figures are."));

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

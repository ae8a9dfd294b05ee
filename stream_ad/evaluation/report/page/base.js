// What the parts of the page share: figures, words, elements; and the head of the page.
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
  `${when(data.span_ms[0])} to ${when(data.span_ms[1])} UTC. ${plural(figures.evaluated, "row")} evaluated, ${whole(figures.anomalies)} of them anomalies. ` +
  `Labels on ${share} ${protocol.intervals ? "segments, as intervals" : "rows"}, ${protocol.label_delay} late; ${whole(figures.labels.given)} arrived.` +
  (figures.complete ? "" : " Interrupted: these are the rows done by then.");

function card(name, value, below, mood = "") {
  at("cards").append(
    el("div", { class: "card" }, el("div", { class: "name" }, name), el("div", { class: "value" }, value), el("div", { class: `below ${mood}` }, below)),
  );
}
function gain(now, before) {
  if (now === null || !figures.without_labels || before === null) return ["", ""];
  const by = now - before;
  return [`${by >= 0 ? "+" : "−"}${Math.abs(by).toFixed(3)} by labels`, by > 0.0005 ? "better" : by < -0.0005 ? "worse" : ""];
}
const before = figures.without_labels || {};
const budgets = figures.incidents.budgets;
const configured = budgets.find((one) => one.configured);
const rounded = (value) => (value >= 100 ? whole(value) : short(value && Number(value.toPrecision(2))));
const OVER = 3; // times the promise, and more than so many false incidents, is over it
const isOver = (one) => one.false > OVER * one.promised && one.false > OVER;
card("ROC AUC", fixed(figures.roc_auc), ...gain(figures.roc_auc, before.roc_auc));
card("Average precision", fixed(figures.average_precision), ...gain(figures.average_precision, before.average_precision));
card("Faults found", `${whole(configured.found)} of ${whole(configured.faults)}`,
  configured.median_delay_events === null ? "" : `${configured.found > 1 ? "half of them " : ""}within ${plural(Math.floor(configured.median_delay_events) + 1, "event")}`);
card("False incidents", whole(configured.false), `${rounded(configured.promised)} promised: ${configured.budget}`, isOver(configured) ? "worse" : "");
card("Incidents a day", rounded(figures.incidents.per_day), "opened, true and false");
card("Time in alarm", percent(configured.time_in_alarm), "of the evaluated rows");

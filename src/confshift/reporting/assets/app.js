// Draws the charts, and lets every chart, sentence and table follow the chosen pair of epochs.

const embedded = id => JSON.parse(document.getElementById(id).textContent);
const data = {...embedded("data"), samples: embedded("sample-data")};
const model = new Model(data), views = new Views(model);
const charts = new Map();  // by figure id: {figure, view, rows: those drawn, by table; drawn: the state they are of}
const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
let state = {before: data.pair[0], after: data.pair[1], scale: data.scale, span: "near", only: null, pinned: null, values: {}};

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// ---- charts

function specOf({dataset: {chart, variant}}) {
  return structuredClone(data.specs[variant ? `${chart}_${state[variant]}` : chart]);
}

async function draw(figure) {
  const asked = state, spec = specOf(figure), sources = spec.data.filter(one => !one.source && !one.values && !one.url);
  const rows = new Map(sources.map(({name}) => [name, views.rows(name, asked)]));
  // The first rows stand in the spec: scales of an empty table warn about an infinite extent.
  for (const source of sources) source.values = rows.get(source.name);
  // The chart is one image, named by its holder; of its marks, none has a name of its own.
  const live = make("div", undefined, {class: "live", "aria-hidden": "true"});
  charts.get(figure.id)?.view.finalize();
  charts.delete(figure.id);
  find(".chart", figure).replaceChildren(live);
  const options = {mode: "vega", renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: showTip};
  const {view} = await vegaEmbed(live, spec, options);
  if (!live.isConnected) return view.finalize();  // a later drawing has taken its place
  charts.set(figure.id, {figure, view, rows, drawn: asked});
  view.addEventListener("click", (_, item) => { if (item?.datum?.i !== undefined) choose({pinned: item.datum.i}); });
  if (figure.dataset.drag) draggable(figure, view);
  await refresh(figure);
}

const near = figure => {
  const box = figure.getBoundingClientRect();
  return box.bottom > -200 && box.top < innerHeight + 200;
};

// A figure that is being drawn has no chart yet; it refreshes itself once it has.
async function refresh(figure) {
  const chart = charts.get(figure.id);
  if (!chart || chart.drawn === state) return;
  chart.drawn = state;
  const changed = Array.from(chart.rows.keys()).filter(name => chart.rows.get(name) !== views.rows(name, state));
  for (const name of changed) {
    chart.rows.set(name, views.rows(name, state));
    chart.view.data(name, views.rows(name, state));
  }
  if (changed.length) await chart.view.runAsync();
}

const TURN = 40;  // milliseconds
const pause = () => new Promise(resolve => setTimeout(resolve));

// What is in sight follows at once, the rest in turns short enough not to be felt.
async function refreshAll() {
  const mine = state, figures = Array.from(charts.values(), chart => chart.figure);
  for (const figure of figures.filter(near)) await refresh(figure);
  let since = 0;
  for (const figure of figures) {
    if (performance.now() - since > TURN) {
      await pause();
      since = performance.now();
    }
    if (state !== mine) return;
    await refresh(figure);
  }
  document.body.dataset.shown = `${state.before},${state.after}`;
}

// ---- tooltips and inputs

// The input of a sample, where the report was given one: its image from the sprite, or its text.
function input(i, size) {
  const {tiles, texts, side, columns} = data.samples.inputs;
  if (i in texts) return [Object.assign(make("span", texts[i]), {className: "input"})];
  if (!(i in tiles)) return [];
  const image = make("span", undefined, {role: "img", "aria-label": `input of sample ${data.samples.ids[i]}`});
  image.className = "thumb";
  Object.assign(image.style, {
    width: `${size}px`, height: `${size}px`, backgroundSize: `${columns * size}px auto`,
    backgroundPosition: `-${tiles[i] % columns * size}px -${Math.floor(tiles[i] / columns) * size}px`,
  });
  return [image];
}

const tip = make("div", undefined, {id: "tip", role: "status"});

// What is told of a row, where the chart gives the row itself: see WHOLE_ROW in charts/pieces.py.
const TOLD = {
  sample: "sample", true: "true class", said_before: "predicted at A", said: "predicted at B", loss_before: "loss at A", loss_after: "loss at B",
  epoch: "epoch", transition: "transition", contribution: "nats",
};
const written = value => typeof value === "number" ? shown(value) : value;
const toldOf = row => Object.entries(TOLD).filter(([name]) => name in row).map(([name, title]) => [title, written(row[name])]);

function showTip(_, event, item, value) {
  tip.hidden = !value;
  if (!value) return;
  const table = make("table");
  for (const [name, text] of value === item.datum ? toldOf(value) : Object.entries(value)) {
    const line = make("tr");
    line.append(make("td", name), make("td", text));
    table.append(line);
  }
  tip.replaceChildren(...(item?.datum?.i === undefined ? [] : input(item.datum.i, 96)), table);
  const {width, height} = tip.getBoundingClientRect(), [x, y] = [event.clientX, event.clientY];
  tip.style.left = `${Math.max(4, x + 16 + width > innerWidth ? x - width - 12 : x + 16)}px`;
  tip.style.top = `${Math.max(4, y + 12 + height > innerHeight ? y - height - 8 : y + 12)}px`;
}

// ---- words and tables

function write() {
  const values = state.values;
  for (const element of all("[data-reading]")) element.textContent = fill(data.readings[element.dataset.reading], values);
  for (const row of views.rows("cells", state)) {
    const sentence = find(`[data-cell="${row.key}"]`);
    if (sentence) sentence.textContent = fill(data.readings[`cell_${row.key}`], {n: row.samples, c: row.contribution});
  }
  document.body.classList.toggle("moved", state.before !== data.pair[0] || state.after !== data.pair[1]);
  for (const [side, at] of [["A", state.before], ["B", state.after]]) {
    const control = find(`#epoch-${side}`);
    if (control) control.value = at;
  }
  for (const details of all("details.rows[open]")) fillTable(details);
  writeMovers();
  writePinned();
}

function writeMovers() {
  const body = find("#movers tbody");
  if (!body) return;
  const held = all("button", body).indexOf(document.activeElement);
  body.replaceChildren(...views.rows("movers", state).map(row => {
    const line = make("tr"), first = make("td"), button = make("button", row.sample, {type: "button", "aria-pressed": row.i === state.pinned});
    button.className = "link";
    button.addEventListener("click", () => choose({pinned: row.i}));
    const shown = input(row.i, data.samples.inputs.side);
    first.append(...(row.i in data.samples.inputs.tiles ? [...shown, button] : [button, ...shown]));
    const cells = [row.true, row.said_before, row.said, nats(row.loss_before), nats(row.loss_after), signed(row.change)];
    line.append(first, ...cells.map(text => make("td", text)));
    return line;
  }));
  all("button", body)[held]?.focus({preventScroll: true});  // who came by keyboard goes on from there
}

function writePinned() {
  const box = find("#pinned");
  if (!box) return;
  if (state.pinned === null) return box.replaceChildren();
  const row = views.sample(state.pinned, state);
  const {at_A, at_B} = state.values;
  const sentence = `Sample ${row.sample}, true class ${row.true}: predicted ${row.said_before} at ${at_A}, ` +
    `${row.said} at ${at_B}; loss ${nats(row.loss_before)} to ${nats(row.loss_after)} nats (${signed(row.change)}).`;
  box.replaceChildren(...input(state.pinned, 128), sentence);
}

const MOST_ROWS = 200;
// Places on an axis are for the chart; the reader gets the numbers. In some tables a number's name is a place's.
const PLACES = ["order", "next", "right", "room", "text", "key", "i", "x", "y", "start", "end", "size", "row", "column"];
const PLACES_OF = {bins_before: ["low", "high"], bins_after: ["low", "high"], samples: ["before", "after"], trajectory: ["loss"]};
const TITLES = {exact: "loss"};  // not cut off at the edge of the axis, as its place is

// The rows behind a chart as they are told: the names of their columns, and their values.
function tableOf({dataset: {table}}) {
  const rows = views.rows(table, state), hidden = [...PLACES, ...PLACES_OF[table] ?? []];
  const names = rows.length ? Object.keys(rows[0]).filter(name => !hidden.includes(name)) : [];
  return {head: names.map(name => TITLES[name] ?? name), rows: rows.map(row => names.map(name => row[name]))};
}

function shown(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)));
}

function fillTable(details) {
  const {head, rows} = tableOf(details.closest(".figure")), table = make("table"), top = make("tr");
  top.append(...head.map(name => make("th", name.replaceAll("_", " "), {scope: "col"})));
  const lines = rows.slice(0, MOST_ROWS).map(row => {
    const line = make("tr");
    line.append(...row.map(value => make("td", shown(value))));
    return line;
  });
  const header = make("thead"), body = make("tbody");
  header.append(top);
  body.append(...lines);
  table.append(header, body);
  const more = rows.length - lines.length;
  find(".scroll", details).replaceChildren(table, ...(more > 0 ? [make("p", `and ${more} more rows: download the CSV.`)] : []));
}

// A spreadsheet must not take a name for a formula.
function csvCell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  const text = typeof value === "string" && /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(figure) {
  const {head, rows} = tableOf(figure);
  const text = [head, ...rows].map(line => line.map(csvCell).join(",")).join("\r\n");
  const address = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  make("a", "", {href: address, download: `${figure.dataset.chart}.csv`}).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// ---- choosing

// The pair that a choice leads to. With A = B there is none: what was shown stays. The report's own pair may run
// backwards, every other is put in the order of time.
function settled({before, after}) {
  if (data.paired && before === after) return {before: state.before, after: state.after};
  const own = before === data.pair[0] && after === data.pair[1];
  return before > after && !own ? {before: after, after: before} : {before, after};
}

function choose(change) {
  const next = {...state, ...change};
  Object.assign(next, settled(next));
  next.values = model.values(next.before, next.after);
  state = next;
  write();
  writeAddress();
  return refreshAll();
}

// A class comes with its own sample: the one that rose most.
function chooseClass(text) {
  const only = text === "" ? null : Number(text);
  return choose({only, pinned: views.movers({...state, only})[0]?.i ?? null});
}

function nearest(epoch) {
  const distance = model.epochs.map(one => Math.abs(one - epoch));
  return distance.indexOf(Math.min(...distance));
}

// The position of an epoch that is written as text; undefined where the run has none such.
function placeOf(text) {
  const epoch = text.trim() === "" ? NaN : Number(text), at = nearest(epoch);
  return Number.isFinite(epoch) && Math.abs(model.epochs[at] - epoch) <= 1e-9 * Math.abs(epoch) ? at : undefined;
}

// The epochs that the address names, where the run has them; null where it speaks of none.
function fromAddress() {
  const asked = new URLSearchParams(data.two_runs ? "" : location.hash.slice(1)), found = {};
  if (!asked.has("A") && !asked.has("B")) return null;
  for (const [name, side] of [["A", "before"], ["B", "after"]]) {
    const at = placeOf(asked.get(name) ?? "");
    if (at !== undefined) found[side] = at;
  }
  return found;
}

function writeAddress() {
  if (!data.paired || data.two_runs) return;
  try {
    history.replaceState(null, "", `#A=${model.epochs[state.before]}&B=${model.epochs[state.after]}`);
  } catch (error) {
    if (error.name !== "SecurityError") throw error;  // a page inside another (srcdoc) has no address of its own
  }
}

function draggable(figure, view) {
  const holder = find(".live", figure);
  const at = event => {
    const scale = view.scale("x"), left = find("svg", holder).getBoundingClientRect().left + view.origin()[0];
    return nearest(scale.invert(Math.min(view.width(), Math.max(0, event.clientX - left))));
  };
  let from = null, frame = 0;
  holder.addEventListener("pointerdown", event => { if (event.button === 0) { from = at(event); holder.setPointerCapture(event.pointerId); } });
  holder.addEventListener("pointermove", event => {
    if (from === null || at(event) === from) return;
    const to = at(event);
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => choose({before: Math.min(from, to), after: Math.max(from, to)}));
  });
  for (const end of ["pointerup", "pointercancel"]) holder.addEventListener(end, () => { setTimeout(() => { from = null; }); });
}

function listen() {
  for (const [side, name] of [["A", "before"], ["B", "after"]])
    find(`#epoch-${side}`)?.addEventListener("change", event => choose({[name]: Number(event.target.value)}));
  find("#back")?.addEventListener("click", () => choose({before: data.pair[0], after: data.pair[1]}));
  const carried = new Set(data.samples.targets);
  for (const option of all("#only option")) option.disabled = option.value !== "" && !carried.has(Number(option.value));
  find("#only")?.addEventListener("change", event => chooseClass(event.target.value));
  for (const button of all("[data-variant][value]"))
    button.addEventListener("click", () => redraw(button.dataset.variant, button.value));
  for (const details of all("details.rows")) details.addEventListener("toggle", () => { if (details.open) fillTable(details); });
  for (const button of all("button.csv")) button.addEventListener("click", () => download(button.closest(".figure")));
  // A link inside the page must not overwrite the epochs in the address.
  for (const link of all('a[href^="#"]')) link.addEventListener("click", event => {
    event.preventDefault();
    const target = find(link.getAttribute("href"));
    target?.scrollIntoView({behavior: "smooth"});
    target?.focus({preventScroll: true});
  });
  addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});
  addEventListener("keydown", event => { if (event.key === "Escape") tip.hidden = true; });
  addEventListener("hashchange", () => {
    const asked = fromAddress();
    if (asked) choose(asked);
  });
  listenToPrinting();
}

// Paper has another width, and nothing on it can be unfolded.
function listenToPrinting() {
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all(".steps details:not([open])");
    for (const details of folded) details.open = true;
    for (const chart of charts.values()) chart.view.resize().run();
  });
  addEventListener("afterprint", () => { for (const details of folded) details.open = false; });
}

async function redraw(variant, value) {
  state = {...state, [variant]: value};
  write();
  for (const button of all(`button[data-variant="${variant}"]`)) button.setAttribute("aria-pressed", button.value === value);
  for (const figure of all(`.figure[data-variant="${variant}"]`)) await draw(figure);
  await refreshAll();  // what a choice had begun, and this has cut off
}

async function start() {
  document.documentElement.classList.add("scripted");
  tip.hidden = true;
  document.body.append(tip);
  await model.decode();
  const asked = fromAddress();
  Object.assign(state, settled({...state, ...asked}));
  state.values = model.values(state.before, state.after);
  state.pinned = data.paired ? views.rows("movers", state)[0]?.i ?? null : model.worst(state.after);
  state = {...state};
  listen();
  write();
  if (asked) writeAddress();
  for (const figure of all(".figure[data-chart]")) {
    await draw(figure);
    await pause();
  }
  document.body.dataset.ready = Math.round(performance.now());
  await refreshAll();
}

window.confshift = {model, fill, rows: name => views.rows(name, state), values: () => state.values, choose};
start();

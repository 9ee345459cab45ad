// Tooltips, inputs, sentences, tables and files.

// The input of a sample, if the report has it: its image from the sprite, or its text.
function input(i, size) {
  const {tiles, texts, columns} = data.samples.inputs;
  if (i in texts) return [Object.assign(make("span", texts[i]), {className: "input"})];
  if (!(i in tiles)) return [];
  const image = make("span", undefined, {role: "img", "aria-label": say(`input of sample ${data.samples.ids[i]}`)});
  image.className = "thumb";
  Object.assign(image.style, {
    width: `${size}px`, height: `${size}px`, backgroundSize: `${columns * size}px auto`,
    backgroundPosition: `-${tiles[i] % columns * size}px -${Math.floor(tiles[i] / columns) * size}px`,
  });
  return [image];
}

const tip = make("div", undefined, {id: "tip", role: "status"});

// The lines of a tooltip whose chart passes the whole row: see WHOLE_ROW in charts/parts.py.
const TOOLTIP_TITLES = {
  sample: "sample", true: "true class", said_before: "predicted at A", said_after: "predicted at B", loss_before: "loss at A", loss_after: "loss at B",
  epoch: "epoch", transition: "transition", contribution: "nats",
};
const tooltipText = value => typeof value === "number" ? cellText(value) : value;
const tooltipOf = row => Object.entries(TOOLTIP_TITLES).filter(([name]) => name in row).map(([name, title]) => [title, tooltipText(row[name])]);

function showTip(_, event, item, value) {
  tip.hidden = !value;
  if (!value) return;
  const table = make("table");
  for (const [name, text] of value === item.datum ? tooltipOf(value) : Object.entries(value)) {
    const line = make("tr");
    line.append(make("td", name), make("td", text));
    table.append(line);
  }
  tip.replaceChildren(...(item?.datum?.i === undefined ? [] : input(item.datum.i, 96)), table);
  const {width, height} = tip.getBoundingClientRect(), [x, y] = [event.clientX, event.clientY];
  tip.style.left = `${Math.max(4, x + 16 + width > innerWidth ? x - width - 12 : x + 16)}px`;
  tip.style.top = `${Math.max(4, y + 12 + height > innerHeight ? y - height - 8 : y + 12)}px`;
}

// ---- sentences and tables

function write() {
  const values = state.values;
  for (const element of all("[data-reading]")) element.textContent = unbroken(say(fill(data.readings[element.dataset.reading], values)));
  writeBars();
  document.body.classList.toggle("moved", state.before !== data.pair[0] || state.after !== data.pair[1]);
  for (const [side, at] of [["A", state.before], ["B", state.after]]) {
    const control = find(`#epoch-${side}`);
    if (control) control.value = at;
  }
  for (const details of all("details.rows[open]")) fillTable(details);
  writeMovers();
  writePinned();
}

// The bars of the first screen, from zero, which is where the losses lie that did not change.
function writeBars() {
  const amountOf = name => name === "total" ? state.values.loss_change : state.values[name];
  const bars = all("[data-bar]"), amounts = bars.map(bar => amountOf(bar.dataset.bar));
  const low = Math.min(0, ...amounts), room = Math.max(0, ...amounts) - low || 1;
  bars.forEach((bar, at) => {
    bar.style.left = `${100 * (Math.min(amounts[at], 0) - low) / room}%`;
    bar.style.width = `${100 * Math.abs(amounts[at]) / room}%`;
  });
}

const SMALL = 24;  // the side of an image in the table

function writeMovers() {
  const body = find("#movers tbody");
  if (!body) return;
  const focus = all("button", body).indexOf(document.activeElement);
  body.replaceChildren(...views.rows("movers", state).map(row => {
    const line = make("tr"), first = make("td"), button = make("button", row.sample, {type: "button", "aria-pressed": row.i === state.pinned});
    button.className = "link";
    button.addEventListener("click", () => choose({pinned: row.i}));
    const picture = input(row.i, SMALL);
    first.append(...(row.i in data.samples.inputs.tiles ? [...picture, button] : [button, ...picture]));
    const cells = [row.true, row.said_before, row.said_after, ...levelsAndChange(row.loss_before, row.loss_after)];
    line.append(first, ...cells.map(text => make("td", text)));
    return line;
  }));
  all("button", body)[focus]?.focus({preventScroll: true});  // so that a keyboard user can continue there
}

function writePinned() {
  const box = find("#pinned");
  if (!box) return;
  if (state.pinned === null) return box.replaceChildren();
  const row = views.sample(state.pinned, state);
  const {at_A, at_B} = state.values;
  const last = `${row.said_after} at ${at_B}; loss `, [first, second, change] = levelsAndChange(row.loss_before, row.loss_after);
  const sentence = `Sample ${row.sample}, true class ${row.true}: predicted ` + (data.paired ?
    `${row.said_before} at ${at_A}, ${last}${first} to ${second} nats (${change}).` :
    `${last}${nats(row.loss_after)} nats.`);
  box.replaceChildren(...input(state.pinned, 128), unbroken(say(sentence)));
}

const MOST_ROWS = 200;
// Columns of places on an axis: for the chart only. In some tables the name of a number means a place.
const PLACES = ["order", "next", "right", "room", "text", "key", "i", "x", "y", "start", "end", "size", "row", "column"];
const PLACES_OF = {reliability: ["low", "high"], samples: ["before", "after"], trajectory: ["loss"]};
const TITLES = {
  exact: "loss",  // unlike its place, which is clipped at the edge of the axis
  true: "true class", said: "predicted", said_before: "predicted at A", said_after: "predicted at B",
  loss_before: "loss at A", loss_after: "loss at B",
};

// The rows behind a chart for the reader: the names of their columns, and their values.
function tableOf({dataset: {table}}) {
  const rows = views.rows(table, state), hidden = [...PLACES, ...PLACES_OF[table] ?? []];
  const names = rows.length ? Object.keys(rows[0]).filter(name => !hidden.includes(name)) : [];
  // JSON has no infinity, so a mean is infinite where some sample's loss is.
  const valueOf = (row, name) => row.infinite_samples > 0 && ["loss", "refinement_loss"].includes(name) ? Infinity : row[name];
  return {head: names.map(name => TITLES[name] ?? name), rows: rows.map(row => names.map(name => valueOf(row, name)))};
}

function cellText(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (typeof value !== "number") return String(value);
  if (value === Infinity) return "\u221e";
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)));
}

function fillTable(details) {
  const {head, rows} = tableOf(details.closest(".figure")), table = make("table"), top = make("tr");
  top.append(...head.map(name => make("th", name.replaceAll("_", " "), {scope: "col"})));
  const lines = rows.slice(0, MOST_ROWS).map(row => {
    const line = make("tr");
    line.append(...row.map(value => make("td", cellText(value))));
    return line;
  });
  const header = make("thead"), body = make("tbody");
  header.append(top);
  body.append(...lines);
  table.append(header, body);
  const more = rows.length - lines.length;
  find(".scroll", details).replaceChildren(table, ...(more > 0 ? [make("p", `and ${more} more rows: download the CSV.`)] : []));
}

// A spreadsheet must not read a text as a formula, wherever it splits a line, also at semicolons. So every text is in
// quotes, and one that begins like a formula, also after blanks or in wide characters, has an apostrophe before it.
function csvCell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (typeof value === "number") return String(value);
  const text = String(value);
  return `"${(/^\s*[=+\-@＝＋－＠]|^[\t\r\n]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
}

function csvOf(figure) {
  const {head, rows} = tableOf(figure);
  return [head, ...rows].map(line => line.map(csvCell).join(",")).join("\r\n");
}

// The chart as a picture of its own, which has no style sheet: in the light colours, on white.
async function svgOf(figure) {
  const svg = await charts.get(figure.id)?.view.toSVG();
  const light = Array.from(document.styleSheets[0].cssRules).find(rule => rule.selectorText === ":root").style;
  return svg?.replace(/="var\(--(\w+)\)"/g, (_, name) => `="${light.getPropertyValue(`--${name}`).trim()}"`)
    .replace(">", '><rect width="100%" height="100%" fill="white"/>');
}

// Puts the text beside a button into the clipboard. A page opened from a file may have no clipboard of its own: then
// the text is selected and copied as a reader would do it, and stays selected where even that is forbidden.
async function copy(button) {
  const text = find("code", button.parentElement);
  let isCopied = false;
  try {
    await navigator.clipboard.writeText(text.textContent);
    isCopied = true;
  } catch {
    getSelection().selectAllChildren(text);
    isCopied = document.execCommand("copy");
  }
  button.textContent = isCopied ? "Copied" : "Selected";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

async function download(figure, kind) {
  const [text, type] = kind === "csv" ? [csvOf(figure), "text/csv"] : [await svgOf(figure), "image/svg+xml"];
  if (text === undefined) return;  // not drawn yet
  const address = URL.createObjectURL(new Blob([text], {type}));
  make("a", "", {href: address, download: `${figure.dataset.chart}.${kind}`}).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

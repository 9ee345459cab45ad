// What the reader chooses, and the start.

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
  next.values = pairs.values(next.before, next.after);
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
  const distance = pairs.epochs.map(one => Math.abs(one - epoch));
  return distance.indexOf(Math.min(...distance));
}

// The position of an epoch that is written as text; undefined where the run has none such.
function placeOf(text) {
  const epoch = text.trim() === "" ? NaN : Number(text), at = nearest(epoch);
  return Number.isFinite(epoch) && Math.abs(pairs.epochs[at] - epoch) <= 1e-9 * Math.abs(epoch) ? at : undefined;
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
    history.replaceState(null, "", `#A=${pairs.epochs[state.before]}&B=${pairs.epochs[state.after]}`);
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
  for (const kind of ["csv", "svg"])
    for (const button of all(`button.${kind}`)) button.addEventListener("click", () => download(button.closest(".figure"), kind));
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
  await pairs.decode();
  const asked = fromAddress();
  Object.assign(state, settled({...state, ...asked}));
  state.values = pairs.values(state.before, state.after);
  state.pinned = data.paired ? views.rows("movers", state)[0]?.i ?? null : pairs.worst(state.after);
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

window.confshift = {pairs, fill, rows: name => views.rows(name, state), values: () => state.values, choose};
start();

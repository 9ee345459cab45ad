// The reader's choices, and the start.

// The pair that a choice leads to. A = B is no pair, so the current one stays. The report's own pair may run
// backwards; every other is put in order of time.
function validPair({before, after}) {
  if (data.paired && before === after) return {before: state.before, after: state.after};
  const isOwn = before === data.pair[0] && after === data.pair[1];
  return before > after && !isOwn ? {before: after, after: before} : {before, after};
}

function choose(change) {
  const next = {...state, ...change};
  Object.assign(next, validPair(next));
  next.values = pairs.values(next.before, next.after);
  state = next;
  write();
  writeAddress();
  return refreshAll();
}

// Choosing a class also chooses its sample that rose most.
function chooseClass(text) {
  const only = text === "" ? null : Number(text);
  return choose({only, pinned: views.movers({...state, only})[0]?.i ?? null});
}

function nearest(epoch) {
  const distance = pairs.epochs.map(other => Math.abs(other - epoch));
  return distance.indexOf(Math.min(...distance));
}

// The position of an epoch given as text; undefined where the run has no such epoch.
function placeOf(text) {
  const epoch = text.trim() === "" ? NaN : Number(text), at = nearest(epoch);
  return Number.isFinite(epoch) && Math.abs(pairs.epochs[at] - epoch) <= 1e-9 * Math.abs(epoch) ? at : undefined;
}

// The epochs that the address names, as far as the run has them; null where it names none.
function fromAddress() {
  const parameters = new URLSearchParams(data.two_runs ? "" : location.hash.slice(1)), pair = {};
  if (!parameters.has("A") && !parameters.has("B")) return null;
  for (const [name, side] of [["A", "before"], ["B", "after"]]) {
    const at = placeOf(parameters.get(name) ?? "");
    if (at !== undefined) pair[side] = at;
  }
  return pair;
}

function writeAddress() {
  if (!data.paired || data.two_runs) return;
  const isOwn = state.before === data.pair[0] && state.after === data.pair[1];
  if (following.every > 0 && isOwn && !fromAddress()) return;  // the page that follows has its newest pair
  try {
    history.replaceState(history.state, "", `#A=${pairs.epochs[state.before]}&B=${pairs.epochs[state.after]}`);
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
  const present = new Set(data.samples.targets);
  for (const option of all("#only option")) option.disabled = option.value !== "" && !present.has(Number(option.value));
  find("#only")?.addEventListener("change", event => chooseClass(event.target.value));
  for (const button of all("[data-variant][value]"))
    button.addEventListener("click", () => redraw(button.dataset.variant, button.value));
  for (const details of all("details.rows")) details.addEventListener("toggle", () => { if (details.open) fillTable(details); });
  for (const kind of ["csv", "svg"])
    for (const button of all(`button.${kind}`)) button.addEventListener("click", () => download(button.closest(".figure"), kind));
  for (const button of all("button.copy")) button.addEventListener("click", () => copy(button));
  // A link inside the page must not overwrite the epochs in the address.
  for (const link of all('a[href^="#"]')) link.addEventListener("click", event => {
    event.preventDefault();
    const target = find(link.getAttribute("href"));
    for (let fold = target?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    target?.scrollIntoView({behavior: "smooth"});
    target?.focus({preventScroll: true});
  });
  addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});
  addEventListener("keydown", event => { if (event.key === "Escape") tip.hidden = true; });
  addEventListener("hashchange", () => {
    const pair = fromAddress();
    if (pair) choose(pair);
  });
  listenToPrinting();
}

// Paper has another width, and a reader can't unfold anything on it.
function listenToPrinting() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not(.rows, [open])");
    for (const details of closed) details.open = true;
    for (const chart of charts.values()) chart.view.resize().run();
  });
  addEventListener("afterprint", () => { for (const details of closed) details.open = false; });
}

async function redraw(variant, value) {
  state = {...state, [variant]: value};
  write();
  for (const button of all(`button[data-variant="${variant}"]`)) button.setAttribute("aria-pressed", button.value === value);
  for (const figure of all(`.figure[data-variant="${variant}"]`)) await draw(figure);
  await refreshAll();  // completes the refresh of a choice that this redraw interrupted
}

async function start() {
  document.documentElement.classList.add("scripted");
  tip.hidden = true;
  document.body.append(tip);
  await pairs.decode();
  const pair = fromAddress();
  Object.assign(state, placeBefore(), validPair({...state, ...pair}));
  state.values = pairs.values(state.before, state.after);
  state.pinned ??= data.paired ? views.rows("movers", state)[0]?.i ?? null : pairs.worst(state.after);
  state = {...state};
  listen();
  follow();
  showChoices();
  write();
  if (pair) writeAddress();
  returnToPlace();
  await inTurns(all(".figure[data-chart]"), async figure => {
    await draw(figure);
    sight.observe(figure);
    if (!following.touched) returnToPlace();
  });
  document.body.dataset.ready = Math.round(performance.now());
  await refreshAll();
}

window.confshift = {pairs, fill, following, rows: name => views.rows(name, state), values: () => state.values, choose};
start();

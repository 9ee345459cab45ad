// Draws the charts, and refreshes them when the choice changes.

function specOf({dataset: {chart, variant}}) {
  return {...structuredClone(data.specs[variant ? `${chart}_${state[variant]}` : chart]), config: data.config};
}

async function draw(figure) {
  const snapshot = state, spec = specOf(figure), sources = spec.data.filter(source => !source.source && !source.values && !source.url);
  const rows = new Map(sources.map(({name}) => [name, views.rows(name, snapshot)]));
  // The spec includes the first rows: scales of an empty table warn about an infinite extent.
  for (const source of sources) source.values = rows.get(source.name);
  // The chart is one image, and its holder has its name; marks have no names of their own.
  const live = make("div", undefined, {class: "live", "aria-hidden": "true"});
  charts.get(figure.id)?.view.finalize();
  charts.delete(figure.id);
  find(".chart", figure).replaceChildren(live);
  const options = {mode: "vega", renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: showTip};
  const {view} = await vegaEmbed(live, spec, options);
  if (!live.isConnected) return view.finalize();  // a later drawing has taken its place
  charts.set(figure.id, {figure, view, rows, drawn: snapshot});
  view.addEventListener("click", (_, item) => { if (item?.datum?.i !== undefined) choose({pinned: item.datum.i}); });
  if (figure.dataset.drag) draggable(figure, view);
  await refresh(figure);
}

// The figures in sight, or nearly. To ask for their boxes instead would lay out the page once more at each choice.
const inSight = new Set();
const sight = new IntersectionObserver(seen => {
  for (const {target, isIntersecting} of seen) inSight[isIntersecting ? "add" : "delete"](target);
}, {rootMargin: "200px 0px"});

// A figure that is being drawn has no chart yet; it refreshes itself once it has.
async function refresh(figure) {
  const chart = charts.get(figure.id);
  if (!chart || chart.drawn === state) return;
  chart.drawn = state;
  const names = Array.from(chart.rows.keys()).filter(name => chart.rows.get(name) !== views.rows(name, state));
  for (const name of names) {
    chart.rows.set(name, views.rows(name, state));
    chart.view.data(name, views.rows(name, state));
  }
  if (names.length) await chart.view.runAsync();
}

const TURN = 40;  // milliseconds
const pause = () => new Promise(resolve => setTimeout(resolve));

// Works on figures in turns too short to notice, until the work answers false.
async function inTurns(figures, work) {
  let since = performance.now();
  for (const figure of figures) {
    if (await work(figure) === false) return false;
    if (performance.now() - since < TURN) continue;
    await pause();
    since = performance.now();
  }
  return true;
}

// Refreshes the charts in sight at once, the others in turns.
async function refreshAll() {
  const snapshot = state, figures = Array.from(charts.values(), chart => chart.figure);
  for (const figure of figures.filter(figure => inSight.has(figure))) await refresh(figure);
  await pause();
  const isDone = await inTurns(figures, figure => state === snapshot && refresh(figure));
  if (isDone && state === snapshot) document.body.dataset.shown = `${state.before},${state.after}`;
}

// A page that follows a training: it reloads itself from its file, keeps its place, and waits while the reader is at work.

const QUIET = 3000;  // milliseconds without a touch, before it reloads

const following = {every: 1000 * Number(document.body.dataset.reload), due: 0, touched: 0, paused: false, place: history.state?.place ?? null};

const detailsKey = details => `${details.closest("[id]")?.id} ${find("summary", details).textContent}`;

// What the reader sees at the top of the window, and how far from its edge. Ids inside a drawing change with it.
function topmost() {
  const elements = all("main [id]").filter(element => !element.closest("svg") && element.getBoundingClientRect().top <= 1);
  const element = elements.at(-1);
  return element ? {id: element.id, offset: element.getBoundingClientRect().top} : null;
}

function keepPlace() {
  const {scale, span, only, pinned} = state;
  const place = {
    scale, span, only, sample: pinned === null ? null : String(data.samples.ids[pinned]),
    open: all("details[open]").map(detailsKey), top: topmost(), scroll: scrollY, paused: following.paused,
  };
  history.replaceState({place}, "");
}

// The choices that a reload must not undo, besides the two epochs, which the address has.
function placeBefore() {
  if (!following.place) return {};
  const {scale, span, only, sample} = following.place, pinned = data.samples.ids.findIndex(id => String(id) === sample);
  return {scale, span, only, ...(pinned < 0 ? {} : {pinned})};
}

function showChoices() {
  const filter = find("#only");
  if (filter) filter.value = state.only ?? "";
  for (const button of all("button[data-variant]")) button.setAttribute("aria-pressed", button.value === state[button.dataset.variant]);
  const open = new Set(following.place?.open);
  for (const details of all("details")) if (open.has(detailsKey(details))) details.open = true;
}

// Charts that are drawn above move what is below, so this is repeated until all are.
function returnToPlace() {
  const {top, scroll} = following.place ?? {}, element = top && document.getElementById(top.id);
  if (element) scrollBy({top: element.getBoundingClientRect().top - top.offset, behavior: "instant"});
  else if (scroll) scrollTo({top: scroll, behavior: "instant"});
}

const atWork = () => performance.now() - following.touched < QUIET || document.activeElement?.matches("select") ||
  !tip.hidden || String(getSelection()) !== "";

function reloadWhenDue() {
  if (following.paused || document.hidden || performance.now() < following.due || atWork()) return;
  following.due = Infinity;
  keepPlace();
  location.reload();
}

function follow() {
  if (!(following.every > 0)) return;
  history.scrollRestoration = "manual";
  following.due = performance.now() + following.every;
  const button = find("#pause");
  const show = () => {
    button.setAttribute("aria-pressed", following.paused);
    button.textContent = following.paused ? "Follow again" : "Pause";
  };
  following.paused = following.place?.paused ?? false;
  show();
  button.addEventListener("click", () => {
    following.paused = !following.paused;
    show();
  });
  for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"])
    addEventListener(kind, event => { if (event.target !== button) following.touched = performance.now(); }, {passive: true});
  document.addEventListener("visibilitychange", reloadWhenDue);
  setInterval(reloadWhenDue, 250);
}

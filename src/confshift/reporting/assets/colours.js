// The colours of the page: those of the system, light ones or dark ones. It runs before anything is shown, so that no
// page appears in other colours first.

const KEY = "confshift-colours";
const dark = Array.from(document.styleSheets[0].cssRules).find(rule => rule.media?.mediaText.includes("dark")).media;
const asSystem = dark.mediaText;
let chosen = "system";

// A page inside another, or opened from a file, may have no storage: then it keeps the choice as long as it is open.
function stored(work) {
  try {
    return work(localStorage);
  } catch {
    return null;
  }
}

function paint() {
  dark.mediaText = {light: "not all", dark: "screen"}[chosen] ?? asSystem;  // paper is light
  document.querySelector("meta[name=color-scheme]").content = chosen === "system" ? "light dark" : chosen;
  for (const button of document.querySelectorAll(".colours button")) button.setAttribute("aria-pressed", button.value === chosen);
}

function choose(value) {
  chosen = ["light", "dark"].includes(value) ? value : "system";
  paint();
}

choose(stored(storage => storage.getItem(KEY)));
document.addEventListener("DOMContentLoaded", paint);  // the buttons are there
document.addEventListener("click", event => {
  const button = event.target.closest(".colours button");
  if (!button) return;
  choose(button.value);
  stored(storage => storage.setItem(KEY, chosen));
});

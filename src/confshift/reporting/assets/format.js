// Number formats, the same as in findings/wording.py, so that both write the same sentence.

const MINUS = "\u2212";

// Rounds as Python does: a tie, exactly half a unit of the last digit, goes to the even digit.
function fixed(value, decimals) {
  const exact = value.toFixed(decimals + 40), cut = exact.slice(0, -40).replace(/\.$/, "");
  const tie = /^50*$/.test(exact.slice(-40));
  return tie && Number(cut.at(-1)) % 2 === 0 ? cut : value.toFixed(decimals);
}

const NOTHING = 1e-9;  // a smaller number is only the rounding of a sum

function nats(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "?" : "\u221e";
  const size = Math.abs(value), small = NOTHING < size && size < 0.0995;
  const decimals = small ? 1 - Math.floor(Math.log10(size)) : size < 100 ? 2 : 0;
  return (value < -NOTHING ? MINUS : "") + fixed(size, decimals);
}

const decimalsOf = text => (text.split(".")[1] ?? "").length;
const MOST_OWN_DECIMALS = 4;

// Two amounts of loss and their difference, with enough digits to add up as they are written.
function levelsAndChange(before, after) {
  if (!Number.isFinite(after - before)) return [...[before, after].map(value => Number.isFinite(value) ? nats(value) : "\u2013"), "\u2013"];
  const own = Math.min(Math.max(decimalsOf(nats(before)), decimalsOf(nats(after))), MOST_OWN_DECIMALS);
  const size = decimalsOf(nats(after - before));
  const places = Math.max(own, size <= MOST_OWN_DECIMALS ? size : size - 1), more = places < MOST_OWN_DECIMALS ? [places + 1] : [];
  const [first, second, change, decimals] = rounded(before, after, [places, ...more]), off = change - (second - first), unit = 10 ** decimals;
  return off * (before * unit - first) <= off * (second - after * unit) ? written(first - off, second, decimals) : written(first, second + off, decimals);
}

// The same of two fractions, as percentages and points.
function sharesAndChange(before, after) {
  if (!Number.isFinite(after - before)) return [...[before, after].map(value => Number.isFinite(value) ? percent(value) : "\u2013"), "\u2013"];
  const decimals = Math.max(1, ...[before, after].map(value => decimalsOf(percent(value).replace(" %", ""))));
  const units = rounded(100 * before, 100 * after, [decimals, decimals + 1]);
  const [first, second, change] = written(units[0], units[1], units[3]);
  return [`${first} %`, `${second} %`, `${change} points`];
}

// Two numbers and their difference in units of the last digit, with the first decimals that let them add up, else the last.
function rounded(before, after, places) {
  let units, decimals;
  for (decimals of places) {
    units = [before, after, after - before].map(value => Number(fixed(value, decimals).replace(".", "")));
    if (units[1] - units[0] === units[2]) break;
  }
  return [...units, decimals];
}

function written(first, second, decimals) {
  const texts = [first, second, Math.abs(second - first)].map(units => fixed(units / 10 ** decimals, decimals).replace("-", MINUS));
  return [texts[0], texts[1], (second < first ? MINUS : "+") + texts[2]];
}

const signed = value => (value < -NOTHING ? MINUS : "+") + nats(Math.abs(value));

const MOST_DECIMALS = 6;

// The parts of an amount of loss so that they add up as written, with its decimals or with more.
function addingUp(parts, total, places) {
  if (![...parts, total].every(Number.isFinite)) return parts.map(() => "\u2013");
  const size = Math.abs(total) > NOTHING ? Math.abs(total) : Math.max(...parts.map(Math.abs));
  const decimals = places ?? Math.min(decimalsOf(nats(size)), MOST_DECIMALS), unit = 10 ** decimals;
  const wholes = parts.map(part => Math.floor(part * unit)), rest = at => parts[at] * unit - wholes[at];
  const missing = Math.round(Number(fixed(total, decimals)) * unit) - sum(wholes);
  const nearest = [...parts.keys()].sort((a, b) => rest(b) - rest(a));
  for (const at of nearest.slice(0, Math.max(missing, 0))) wholes[at]++;
  return wholes.map(whole => (whole < 0 ? MINUS : "+") + fixed(Math.abs(whole) / unit, decimals));
}

function percent(share) {
  const distance = Math.min(Math.abs(share), 1 - Math.abs(share));
  let decimals = 1;
  if (distance < NOTHING) decimals = Math.abs(share) > 0.5 ? 0 : 1;
  else if (distance < 0.001) decimals = -Math.floor(Math.log10(100 * distance));
  return `${fixed(100 * share, decimals)} %`.replace("-", MINUS);
}

const whole = value => value.toLocaleString("en-US", {maximumFractionDigits: 0});

function points(difference) {
  const text = fixed(100 * difference, 1).replace("-", MINUS);
  return `${text.startsWith(MINUS) ? "" : "+"}${text} points`;
}

const FORMATS = {
  nats, signed, percent, points,
  bare_points: value => points(value).replace(" points", ""),
  count: whole,
  samples: value => `${value === 0 ? "no" : whole(value)} sample${value === 1 ? "" : "s"}`,
  epoch: value => String(Number.isInteger(value) ? value : Number(value.toPrecision(6))),
  rose: value => Math.abs(value) <= NOTHING ? "did not change" : value > 0 ? "rose" : "fell",
  text: String,
};

// Keeps a number on one line with its unit, or with what it is the number of; characters.py has the same pattern.
const unbroken = text => text.replace(/ (?:(?<=\d )(?=(?:nats|%|points)(?!\w))|(?<=\b[Ee]poch )(?=\d)|(?<=\b[Ee]pochs )(?=\d)|(?<=\bT )(?== )|(?<=\bT[ \xa0]= )(?=\S))/g, "\xa0");

function fill(template, values) {
  return template.replace(/\{(\w+):(\w+)\}/g, (_, name, format) => {
    const value = values[name];
    return typeof value === "number" && !Number.isFinite(value) ? "\u2013" : FORMATS[format](value);
  });
}

// How numbers are written: the same formats as findings/wording.py, so that both write the same sentence.

const MINUS = "\u2212";

function nats(value) {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return String(value);
  if (size && size < 0.001) return short(value);
  if (size && size < 0.0995) return value.toFixed(2 - Math.floor(Math.log10(size)) - 1);
  return value.toFixed(size < 100 ? 2 : 0);
}

function short(value) {  // two significant digits, as Python's .2g
  const [digits, exponent] = value.toExponential(1).split("e");
  if (Number(exponent) >= -4) return String(Number(value.toPrecision(2)));
  return `${String(Number(digits))}e-${String(-Number(exponent)).padStart(2, "0")}`;
}

const signed = value => (value >= 0 ? "+" : MINUS) + nats(Math.abs(value));
const percent = share => `${(100 * share).toFixed(Math.abs(share) < 0.995 ? 1 : 0)} %`;
const whole = value => value.toLocaleString("en-US", {maximumFractionDigits: 0});

function points(difference) {
  const text = (100 * difference).toFixed(1).replace("-", MINUS);
  return `${text.startsWith(MINUS) ? "" : "+"}${text} points`;
}

const FORMATS = {
  nats, signed, percent, points,
  bare_points: value => points(value).replace(" points", ""),
  count: whole,
  samples: value => `${whole(value)} sample${value === 1 ? "" : "s"}`,
  epoch: value => String(Number(value.toPrecision(6))),
  ratio: value => value.toFixed(2),
  rose: value => value > 0 ? "rose" : value < 0 ? "fell" : "did not change",
  text: String,
};

function fill(template, values) {
  return template.replace(/\{(\w+):(\w+)\}/g, (_, name, format) => {
    const value = values[name];
    return typeof value === "number" && !Number.isFinite(value) ? "\u2013" : FORMATS[format](value);
  });
}

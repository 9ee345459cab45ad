// The numbers of any pair of epochs. Epochs are known by their position; a difference is after minus before.

const TRANSITIONS = ["stayed_right", "forgotten", "learned", "stayed_wrong"];
const [UP, DOWN, UNCHANGED] = [0, 1, 2];

// As Python rounds: half a unit goes to the even number.
const evenly = value => Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value);

const number = value => value === null ? NaN : value;  // JSON has no NaN
const sum = values => values.reduce((total, value) => total + value, 0);

async function unpack(id) {
  const text = atob(document.getElementById(id).textContent.trim()), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);  // ten times as fast as Uint8Array.from
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

class Model {
  constructor(data) {
    this.data = data;
    this.epochs = data.epochs.epoch;
    this.columns = Object.fromEntries(Object.entries(data.epochs).map(([name, values]) => [name, values.map(number)]));
    this.samples = data.samples;
  }

  async decode() {
    const {carried, span, floor, bits, weights} = this.samples;
    const [losses, predicted, contributions, counts] =
      await Promise.all(["losses", "predicted", "pair_contributions", "pair_samples"].map(unpack));
    const codes = new Uint16Array(losses);
    this.loss = new Float32Array(codes.length);
    this.predicted = new {8: Uint8Array, 16: Uint16Array, 32: Uint32Array}[bits](predicted);
    this.silent = 2 ** bits - 1;  // predicted by a sample without an answer; with one its loss may be infinite
    for (let i = 0; i < codes.length; i++) this.loss[i] = codes[i] < 65535 ? floor * Math.expm1(codes[i] / 65534 * span) : this.predicted[i] === this.silent ? NaN : Infinity;
    this.weight = weights.length ? Float64Array.from(weights) : new Float64Array(carried).fill(1);
    this.contributions = new Float32Array(contributions);
    this.counts = new Uint32Array(counts);
    this.pairs = this.contributions.length / 12;
    if (this.data.gaps) this.means = new Float32Array(await unpack("pair_means"));
  }

  // A checkpoint's mean over the samples that it shares with the other, or their number; see pack_pair_means.
  shared(quantity, at, other) {
    const count = this.epochs.length;
    return this.means[(quantity * count + at) * count + other];
  }

  // The means that a pair is compared by: of all samples, or of those with a finite loss (an answer) at both.
  pairMeans(at, other) {
    const columns = ["loss", "accuracy", "refinement_loss", "calibration_loss", "hedge", "error_rate", "mistake_cost"];
    if (!this.data.gaps) return Object.fromEntries(columns.map(name => [name, this.columns[name][at]]));
    const [loss, correct, hedge, mistake, refinement, , accuracy] = [0, 1, 2, 3, 4, 5, 6].map(quantity => this.shared(quantity, at, other));
    return {loss, accuracy, hedge, refinement_loss: refinement, calibration_loss: loss - refinement, error_rate: 1 - correct, mistake_cost: correct < 1 ? mistake / (1 - correct) : NaN};
  }

  // What the numbers of a pair are over, and what is left out of them.
  sampleValues(before, after) {
    const c = this.columns, all = this.samples.all, counted = (quantity, at, other) => this.data.gaps ? this.shared(quantity, at, other) : all;
    const {counts} = this.cells(before, after), switched = at => sum([...counts.slice(3 * at, 3 * at + 3)]);
    const values = {
      scored: counted(5, before, after), answered: counted(7, before, after),
      forgotten_answers: this.data.gaps ? this.shared(8, before, after) : switched(1),
      learned_answers: this.data.gaps ? this.shared(8, after, before) : switched(2),
    };
    for (const [side, at] of [["before", before], ["after", after]]) {
      values[`nonfinite_${side}`] = c.nonfinite_samples[at];
      values[`infinite_${side}`] = c.infinite_samples[at];
    }
    return values;
  }

  right(epoch, sample) { return this.predicted[epoch * this.samples.carried + sample] === this.samples.targets[sample]; }

  answered(epoch, sample) { return this.predicted[epoch * this.samples.carried + sample] !== this.silent; }

  lossAt(epoch, sample) { return this.loss[epoch * this.samples.carried + sample]; }

  transition(before, after, sample) { return (this.right(before, sample) ? 0 : 2) + (this.right(after, sample) ? 0 : 1); }

  // The exact contributions and samples of the 12 cells, as Python computed them.
  cells(before, after) {
    const sums = new Float64Array(12), counts = new Float64Array(12);
    if (before === after) return {sums, counts};
    const [first, last] = [Math.min(before, after), Math.max(before, after)];
    const pair = first * this.epochs.length - first * (first + 1) / 2 + last - first - 1;
    for (let cell = 0; cell < 12; cell++) {
      const [transition, direction] = [Math.floor(cell / 3), cell % 3];
      // Looked at backwards, learned is forgotten and up is down.
      const turned = 3 * [0, 2, 1, 3][transition] + [DOWN, UP, UNCHANGED][direction];
      const source = before < after ? cell : turned;
      sums[cell] = (before < after ? 1 : -1) * this.contributions[source * this.pairs + pair];
      counts[cell] = this.counts[source * this.pairs + pair];
    }
    return {sums, counts};
  }

  // Each carried sample's change of loss, NaN where one side's is not finite; kept for the pair in use.
  changes(before, after) {
    if (this.changed?.before !== before || this.changed.after !== after) {
      const {carried} = this.samples, change = new Float64Array(carried);
      for (let i = 0; i < carried; i++) {
        const one = this.loss[after * carried + i] - this.loss[before * carried + i];
        change[i] = Number.isFinite(one) ? one : NaN;
      }
      this.changed = {before, after, change};
    }
    return this.changed.change;
  }

  values(before, after) {
    const chosen = this.data.pair;
    if (before === chosen[0] && after === chosen[1])  // as Python computed them
      return Object.fromEntries(Object.entries(this.data.values).map(([name, value]) => [name, number(value)]));
    const change = this.changes(before, after), c = this.columns;
    const called = at => `epoch ${FORMATS.epoch(this.epochs[at])}`;
    const values = {A: this.epochs[before], B: this.epochs[after], at_A: called(before), at_B: called(after), temperature_after: c.temperature[after]};
    const [first, second] = [this.pairMeans(before, after), this.pairMeans(after, before)];
    for (const [name, column] of Object.entries({loss: "loss", accuracy: "accuracy", refinement: "refinement_loss", calibration: "calibration_loss"})) {
      values[`${name}_before`] = first[column];
      values[`${name}_after`] = second[column];
      values[`${name}_change`] = second[column] - first[column];
    }
    [values.cost_before, values.cost_after] = [first.mistake_cost, second.mistake_cost];
    for (const [name, column] of Object.entries({gap: "confidence_gap", ece: "ece", ece_null: "ece_null", sure_right: "sure_right", sure_wrong: "sure_wrong"})) {
      values[`${name}_before`] = c[column][before];
      values[`${name}_after`] = c[column][after];
    }
    [values.loss_from, values.loss_to] = apart(values.loss_before, values.loss_after);
    [values.refinement_from, values.refinement_to] = apart(values.refinement_before, values.refinement_after);
    [values.unscaled, values.scaled] = apart(values.loss_after, values.refinement_after);
    values.calibration_margin = 1.96 * c.calibration_loss_se[after];
    const turned = Float64Array.from(change, (_, i) => this.answered(before, i) && this.answered(after, i) ? this.right(after, i) - this.right(before, i) : NaN);
    [values.loss_low, values.loss_high] = this.interval(change, values.loss_change);
    [values.accuracy_low, values.accuracy_high] = this.interval(turned, values.accuracy_change);
    Object.assign(values, this.sampleValues(before, after), this.account(first, second), this.cellValues(before, after),
      this.classValues(before, after), this.concentration(before, after));
    return Object.assign(values, this.texts(values));
  }

  // The sentences that are chosen by the numbers; readings.py chooses by the same.
  texts(values) {
    const keys = {
      loss_moved: values.infinite_before > 0 ? values.infinite_after > 0 ? "stayed" : "fell" : values.infinite_after > 0 ? "rose" : "finite",
      left_out: values.nonfinite_before + values.nonfinite_after > 0 ? "some" : "none",
      costs: Number.isFinite(values.cost_before + values.cost_after) ? "wrong" : "right",
      class_fall: values.fell_before - values.fell_after > NOTHING ? "fell" : "none",
      class_top: values.top_contribution > NOTHING ? "adds" : "none",
      carried: values.cancelling > 0 ? "rise" : "none",
    };
    return Object.fromEntries(Object.entries(keys).map(([name, key]) => [name, fill(this.data.choices[name][key], values)]));
  }

  // Kitagawa's split of H + e C; where nobody is wrong on one side, C is taken from the other.
  account(...both) {
    const hedge = both.map(one => one.hedge), rate = both.map(one => one.error_rate);
    let cost = both.map(one => one.mistake_cost);
    cost = cost.map((one, at) => Number.isNaN(one) ? cost[1 - at] : one).map(one => Number.isNaN(one) ? 0 : one);
    return {
      hedging: hedge[1] - hedge[0],
      error_rate: (cost[0] + cost[1]) / 2 * (rate[1] - rate[0]),
      mistake_cost: (rate[0] + rate[1]) / 2 * (cost[1] - cost[0]),
    };
  }

  cellValues(before, after) {
    const {sums, counts} = this.cells(before, after), values = {N: sum(counts)};
    TRANSITIONS.forEach((name, at) => {
      values[name] = sum(sums.slice(3 * at, 3 * at + 3));
      values[`${name}_samples`] = sum(counts.slice(3 * at, 3 * at + 3));
    });
    for (const [name, direction] of [["up", UP], ["down", DOWN]]) {
      values[name] = sum(TRANSITIONS.map((_, at) => sums[3 * at + direction]));
      values[`${name}_samples`] = sum(TRANSITIONS.map((_, at) => counts[3 * at + direction]));
    }
    return values;
  }

  classes(before, after) {
    if (this.data.gaps) return this.sharedClasses(before, after);
    const {names, samples, accuracy, loss} = this.data.classes;
    return names.map((name, k) => ({
      class_name: name, samples: samples[k],
      before: number(accuracy[k][before]), after: number(accuracy[k][after]),
      contribution: samples[k] / this.samples.all * (number(loss[k][after]) - number(loss[k][before])),
    }));
  }

  // The same where some losses are not finite: from the carried samples with one (an answer) on both sides.
  sharedClasses(before, after) {
    const {names, shown} = this.data.classes, change = this.changes(before, after), {targets} = this.samples;
    const rows = names.map(name => ({class_name: name, samples: 0, answers: 0, before: 0, after: 0, contribution: 0}));
    const place = new Map(shown.map((code, at) => [code, rows[at]]));
    let all = 0;
    change.forEach((one, i) => {
      const row = place.get(targets[i]), scored = Number.isNaN(one) ? 0 : this.weight[i];
      all += scored;
      if (!row) return;
      row.samples += scored;
      row.contribution += scored && scored * one;
      if (!this.answered(before, i) || !this.answered(after, i)) return;
      row.answers += this.weight[i];
      row.before += this.weight[i] * this.right(before, i);
      row.after += this.weight[i] * this.right(after, i);
    });
    return rows.map(({answers, ...row}) => ({...row, before: row.before / answers, after: row.after / answers, contribution: row.contribution / all}));
  }

  classValues(before, after) {
    const rows = this.classes(before, after);
    const top = rows.reduce((best, row) => row.contribution > best.contribution ? row : best);
    const fell = rows.reduce((worst, row) => row.after - row.before < worst.after - worst.before ? row : worst);
    return {
      shown_classes: rows.length, shown_contribution: sum(rows.map(row => row.contribution)),
      top_class: top.class_name, top_contribution: top.contribution,
      fell_class: fell.class_name, fell_before: fell.before, fell_after: fell.after,
    };
  }

  // How many samples of the run some carried ones stand for.
  weightOf(samples) { return sum(samples.map(i => this.weight[i])); }

  // Carried samples with a change, those that rose most first.
  ranked(before, after) {
    const change = this.changes(before, after);
    this.changed.order ??= Array.from(change.keys()).filter(i => !Number.isNaN(change[i])).sort((i, j) => change[j] - change[i]);
    return this.changed.order;
  }

  worst(epoch) {
    const losses = Array.from({length: this.samples.carried}, (_, i) => this.lossAt(epoch, i));
    return losses.reduce((best, loss, i) => loss > losses[best] || Number.isNaN(losses[best]) ? i : best, 0);
  }

  concentration(before, after) {
    const change = this.changes(before, after), order = this.ranked(before, after), total = this.weightOf(order);
    const gross = sum(order.map(i => this.weight[i] * Math.max(change[i], 0)));
    const share = percent => {
      let left = Math.max(1, evenly(total * percent / 100)), top = 0;
      for (const i of order) {
        if (left <= 0 || change[i] <= 0) break;
        top += Math.min(left, this.weight[i]) * change[i];
        left -= this.weight[i];
      }
      return gross > 0 ? top / gross : NaN;
    };
    let rest = sum(order.map(i => this.weight[i] * change[i])), cancelling = 0;
    for (const i of order) {
      if (rest <= 0) break;
      rest -= this.weight[i] * change[i];
      cancelling += this.weight[i];
    }
    return {top_1: share(1), top_10: share(10), cancelling: Math.round(cancelling)};
  }

  // Student's t at 97.5 % with n - 1 degrees of freedom; where a pair shares fewer samples, by Cornish and Fisher.
  quantile(n) {
    if (!this.data.gaps) return this.data.quantile;
    const z = 1.959963984540054, f = n - 1;
    return z + (z ** 3 + z) / (4 * f) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * f ** 2) +
      (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / (384 * f ** 3);
  }

  // Hall's skewness-adjusted interval of a mean difference (significance.py), about the exact mean.
  interval(values, mean) {
    let n = 0, centre = 0, second = 0, third = 0;
    values.forEach((value, i) => { if (!Number.isNaN(value)) { n += this.weight[i]; centre += this.weight[i] * value; } });
    if (n < 3) return [NaN, NaN];
    centre /= n;
    values.forEach((value, i) => {
      if (Number.isNaN(value)) return;
      second += this.weight[i] * (value - centre) ** 2;
      third += this.weight[i] * (value - centre) ** 3;
    });
    const spread = Math.sqrt(second / (n - 1)), se = spread / Math.sqrt(n);
    if (!(spread > 0)) return [mean, mean];
    const k = third / n / spread ** 3 / Math.sqrt(n), q = this.quantile(n);
    const unskew = at => Math.abs(k) < 1e-9 ? at : 3 / k * (Math.cbrt(1 + k * (at - k / 6)) - 1);
    return [mean - se * unskew(q), mean - se * unskew(-q)];
  }
}

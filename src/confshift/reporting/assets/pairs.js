// The numbers of any pair of epochs, by their positions; a difference is after minus before.

const TRANSITIONS = ["stayed_right", "forgotten", "learned", "stayed_wrong"], ACCOUNT = ["hedging", "error_rate", "mistake_cost"];
const [UP, DOWN, UNCHANGED] = [0, 1, 2];

// The values of one epoch that sentences name, and their columns in `data.epochs`.
const OF_EPOCH = {
  loss: "loss", accuracy: "accuracy", refinement: "refinement_loss", calibration: "calibration_loss", scale: "scale_loss", cost: "mistake_cost",
  gap: "confidence_gap", ece: "ece", ece_null: "ece_null", sure_right: "sure_right", sure_wrong: "sure_wrong",
  nonfinite: "nonfinite_samples", infinite: "infinite_samples",
};

// Rounds as Python does: half a unit goes to the even number.
const evenly = value => Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value);

const number = value => value === null ? NaN : value;  // JSON has no NaN
const sum = values => values.reduce((total, value) => total + value, 0);

// A part of the page that is gzipped and written as base64.
function unpack(id) {
  const text = atob(document.getElementById(id).textContent.trim()), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);  // ten times as fast as Uint8Array.from
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

// The change of each part of the loss, with its levels, so that every column adds up; as in pair_values.py.
function partsOf(values) {
  const [scale, calibration, rest] = ["scale", "calibration", "refinement"].map(name => [values[`${name}_before`], values[`${name}_after`]]);
  const levels = [scale, calibration.map((whole, side) => whole - scale[side]), rest], changes = levels.map(([before, after]) => after - before);
  const decimals = decimalsOf(values.loss_difference), amounts = addingUp(changes, values.loss_change, decimals);
  const starts = addingUp(levels.map(([before]) => before), Number(values.loss_from), decimals), texts = {};
  const read = text => Number(text.replace(MINUS, "-")), write = level => (level < -NOTHING ? MINUS : "") + fixed(Math.abs(level), decimals);
  ["scale_part", "balance_part", "rest_part"].forEach((name, at) => {
    const [start, amount] = [starts[at], amounts[at]], isKnown = start !== "\u2013" && amount !== "\u2013";
    texts[name] = changes[at];
    texts[`${name}_amount`] = amount;
    texts[`${name}_levels`] = isKnown ? `${write(read(start))} \u2192 ${write(read(start) + read(amount))}` : "\u2013";
  });
  return texts;
}

class Pairs {
  constructor(data) {
    this.data = data;
    this.epochs = data.epochs.epoch;
    this.columns = Object.fromEntries(Object.entries(data.epochs).map(([name, values]) => [name, values.map(number)]));
    this.samples = data.samples;
  }

  async decode() {
    const {carried, span, floor, bits, weights} = this.samples;
    const [losses, predicted, contributions, counts, table] =
      await Promise.all(["losses", "predicted", "pair_contributions", "pair_samples", "pair_table"].map(id => unpack(id).arrayBuffer()));
    const codes = new Uint16Array(losses);
    this.loss = new Float32Array(codes.length);
    this.predicted = new {8: Uint8Array, 16: Uint16Array, 32: Uint32Array}[bits](predicted);
    this.silent = 2 ** bits - 1;  // the prediction of a sample without an answer; a sample with an answer may have an infinite loss
    for (let i = 0; i < codes.length; i++) this.loss[i] = codes[i] < 65535 ? floor * Math.expm1(codes[i] / 65534 * span) : this.predicted[i] === this.silent ? NaN : Infinity;
    this.weight = weights.length ? Float64Array.from(weights) : new Float64Array(carried).fill(1);
    const {class_weights, targets} = this.samples;
    this.mass = this.weight.map((weight, i) => class_weights.length ? weight * class_weights[targets[i]] : weight);  // in a mean of losses
    this.contributions = new Float32Array(contributions);
    this.counts = new Uint32Array(counts);
    this.count = this.contributions.length / 12;
    this.table = new Float32Array(table);
  }

  // The position of a pair in the arrays of pairs.
  place(first, last) { return first * this.epochs.length - first * (first + 1) / 2 + last - first - 1; }

  // What Python computed for a pair in order of time, by row of `pair_table`.
  computed(before, after) {
    const at = this.place(before, after);
    return Object.fromEntries(this.data.pair_columns.map((name, row) => [name, this.table[row * this.count + at]]));
  }

  // The epochs' own means, and how many samples they are over; where losses are not finite, Python's numbers replace them.
  ofEpochs(before, after) {
    const c = this.columns, all = this.samples.all, {counts} = this.cells(before, after);
    const switches = at => sum([...counts.slice(3 * at, 3 * at + 3)]);
    const values = {scored: all, answered: all, forgotten_answers: switches(1), learned_answers: switches(2)};
    for (const [side, at] of [["before", before], ["after", after]])
      for (const [name, column] of Object.entries(OF_EPOCH)) values[`${name}_${side}`] = c[column][at];
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
    const pair = this.place(first, last);
    for (let cell = 0; cell < 12; cell++) {
      const [transition, direction] = [Math.floor(cell / 3), cell % 3];
      // Backwards, learned becomes forgotten and up becomes down.
      const mirror = 3 * [0, 2, 1, 3][transition] + [DOWN, UP, UNCHANGED][direction];
      const source = before < after ? cell : mirror;
      sums[cell] = (before < after ? 1 : -1) * this.contributions[source * this.count + pair];
      counts[cell] = this.counts[source * this.count + pair];
    }
    return {sums, counts};
  }

  // The change of loss of each sample on the page, NaN where a side's is not finite; stored for the current pair.
  changes(before, after) {
    if (this.current?.before !== before || this.current.after !== after) {
      const {carried} = this.samples, change = new Float64Array(carried);
      for (let i = 0; i < carried; i++) {
        const difference = this.loss[after * carried + i] - this.loss[before * carried + i];
        change[i] = Number.isFinite(difference) ? difference : NaN;
      }
      this.current = {before, after, change};
    }
    return this.current.change;
  }

  // What a sample of the run, of those that a sample of the page stands for, adds to N times the change of the mean loss.
  added(before, after) {
    const change = this.changes(before, after);
    return this.current.added ??= change.map((difference, i) => difference && difference * this.mass[i] / this.weight[i]);
  }

  values(before, after) {
    const own = this.data.pair;
    if (before === own[0] && after === own[1])  // as Python computed them
      return Object.fromEntries(Object.entries(this.data.values).map(([name, value]) => [name, number(value)]));
    const nameOf = at => `epoch ${FORMATS.epoch(this.epochs[at])}`;
    const values = {A: this.epochs[before], B: this.epochs[after], at_A: nameOf(before), at_B: nameOf(after), by_groups: this.data.values.by_groups};
    Object.assign(values, this.ofEpochs(before, after), this.computed(before, after));
    for (const name of ["loss", "accuracy", "refinement", "calibration"])
      values[`${name}_change`] = values[`${name}_after`] - values[`${name}_before`];
    for (const [name, write] of [["loss", levelsAndChange], ["refinement", levelsAndChange], ["accuracy", sharesAndChange]])
      ["from", "to", "difference"].forEach((end, at) => { values[`${name}_${end}`] = write(values[`${name}_before`], values[`${name}_after`])[at]; });
    Object.assign(values, this.cellValues(before, after), this.classValues(before, after), this.concentration(before, after));
    for (const names of [TRANSITIONS, ["up", "down"], ["calibration_change", "refinement_change"], ACCOUNT]) {
      const amounts = addingUp(names.map(name => values[name]), values.loss_change, decimalsOf(values.loss_difference));
      names.forEach((name, at) => { values[`${name}_amount`] = amounts[at]; });
    }
    Object.assign(values, partsOf(values));
    return Object.assign(values, this.texts(values));
  }

  // The sentences that depend on the numbers; pair_values.py chooses them in the same way.
  texts(values) {
    const course = values.infinite_before > 0 ? values.infinite_after > 0 ? "stayed" : "fell" : values.infinite_after > 0 ? "rose" : "finite";
    const leftOut = values.nonfinite_before + values.nonfinite_after > 0 ? "some" : "none";
    const status = (low, high) => Number.isNaN(low) ? "unknown" : low > 0 ? "up" : high < 0 ? "down" : "same";
    const keys = {
      loss_moved: course, loss_levels: course, finite_part: course,
      left_out: leftOut, not_counted: leftOut,
      loss_detail: "pair", accuracy_levels: "pair", accuracy_detail: "pair", calibrated_levels: "pair", calibrated_detail: "pair",
      loss_status: course !== "finite" ? "infinite" : status(values.loss_low, values.loss_high),
      accuracy_status: status(values.accuracy_low, values.accuracy_high),
      calibrated_status: status(values.refinement_low, values.refinement_high),
      costs: Number.isFinite(values.cost_before + values.cost_after) ? "wrong" : "right",
      class_fall: values.fell_before - values.fell_after > NOTHING ? "fell" : "none",
      class_top: values.top_contribution > NOTHING ? "adds" : "none",
      carried: !(values.cancelling > 0) ? "none" : values.loss_low > 0 ? "rise" : "within_noise",
    };
    const chosen = keys => Object.fromEntries(Object.entries(keys).map(([name, key]) => [name, fill(this.data.choices[name][key], values)]));
    const missing = side => values[`infinite_${side}`] ? "infinite" : values[`nonfinite_${side}`] ? "some" : "none";
    Object.assign(values, chosen({missing_A: missing("before"), missing_B: missing("after")}));
    return chosen(keys);
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
    const {names, samples, shares, accuracy, loss} = this.data.classes;
    return names.map((name, k) => ({
      class_name: name, samples: samples[k],
      A: number(accuracy[k][before]), B: number(accuracy[k][after]),
      contribution: shares[k] * (number(loss[k][after]) - number(loss[k][before])),
    }));
  }

  // The same where some losses are not finite: from the page's samples with a finite loss (an answer) on both sides.
  sharedClasses(before, after) {
    const {names, shown} = this.data.classes, change = this.changes(before, after), {targets} = this.samples;
    const rows = names.map(name => ({class_name: name, samples: 0, answers: 0, A: 0, B: 0, contribution: 0}));
    const place = new Map(shown.map((code, at) => [code, rows[at]]));
    let all = 0;
    change.forEach((difference, i) => {
      const row = place.get(targets[i]), [weight, mass] = Number.isNaN(difference) ? [0, 0] : [this.weight[i], this.mass[i]];
      all += mass;
      if (!row) return;
      row.samples += weight;
      row.contribution += mass && mass * difference;
      if (!this.answered(before, i) || !this.answered(after, i)) return;
      row.answers += this.weight[i];
      row.A += this.weight[i] * this.right(before, i);
      row.B += this.weight[i] * this.right(after, i);
    });
    return rows.map(({answers, ...row}) => ({...row, A: row.A / answers, B: row.B / answers, contribution: row.contribution / all}));
  }

  classValues(before, after) {
    const rows = this.classes(before, after);
    const top = rows.reduce((best, row) => row.contribution > best.contribution ? row : best);
    const worst = rows.reduce((lowest, row) => row.B - row.A < lowest.B - lowest.A ? row : lowest);
    return {
      shown_classes: rows.length, shown_contribution: sum(rows.map(row => row.contribution)),
      top_class: top.class_name, top_contribution: top.contribution,
      fell_class: worst.class_name, fell_samples: worst.samples, fell_before: worst.A, fell_after: worst.B,
    };
  }

  // How many samples of the run some of the page's samples stand for.
  weightOf(members) { return sum(members.map(i => this.weight[i])); }

  // What they count for in a mean of losses.
  massOf(members) { return sum(members.map(i => this.mass[i])); }

  // The page's samples with a change, those that rose most first.
  byRise(before, after) {
    const change = this.changes(before, after);
    return this.current.order ??= this.falling(change);
  }

  // Those that add most first: the same where all classes weigh the same.
  byShare(before, after) {
    const added = this.added(before, after);
    return this.current.ranks ??= this.falling(added);
  }

  falling(values) { return Array.from(values.keys()).filter(i => !Number.isNaN(values[i])).sort((i, j) => values[j] - values[i]); }

  worst(epoch) {
    const losses = Array.from({length: this.samples.carried}, (_, i) => this.lossAt(epoch, i));
    return losses.reduce((best, loss, i) => loss > losses[best] || Number.isNaN(losses[best]) ? i : best, 0);
  }

  concentration(before, after) {
    const change = this.added(before, after), order = this.byShare(before, after), total = this.weightOf(order);
    const gross = sum(order.map(i => this.weight[i] * Math.max(change[i], 0)));
    const share = percent => {
      let room = Math.max(1, evenly(total * percent / 100)), top = 0;
      for (const i of order) {
        if (room <= 0 || change[i] <= 0) break;
        top += Math.min(room, this.weight[i]) * change[i];
        room -= this.weight[i];
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
}

// The rows that the charts read, for one pair of epochs; the charts in charts/ name these tables.

const MOST_POINTS = 2000, MOVERS = 300, SMALLEST = 1e-3, CURVE_POINTS = 200;

// The only value that some tables depend on: while it stays the same, so do they and their charts.
const DEPENDS = {history: state => state.before, history_total: state => state.before, trajectory: state => state.pinned};

class Views {
  constructor(pairs) {
    this.pairs = pairs;
    this.data = pairs.data;
    this.fixed = pairs.data.tables;
    this.transitions = Object.values(pairs.data.labels.transitions);
    this.state = {};
    this.cache = new Map();
  }

  // state: before, after (positions), scale, only (a class, or null), pinned (a sample), values
  rows(name, state) {
    if (state !== this.state) [this.state, this.current] = [state, {}];
    if (!(name in this.current)) this.current[name] = name in DEPENDS ? this.lasting(name, state) : this.make(name, state);
    return this.current[name];
  }

  lasting(name, state) {
    const key = DEPENDS[name](state);
    if (this.cache.get(name)?.key !== key) this.cache.set(name, {key, rows: this.make(name, state)});
    return this.cache.get(name).rows;
  }

  make(name, state) {
    const side = name.match(/^(\w+)_([AB])$/);
    if (side && side[1] in this) return this[side[1]](state[side[2] === "A" ? "before" : "after"], state, side[2]);
    const kind = name.match(/^confidence_(right|wrong)$/);
    if (kind) return this.confidence(kind[1], state);
    return name in this ? this[name](state) : this.fixed[name];
  }

  name(code) { return this.data.samples.class_names[code] ?? "?"; }

  pair({before, after}) {
    return before === after ? [] : [{start: this.pairs.epochs[before], end: this.pairs.epochs[after]}];
  }

  ends({before, after}) {
    const sides = before <= after ? ["right", "left"] : ["left", "right"];  // outwards: neighbours do not meet
    const ends = [[before, "A"], [after, "B"]].map(([at, label], i) => ({epoch: this.pairs.epochs[at], label, align: sides[i]}));
    return before === after ? [] : ends;
  }

  account({values}) {
    const steps = [values.hedging, values.error_rate, values.mistake_cost];
    const labels = [`loss at ${values.at_A}`, "hedging", "number of mistakes", "cost of a mistake", `loss at ${values.at_B}`];
    let level = values.loss_before;
    const rows = [{start: 0, end: level, value: level, kind: "total", text: nats(level)}];
    for (const value of steps) {
      rows.push({start: level, end: level + value, value, kind: value > 0 ? "up" : "down", text: signed(value)});
      level += value;
    }
    rows.push({start: 0, end: values.loss_after, value: values.loss_after, kind: "total", text: nats(values.loss_after)});
    const room = 1.12 * Math.max(...rows.map(row => row.end));
    return rows.map((row, order) => ({...row, order, room, label: labels[order], next: labels[Math.min(order + 1, 4)], right: Math.max(row.start, row.end)}));
  }

  cells({before, after}) {
    const {sums, counts} = this.pairs.cells(before, after);
    const room = Math.max(...sums) + 0.3 * Math.max(...sums.map(Math.abs));
    return this.data.labels.cells.map(([transition, direction, label]) => {
      const at = 3 * TRANSITIONS.indexOf(transition) + (direction === "up" ? UP : DOWN);
      return {
        label, direction, transition: this.data.labels.transitions[transition], key: `${transition}_${direction}`,
        samples: counts[at], contribution: sums[at], room, right: Math.max(sums[at], 0), text: signed(sums[at]),
      };
    });
  }

  // Epochs from A on, and earlier ones whose loss is no further away: the initial fall would dwarf the others.
  inReach(before) {
    const {finite_loss: losses} = this.pairs.columns, change = losses.map(loss => Math.abs(loss - losses[before]));
    const reach = 1.5 * Math.max(...change.slice(before).filter(size => !Number.isNaN(size)));
    let first = before;
    while (first > 0 && change[first - 1] <= reach) first--;
    return this.pairs.epochs.map((epoch, at) => [epoch, at]).slice(before === change.length - 1 ? 0 : first);
  }

  history({before}) {
    return this.inReach(before).flatMap(([epoch, at]) => {
      const {sums} = this.pairs.cells(before, at);
      return this.transitions.map((transition, k) => ({epoch, transition, contribution: sum(sums.slice(3 * k, 3 * k + 3)), key: `${epoch} ${k}`}));
    });
  }

  history_total({before}) {
    return this.inReach(before).map(([epoch, at]) => ({epoch, change: sum(this.pairs.cells(before, at).sums)}));
  }

  shownClasses({before, after}) {
    const size = row => Math.abs(row.contribution);
    return this.pairs.classes(before, after).sort((a, b) => size(b) - size(a)).map((row, order) => ({...row, order}));
  }

  class_accuracy(state) { return this.shownClasses(state); }

  class_totals(state) { return this.shownClasses(state); }

  class_cells(state) {
    const {pairs} = this, {shown, names} = this.data.classes, {targets} = this.data.samples;
    const all = pairs.massOf(pairs.byRise(state.before, state.after));
    const place = new Map(shown.map((code, at) => [code, names[at]])), table = new Map(names.map(name => [name, new Float64Array(4)]));
    pairs.changes(state.before, state.after).forEach((change, i) => {
      const name = place.get(targets[i]);
      if (name === undefined || Number.isNaN(change)) return;
      table.get(name)[pairs.transition(state.before, state.after, i)] += pairs.mass[i] * change / all;
    });
    return this.shownClasses(state).flatMap(({class_name, order}) => this.transitions.map((transition, k) =>
      ({class_name, order, transition, contribution: table.get(class_name)[k]})));
  }

  // A probability on the chosen axis; the axis of log-odds ends where its ticks do.
  place(probability, {scale}) {
    if (scale === "probability") return probability;
    const ticks = this.data.odds_ticks;
    return Math.min(ticks.at(-1), Math.max(ticks[0], Math.log(probability / (1 - probability))));
  }

  diagonal({scale}) {
    const ticks = scale === "odds" ? this.data.odds_ticks : [0, 1];
    return [ticks[0], ticks.at(-1)].map(at => ({x: at, y: at}));
  }

  bins(at, state, side) {
    return this.data.reliability.dots[at].map(([confidence, accuracy, low, high, samples]) => ({
      side, confidence, accuracy, samples, accuracy_low: low, accuracy_high: high,
      x: this.place(confidence, state), y: this.place(accuracy, state), low: this.place(low, state), high: this.place(high, state),
    }));
  }

  isotonic(at, state) {
    return this.data.reliability.isotonic[at].map(([confidence, accuracy]) => ({x: this.place(confidence, state), y: this.place(accuracy, state)}));
  }

  reliability(state) {
    return this.sides(state).flatMap(([side, at]) => this.bins(at, state, side));
  }

  // The band needs simulated outcomes, which Python has made only for the report's own pair.
  band(at, state, side) {
    if (at !== this.data.pair[side === "A" ? 0 : 1]) return [];
    return this.data.bands[side].map(([confidence, low, high]) => ({x: this.place(confidence, state), low: this.place(low, state), high: this.place(high, state)}));
  }

  confidence(kind, state) {
    const {[kind]: counts} = this.data.bins[state.scale];
    return this.byConfidence(state, at => counts[at]);
  }

  confidence_counts(state) {
    const {right, wrong} = this.data.bins[state.scale];
    return this.byConfidence(state, at => right[at].map((count, bin) => count + wrong[at][bin]));
  }

  sides({before, after}) {
    return before === after ? [["B", after]] : [["A", before], ["B", after]];
  }

  byConfidence(state, countsAt) {
    const {edges} = this.data.bins[state.scale];
    return this.sides(state).flatMap(([side, at]) => countsAt(at).map((samples, bin) => ({
      side, samples, from: percent(edges[bin]), to: percent(edges[bin + 1]),
      start: this.place(edges[bin], state), end: this.place(edges[bin + 1], state),
    })));
  }

  inClass({only}) {
    const {targets} = this.data.samples;
    return i => only === null || targets[i] === only;
  }

  concentration(state) {
    const {pairs} = this, change = pairs.added(state.before, state.after);
    const order = pairs.byShare(state.before, state.after).filter(this.inClass(state)), all = pairs.weightOf(order), mass = pairs.massOf(order);
    const step = Math.max(1, Math.floor(order.length / CURVE_POINTS)), rows = [{share: 0, cumulative: 0}];
    let weight = 0, total = 0;
    order.forEach((i, rank) => {
      weight += pairs.weight[i];
      total += pairs.weight[i] * change[i] / mass;
      if (rank % step === step - 1 || rank < 50 || rank === order.length - 1) rows.push({share: weight / all, cumulative: total});
    });
    return rows;
  }

  net(state) {
    const last = this.rows("concentration", state).at(-1).cumulative;
    return [{cumulative: last, label: `change of the mean: ${signed(last)}`}];
  }

  tops(state) {
    const curve = this.rows("concentration", state);
    return [0.01, 0.1].map(share => ({...curve.find(row => row.share >= share) ?? curve.at(-1), label: `top ${100 * share} %`}));
  }

  sample(i, {before, after}) {
    const {pairs} = this, {ids, targets, carried} = this.data.samples;
    const answer = at => this.name(pairs.predicted[at * carried + i]);
    const [a, b] = [pairs.lossAt(before, i), pairs.lossAt(after, i)];
    return {
      i, sample: ids[i], true: this.name(targets[i]), said_before: answer(before), said_after: answer(after),
      loss_before: a, loss_after: b, change: b - a, before: Math.max(a, SMALLEST), after: Math.max(b, SMALLEST),
      transition: this.transitions[pairs.transition(before, after, i)],
    };
  }

  samples(state) {
    const {pairs} = this, change = pairs.changes(state.before, state.after);
    const members = Array.from(change.keys()).filter(i => !Number.isNaN(change[i])).filter(this.inClass(state));
    const size = i => Math.abs(change[i]), stride = Math.ceil(members.length / MOST_POINTS);
    const movers = stride > 1 ? [...members].sort((i, j) => size(j) - size(i)).slice(0, MOVERS) : [];
    const indices = new Set([...members.filter((_, at) => at % stride === 0), ...movers]);
    return [...indices].map(i => this.sample(i, state));
  }

  movers(state) {
    const {pairs} = this;
    return pairs.byRise(state.before, state.after).filter(this.inClass(state)).slice(0, 12).map(i => this.sample(i, state));
  }

  even(state) {
    const ends = this.rows("samples", state).flatMap(row => [row.before, row.after]);
    const [low, high] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [SMALLEST, 1];
    return [low, high].map(at => ({before: at, after: at}));
  }

  // A sample without a finite loss on both sides has no place, but a chart without rows has no scale: its row is invisible.
  pinned(state) {
    if (state.pinned === null) return [];
    const row = this.sample(state.pinned, state);
    return [!Number.isFinite(row.change) ? {...row, ...this.rows("even", state)[0], seen: 0} : {...row, seen: 1}];
  }

  trajectory({pinned}) {
    if (pinned === null) return [];
    const {pairs} = this;
    return pairs.epochs.map((epoch, at) => ({
      epoch, exact: pairs.lossAt(at, pinned), loss: Math.max(pairs.lossAt(at, pinned), SMALLEST),
      verdict: pairs.right(at, pinned) ? "right" : "wrong", said: this.name(pairs.predicted[at * this.data.samples.carried + pinned]),
    })).filter(row => Number.isFinite(row.loss));
  }
}

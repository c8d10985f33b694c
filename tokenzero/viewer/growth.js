// The tree as it was after any number of simulations: visits and mean values of every node, counted anew from
// where each simulation ended. After the last one the numbers are the search's own.

class Growth {
  constructor(search) {
    this.search = search;
    this.count = search.parent.length;
    this.steps = search.ended.length;
    this.valued = search.outcome.length === this.steps && this.steps > 0;
    this.visits = new Float64Array(this.count);
    this.sum = new Float64Array(this.count);
    this.value = new Float64Array(this.count);
    this.created = new Int32Array(this.count).fill(-1);
    for (let t = 0; t < this.steps; t++) {
      for (let n = search.ended[t]; n >= 0 && this.created[n] < 0; n = search.parent[n]) this.created[n] = t;
    }
    this.unit = search.counted === "states" ? "state" : search.method.startsWith("frontier") ? "play-out" : "simulation";
    this.first = this.unit === "simulation" && this.steps ? 1 : 0;  // the root's own evaluation is no simulation
    this.time = 0;
    this.goTo(this.steps);
  }

  // Node in which the simulation just made ended, -1 before the first.
  get tip() {
    return this.time > 0 && this.time <= this.steps && this.steps ? this.search.ended[this.time - 1] : -1;
  }

  goTo(time) {
    if (time < this.time || this.final) {
      this.visits.fill(0);
      this.sum.fill(0);
      this.time = 0;
      this.final = false;
    }
    const { parent, reward, ended, outcome, discount } = this.search;
    for (let t = this.time; t < time; t++) {
      let value = this.valued ? outcome[t] : 0;
      for (let n = ended[t]; n >= 0; n = parent[n]) {
        this.visits[n] += 1;
        this.sum[n] += value;
        value = (reward ? reward[n] : 0) + discount * value;
      }
    }
    this.time = time;
    this.final = time >= this.steps;
    const known = this.search.value;
    for (let n = 0; n < this.count; n++) {
      if (this.final) this.visits[n] = this.search.visits[n];
      const own = known[n] === null ? NaN : known[n];
      this.value[n] = this.final || !this.valued ? own : this.visits[n] ? this.sum[n] / this.visits[n] : NaN;
    }
  }
}

// Hamiltonian Monte Carlo: Duane, Kennedy, Pendleton & Roweth, "Hybrid Monte Carlo" (1987); with persistent momenta:
// Horowitz, "A generalized guided Monte Carlo algorithm" (1991).
//
// A transition is `last` stages, each of them a kick, a drift and the gradient at the new place. Chains side by side may
// have fewer steps than the longest one: those that are done stay where they are.

TRAJECTORY void begin(uint t) {
  set_number(STEPS, steps_of(t));
  draw_normals(t);
  for (uint d = 0; d < dim; ++d)
    put(MOMENTUM, d, persists > 0 && (carried > 0 || t > 0) ? persists * momentum(d) + renewed * fresh(d) : fresh(d));
  if (persists > 0) copy(MOMENTUM, NORMAL);
  copy(POSITION, KEPT_POSITION);
  copy(GRADIENT, KEPT_GRADIENT);
  set_sum(U_KEPT, sum_at(U_HERE));
  set_sum(H_START, plus_sum(sum_at(U_HERE), kinetic()));
}

TRAJECTORY void kick(float by) {
  for (uint d = 0; d < dim; ++d) put(MOMENTUM, d, momentum(d) - by * at(GRADIENT, d));
}

TRAJECTORY void kick_and_drift(float kick_by, float drift_by) {
  if (dense > 0) {
    kick(kick_by);
    for (uint d = 0; d < dim; ++d) put(POSITION, d, at(POSITION, d) + drift_by * velocity(d));
    return;
  }
  for (uint d = 0; d < dim; ++d) {
    float p = momentum(d) - kick_by * at(GRADIENT, d);
    put(MOMENTUM, d, p);
    put(POSITION, d, at(POSITION, d) + drift_by * (inverse_mass(d) * p));
  }
}

// Metropolis's decision.
TRAJECTORY void finish(uint t) {
  Sum start = sum_at(H_START), now = plus_sum(sum_at(U_HERE), kinetic());
  float fall = difference(start, now);
  float ratio = exponential(fall);
  bool whole = now.hi + now.lo - (now.hi + now.lo) == float(0);
  bool accepted = whole && drawn(t, PURPOSE_ACCEPT, 0) < ratio;
  bool diverging = !whole || -fall > delta_max;
  float rate = mix(float(0), mix(float(1), ratio, ratio < float(1)), whole);
  for (uint d = 0; d < dim; ++d) {
    put(POSITION, d, mix(at(KEPT_POSITION, d), at(POSITION, d), accepted));
    put(GRADIENT, d, mix(at(KEPT_GRADIENT, d), at(GRADIENT, d), accepted));
    if (persists > 0) put(MOMENTUM, d, mix(-at(NORMAL, d), momentum(d), accepted));
  }
  Sum old = sum_at(U_KEPT), u = sum_at(U_HERE);
  u = Sum(mix(old.hi, u.hi, accepted), mix(old.lo, u.lo, accepted));
  set_sum(U_HERE, u);
  float diverged = mix(number(DIVERGED), float(1), diverging);
  set_number(MOVES, number(MOVES) + mix(float(0), float(1), accepted));
  if (kept(t) > 0) {
    keep_position(t);
    keep(t, LP, -u.hi);
    keep(t, LP + 1, -u.lo);
    keep(t, TOTAL_ENERGY, mix(start.hi, now.hi, accepted));
    keep(t, TOTAL_ENERGY + 1, mix(start.lo, now.lo, accepted));
    keep(t, RATE, rate);
    keep(t, SIZE, number(STEP_SIZE));
    keep(t, TAKEN, number(STEPS));
    keep(t, DIVERGING, diverged);
    diverged = float(0);
    keep(t, ACCEPTED, mix(float(0), float(1), accepted));
  }
  set_number(DIVERGED, diverged);
  if (adapting > 0) adapt_step_size(rate);
}

// Stage l of transition t; 1 if it was the last one.
TRAJECTORY uint stage(uint t, uint l) {
  if (l == 0) begin(t);
  float steps = number(STEPS), size = number(STEP_SIZE), half_size = size * (float(1) / 2);
  uint last = longest(steps);
  kick_and_drift(l == 0 ? half_size : mix(mix(float(0), half_size, float(l) == steps), size, float(l) < steps),
                 mix(float(0), size, float(l) < steps));
  set_sum(U_HERE, potential(l + 1 == last ? 1 : 0));
  if (l + 1 < last) return 0;
  kick(mix(float(0), half_size, float(last) == steps));
  finish(t);
  return 1;
}

// Parts of a whole run: U where it begins, then stages.
TRAJECTORY void run(uint first, uint end) {
  for (uint part = first; part < end && counter(TRANSITION) < transitions; ++part) {
    uint t = counter(TRANSITION), l = counter(LEAF);
    if (part == 0) {
      set_sum(U_HERE, potential(1));
    } else if (stage(t, l) > 0) {
      set_counter(TRANSITION, t + 1);
      set_counter(LEAF, 0);
    } else {
      set_counter(LEAF, l + 1);
    }
  }
}

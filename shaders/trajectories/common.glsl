// What all trajectories share.

TRAJECTORY float momentum(uint d) { return at(MOMENTUM, d); }

TRAJECTORY Sum sum_at(uint k) { return Sum(number(k), number(k + 1)); }

TRAJECTORY void set_sum(uint k, Sum s) {
  set_number(k, s.hi);
  set_number(k + 1, s.lo);
}

TRAJECTORY float velocity(uint d) {
  if (dense == 0) return inverse_mass(d) * momentum(d);
  float v = float(0);
  for (uint e = 0; e < dim; ++e) v = v + inverse_mass(d * dim + e) * momentum(e);
  return v;
}

TRAJECTORY Sum kinetic() {
  Sum twice = zero_sum();
  for (uint d = 0; d < dim; ++d) twice = plus(twice, momentum(d) * velocity(d));
  return half_of(twice);
}

// A momentum from N(0, M), as it is given or made of standard normal numbers.
TRAJECTORY float fresh(uint d) {
  if (given > 0) return at(NORMAL, d);
  if (dense == 0) return root(d) * at(NORMAL, d);
  float p = float(0);
  for (uint e = 0; e < dim; ++e) p = p + at(NORMAL, e) * root(e * dim + d);
  return p;
}

TRAJECTORY void copy(uint from, uint to) {
  for (uint d = 0; d < dim; ++d) put(to, d, at(from, d));
}

// Nesterov's dual averaging for step sizes: Hoffman & Gelman, "The no-U-turn sampler" (2014), section 3.2, with kappa
// = 3/4; eagerness is 1 / gamma.
TRAJECTORY void adapt_step_size(float rate) {
  float m = number(COUNT) + 1;
  float eta = 1 / (m + t_0);
  float h_bar = (1 - eta) * number(H_BAR) + eta * (target - rate);
  float log_size = number(MU) - eagerness * sqrt(m) * h_bar;
  float weight = 1 / (sqrt(m) * sqrt(sqrt(m)));
  set_number(COUNT, m);
  set_number(H_BAR, h_bar);
  set_number(LOG_AVERAGE, weight * log_size + (1 - weight) * number(LOG_AVERAGE));
  set_number(STEP_SIZE, exponential(log_size));
}

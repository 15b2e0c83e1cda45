// What AutoHypergradientAdamW decides between its two passes: the learning rate, beta1, the surprise.
//
// rule "doc": AdaGrad on the hypergradient of lr, -<g, d> / |g_last|^2, and of beta1. rule "corrected": the cosine
// between them instead, lr by a factor, and the exact derivative of the step with respect to beta1.

struct AutoAdamwControl {
  // Sums over all elements of the gradient g, the last step's direction d, the momentum m, the distance from the mean
  // gradient e, the derivative j of the last step with respect to beta1. What a rule does not sum is 0.
  float gd, gg, dd, gm, ee, gj, jj;
  // What the caller asks for; tiny is 1e-12. warm: the warm-up is over; directed: some parameter has a direction.
  float corrected, momentum, surprised, warm, directed;
  float hyper_lr, hyper_lr_beta, lr_min, lr_max, beta_min, beta_max, gamma, alpha, threshold, tiny;
  // What is kept from step to step: sums of squared hypergradients, the energy of the gradients (and whether there is one
  // yet), the last gradient's square, the mean surprise, the learning rate.
  float lr_squares, beta_squares, energy, has_energy, last_gg, s_bar, lr;
  // What comes out, 0 before: flags, what beta1 sinks by, the surprise and its gain.
  float lr_adapted, beta_adapted, surprise_taken, sinks, surprise, gain;
};

// p = p decay - lr d, with AdamW's d and decay; keep and add move the mean gradient, unless add is 0. fresh: the
// parameter took part in the last step, so that it has a direction. carry: the product of beta1 before this step, over its
// bias correction. share is the group's part of the learning rate, t counts steps, product is that of beta1 before this
// step.
struct AutoAdamwRow {
  float beta1, c1, beta2, c2, inv_bc1, inv_sqrt_bc2, eps, decay, lr, keep, add, fresh, carry;
  float share, weight_decay, t, product;
};

RULE float within(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

RULE AutoAdamwControl take_surprise(AutoAdamwControl c) {
  float s = float(0);
  if (c.has_energy > 0) {
    c.energy = c.gamma * c.energy + (1 - c.gamma) * c.gg;
    s = hyperbolic_tangent(c.ee / (c.energy + c.tiny));
  } else {
    c.energy = c.gg;
    // There is no mean gradient yet, so that this is tanh(1) for any gradient: no surprise at all, says "corrected".
    if (c.corrected == 0) s = hyperbolic_tangent(c.gg / (c.energy + c.tiny));
  }
  c.has_energy = float(1);
  c.surprise = s;
  c.s_bar = c.alpha * s + (1 - c.alpha) * c.s_bar;
  c.gain = c.s_bar * exponential(-c.s_bar / c.threshold);
  c.surprise_taken = float(1);
  return c;
}

RULE AutoAdamwControl adapt_lr(AutoAdamwControl c) {
  float h = c.corrected > 0 ? -c.gd / (sqrt(c.gg) * sqrt(c.dd) + c.tiny) : -c.gd / (c.last_gg + c.tiny);
  float squares = c.lr_squares + h * h;
  if (!is_finite(squares)) return c;
  float move = c.hyper_lr * h / (sqrt(squares) + c.tiny);
  c.lr = within(c.corrected > 0 ? c.lr * exponential(-move) : c.lr - move, c.lr_min, c.lr_max);
  c.lr_squares = squares;
  c.lr_adapted = float(1);
  return c;
}

RULE AutoAdamwControl adapt_beta(AutoAdamwControl c) {
  float h = c.corrected > 0 ? c.gj / (sqrt(c.gg) * sqrt(c.jj) + c.tiny) : c.gm / (c.last_gg + c.tiny);
  float squares = c.beta_squares + h * h;
  if (!is_finite(squares)) return c;
  c.sinks = c.hyper_lr_beta * h / (sqrt(squares) + c.tiny);
  c.beta_squares = squares;
  c.beta_adapted = float(1);
  return c;
}

CONTROL AutoAdamwControl auto_adamw_decide(AutoAdamwControl c) {
  bool finite = is_finite(c.gd) && is_finite(c.gg) && is_finite(c.dd) && is_finite(c.gm) && is_finite(c.ee) &&
                is_finite(c.gj) && is_finite(c.jj);
  if (finite && c.warm > 0) {
    if (c.surprised > 0) c = take_surprise(c);
    if (c.directed > 0 && (c.corrected > 0 || c.last_gg > c.tiny)) {
      c = adapt_lr(c);
      if (c.momentum > 0) c = adapt_beta(c);
    }
  }
  c.last_gg = is_finite(c.gg) ? c.gg : float(0);
  return c;
}

CONTROL AutoAdamwRow auto_adamw_row(AutoAdamwRow r, AutoAdamwControl c) {
  if (c.beta_adapted > 0) r.beta1 = within(r.beta1 - c.sinks, c.beta_min, c.beta_max);
  r.c1 = 1 - r.beta1;
  r.inv_bc1 = 1 / (1 - (c.corrected > 0 ? r.product * r.beta1 : power(r.beta1, r.t)));
  r.carry = r.product * r.inv_bc1;
  r.lr = r.share * c.lr;
  r.decay = 1 - r.lr * r.weight_decay;
  return r;
}

// What HypergradientAdamW decides between its two passes: the learning rate.

struct HyperAdamwControl {
  float gd;                                                           // <g, d>, the negative derivative by lr
  float directed, log_scale, chain_rule, beta_hyper, lr_min, lr_max;  // directed: some parameter has a direction
  float lr;
  float adapted;  // what comes out, 0 before
};

// p = p decay - lr d, with AdamW's d and decay. fresh: the parameter took part in the last step, so that it has a
// direction; counted_decay: the weight decay as far as it counts in that. share is the group's part of the learning
// rate.
struct HyperAdamwRow {
  float beta1, c1, beta2, c2, inv_bc1, inv_sqrt_bc2, eps, decay, lr, fresh, counted_decay;
  float share, weight_decay;
};

CONTROL HyperAdamwControl hyper_adamw_decide(HyperAdamwControl c) {
  if (c.directed == 0 || !is_finite(c.gd)) return c;
  float move = c.beta_hyper * c.gd;
  float lr = c.log_scale > 0 ? c.lr * exponential(c.chain_rule > 0 ? c.lr * move : move) : c.lr + move;
  c.lr = lr < c.lr_min ? c.lr_min : lr > c.lr_max ? c.lr_max : lr;
  c.adapted = float(1);
  return c;
}

CONTROL HyperAdamwRow hyper_adamw_row(HyperAdamwRow r, HyperAdamwControl c) {
  r.lr = r.share * c.lr;
  r.decay = 1 - r.lr * r.weight_decay;
  return r;
}

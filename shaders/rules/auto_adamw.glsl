// AdamW whose learning rate, and on request beta1, follow the gradient of the loss with respect to them.
//
// lr alone, and momentum by the documented rule: the direction of the last step is made anew from the moments.
// control/auto_adamw.glsl says what the scalars are.

struct AutoAdamwState {
  float p, m, v;
};

struct AutoAdamwScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay, keep, add;
  float fresh, last_inv_bc1, last_inv_sqrt_bc2, last_product, share, weight_decay, t, product;
};

struct AutoAdamwSums {
  float gd, gg, dd, gm;
};

CONTROLLED_BY(auto_adamw)

SUMS AutoAdamwSums auto_adamw_sums(AutoAdamwState s, float g, AutoAdamwScalars h) {
  float scale = h.last_inv_bc1 / (sqrt(s.v) * h.last_inv_sqrt_bc2 + h.eps);
  float d = h.fresh > 0 ? scale * s.m : 0;
  float gm = h.fresh > 0 ? g * s.m : 0;
  return AutoAdamwSums(g * d, g * g, d * d, gm);
}

RULE AutoAdamwState auto_adamw(AutoAdamwState s, float g, AutoAdamwScalars h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float d = sqrt(v) * h.inv_sqrt_bc2 + h.eps;
  return AutoAdamwState(s.p * h.decay - h.step * m / d, m, v);
}

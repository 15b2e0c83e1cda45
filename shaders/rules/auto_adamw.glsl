// AdamW whose learning rate is decided between its two passes.
//
// d is the direction of this step, which the next one looks back at.
// control/auto_adamw.glsl says what the scalars are.

struct AutoAdamwState {
  float p, m, v, d;
};

struct AutoAdamwScalars {
  float beta1, c1, beta2, c2, inv_bc1, inv_sqrt_bc2, eps, decay, lr, keep, add, fresh, carry;
  float share, weight_decay, t, product;
};

struct AutoAdamwSums {
  float gd, gg, dd;
};

CONTROLLED_BY(auto_adamw)

SUMS AutoAdamwSums auto_adamw_sums(AutoAdamwState s, float g, AutoAdamwScalars h) {
  float d = h.fresh > 0 ? s.d : 0;
  return AutoAdamwSums(g * d, g * g, d * d);
}

RULE AutoAdamwState auto_adamw(AutoAdamwState s, float g, AutoAdamwScalars h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float scale = h.inv_bc1 / (sqrt(v) * h.inv_sqrt_bc2 + h.eps);
  float d = scale * m;
  return AutoAdamwState(s.p * h.decay - h.lr * d, m, v, d);
}

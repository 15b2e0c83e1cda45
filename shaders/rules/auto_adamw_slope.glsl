// auto_adamw.glsl with the exact derivative of a step with respect to beta1.
//
// w is the derivative of m with respect to beta1: the m before, less the gradient.
// control/auto_adamw.glsl says what the scalars are.

struct AutoAdamwSlopeState {
  float p, m, v, w;
};

struct AutoAdamwSlopeScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay, keep, add;
  float fresh, last_inv_bc1, last_inv_sqrt_bc2, last_product, share, weight_decay, t, product;
};

struct AutoAdamwSlopeSums {
  float gd, gg, dd, gj, jj;
};

CONTROLLED_BY(auto_adamw)

SUMS AutoAdamwSlopeSums auto_adamw_slope_sums(AutoAdamwSlopeState s, float g, AutoAdamwSlopeScalars h) {
  float scale = h.last_inv_bc1 / (sqrt(s.v) * h.last_inv_sqrt_bc2 + h.eps);
  float d = h.fresh > 0 ? scale * s.m : 0;
  float j = h.fresh > 0 ? -scale * (s.w + h.last_product * h.last_inv_bc1 * s.m) : 0;
  return AutoAdamwSlopeSums(g * d, g * g, d * d, g * j, j * j);
}

RULE AutoAdamwSlopeState auto_adamw_slope(AutoAdamwSlopeState s, float g, AutoAdamwSlopeScalars h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float d = sqrt(v) * h.inv_sqrt_bc2 + h.eps;
  return AutoAdamwSlopeState(s.p * h.decay - h.step * m / d, m, v, s.m - g);
}

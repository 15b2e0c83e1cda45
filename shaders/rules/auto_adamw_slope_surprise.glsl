// auto_adamw_slope.glsl and auto_adamw_surprise.glsl in one.
//
// e is a running mean of the gradients, w the derivative of m with respect to beta1.
// control/auto_adamw.glsl says what the scalars are.

struct AutoAdamwSlopeSurpriseState {
  float p, m, v, e, w;
};

struct AutoAdamwSlopeSurpriseScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay, keep, add;
  float fresh, last_inv_bc1, last_inv_sqrt_bc2, last_product, share, weight_decay, t, product;
};

struct AutoAdamwSlopeSurpriseSums {
  float gd, gg, dd, ee, gj, jj;
};

CONTROLLED_BY(auto_adamw)

SUMS AutoAdamwSlopeSurpriseSums auto_adamw_slope_surprise_sums(AutoAdamwSlopeSurpriseState s, float g,
    AutoAdamwSlopeSurpriseScalars h) {
  float scale = h.last_inv_bc1 / (sqrt(s.v) * h.last_inv_sqrt_bc2 + h.eps);
  float d = h.fresh > 0 ? scale * s.m : 0;
  float j = h.fresh > 0 ? -scale * (s.w + h.last_product * h.last_inv_bc1 * s.m) : 0;
  float away = g - s.e;
  return AutoAdamwSlopeSurpriseSums(g * d, g * g, d * d, away * away, g * j, j * j);
}

RULE AutoAdamwSlopeSurpriseState auto_adamw_slope_surprise(AutoAdamwSlopeSurpriseState s, float g,
    AutoAdamwSlopeSurpriseScalars h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float d = sqrt(v) * h.inv_sqrt_bc2 + h.eps;
  float e = h.add > 0 ? h.keep * s.e + h.add * g : s.e;
  return AutoAdamwSlopeSurpriseState(s.p * h.decay - h.step * m / d, m, v, e, s.m - g);
}

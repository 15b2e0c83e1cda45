// auto_adamw.glsl that also watches how surprising gradients are.
//
// e is a running mean of the gradients. control/auto_adamw.glsl says what the scalars are.

struct AutoAdamwSurpriseState {
  float p, m, v, e;
};

struct AutoAdamwSurpriseScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay, keep, add;
  float fresh, last_inv_bc1, last_inv_sqrt_bc2, last_product, share, weight_decay, t, product;
};

struct AutoAdamwSurpriseSums {
  float gd, gg, dd, gm, ee;
};

CONTROLLED_BY(auto_adamw)

SUMS AutoAdamwSurpriseSums auto_adamw_surprise_sums(AutoAdamwSurpriseState s, float g, AutoAdamwSurpriseScalars h) {
  float scale = h.last_inv_bc1 / (sqrt(s.v) * h.last_inv_sqrt_bc2 + h.eps);
  float d = h.fresh > 0 ? scale * s.m : 0;
  float away = g - s.e;
  float gm = h.fresh > 0 ? g * s.m : 0;
  return AutoAdamwSurpriseSums(g * d, g * g, d * d, gm, away * away);
}

RULE AutoAdamwSurpriseState auto_adamw_surprise(AutoAdamwSurpriseState s, float g, AutoAdamwSurpriseScalars h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float d = sqrt(v) * h.inv_sqrt_bc2 + h.eps;
  float e = h.add > 0 ? h.keep * s.e + h.add * g : s.e;
  return AutoAdamwSurpriseState(s.p * h.decay - h.step * m / d, m, v, e);
}

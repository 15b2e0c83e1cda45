// auto_adamw.glsl with the exact derivative of its step by beta1.
//
// j is that derivative over the learning rate: m and its bias correction both depend on beta1. The first step does not
// depend on it at all, and rounding would leave something whose direction the cosine makes as large as any other.
// control/auto_adamw.glsl says what the scalars are.

CONTROLLED_BY(auto_adamw)

struct AutoAdamwSlopeState {
  float p, m, v, d, j;
};

struct AutoAdamwSlopeSums {
  float gd, gg, dd, gj, jj;
};

SUMS AutoAdamwSlopeSums auto_adamw_slope_sums(AutoAdamwSlopeState s, float g, AutoAdamwRow h) {
  float d = h.fresh > 0 ? s.d : 0;
  float j = h.fresh > 0 ? s.j : 0;
  return AutoAdamwSlopeSums(g * d, g * g, d * d, g * j, j * j);
}

RULE AutoAdamwSlopeState auto_adamw_slope(AutoAdamwSlopeState s, float g, AutoAdamwRow h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float scale = h.inv_bc1 / (sqrt(v) * h.inv_sqrt_bc2 + h.eps);
  float d = scale * m;
  float j = h.t > 1 ? -scale * (s.m - g + h.carry * m) : 0;
  return AutoAdamwSlopeState(s.p * h.decay - h.lr * d, m, v, d, j);
}

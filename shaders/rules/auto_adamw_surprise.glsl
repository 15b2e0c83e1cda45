// auto_adamw.glsl that also watches how surprising gradients are. e is a running mean of the gradients.
// control/auto_adamw.glsl says what the scalars are.

CONTROLLED_BY(auto_adamw)

struct AutoAdamwSurpriseState {
  float p, m, v, d, e;
};

struct AutoAdamwSurpriseSums {
  float gd, gg, dd, ee, e;
};

SUMS AutoAdamwSurpriseSums auto_adamw_surprise_sums(AutoAdamwSurpriseState s, float g, AutoAdamwRow h) {
  float d = h.fresh > 0 ? s.d : 0;
  float away = g - s.e;
  float ee = away * away;
  float moved = h.add > 0 ? h.keep * s.e + h.add * g : s.e;
  float e = ee - ee == 0 ? moved : s.e;  // what is not finite would stay in it
  return AutoAdamwSurpriseSums(g * d, g * g, d * d, ee, e);
}

RULE AutoAdamwSurpriseState auto_adamw_surprise(AutoAdamwSurpriseState s, float g, AutoAdamwRow h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float scale = h.inv_bc1 / (sqrt(v) * h.inv_sqrt_bc2 + h.eps);
  float d = scale * m;
  return AutoAdamwSurpriseState(s.p * h.decay - h.lr * d, m, v, d, s.e);
}

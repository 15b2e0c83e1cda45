// auto_adamw_slope.glsl and auto_adamw_surprise.glsl in one.
// control/auto_adamw.glsl says what the scalars are.

CONTROLLED_BY(auto_adamw)

struct AutoAdamwSlopeSurpriseState {
  float p, m, v, d, j, e;
};

struct AutoAdamwSlopeSurpriseSums {
  float gd, gg, dd, gj, jj, ee, e;
};

SUMS AutoAdamwSlopeSurpriseSums auto_adamw_slope_surprise_sums(AutoAdamwSlopeSurpriseState s, float g, AutoAdamwRow h) {
  float d = h.fresh > 0 ? s.d : 0;
  float j = h.fresh > 0 ? s.j : 0;
  float away = g - s.e;
  float ee = away * away;
  float moved = h.add > 0 ? h.keep * s.e + h.add * g : s.e;
  float e = ee - ee == 0 ? moved : s.e;  // what is not finite would stay in it
  return AutoAdamwSlopeSurpriseSums(g * d, g * g, d * d, g * j, j * j, ee, e);
}

RULE AutoAdamwSlopeSurpriseState auto_adamw_slope_surprise(AutoAdamwSlopeSurpriseState s, float g, AutoAdamwRow h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float scale = h.inv_bc1 / (sqrt(v) * h.inv_sqrt_bc2 + h.eps);
  float d = scale * m;
  float j = h.t > 1 ? -scale * (s.m - g + h.carry * m) : 0;
  return AutoAdamwSlopeSurpriseState(s.p * h.decay - h.lr * d, m, v, d, j, s.e);
}

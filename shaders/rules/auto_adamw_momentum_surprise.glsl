// auto_adamw_momentum.glsl and auto_adamw_surprise.glsl in one.
// control/auto_adamw.glsl says what the scalars are.

CONTROLLED_BY(auto_adamw)

struct AutoAdamwMomentumSurpriseState {
  float p, m, v, d, e;
};

struct AutoAdamwMomentumSurpriseSums {
  float gd, gg, dd, gm, ee, e;
};

SUMS AutoAdamwMomentumSurpriseSums auto_adamw_momentum_surprise_sums(AutoAdamwMomentumSurpriseState s, float g,
                                                                     AutoAdamwRow h) {
  float d = h.fresh > 0 ? s.d : 0;
  float gm = h.fresh > 0 ? g * s.m : 0;
  float away = g - s.e;
  float ee = away * away;
  float moved = h.add > 0 ? h.keep * s.e + h.add * g : s.e;
  float e = ee - ee == 0 ? moved : s.e;  // what is not finite would stay in it
  return AutoAdamwMomentumSurpriseSums(g * d, g * g, d * d, gm, ee, e);
}

RULE AutoAdamwMomentumSurpriseState auto_adamw_momentum_surprise(AutoAdamwMomentumSurpriseState s, float g,
                                                                 AutoAdamwRow h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float scale = h.inv_bc1 / (sqrt(v) * h.inv_sqrt_bc2 + h.eps);
  float d = scale * m;
  return AutoAdamwMomentumSurpriseState(s.p * h.decay - h.lr * d, m, v, d, s.e);
}

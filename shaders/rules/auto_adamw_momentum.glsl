// auto_adamw.glsl that also looks back at the momentum.
// control/auto_adamw.glsl says what the scalars are.

CONTROLLED_BY(auto_adamw)

struct AutoAdamwMomentumState {
  float p, m, v, d;
};

struct AutoAdamwMomentumSums {
  float gd, gg, dd, gm;
};

SUMS AutoAdamwMomentumSums auto_adamw_momentum_sums(AutoAdamwMomentumState s, float g, AutoAdamwRow h) {
  float d = h.fresh > 0 ? s.d : 0;
  float gm = h.fresh > 0 ? g * s.m : 0;
  return AutoAdamwMomentumSums(g * d, g * g, d * d, gm);
}

RULE AutoAdamwMomentumState auto_adamw_momentum(AutoAdamwMomentumState s, float g, AutoAdamwRow h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float scale = h.inv_bc1 / (sqrt(v) * h.inv_sqrt_bc2 + h.eps);
  float d = scale * m;
  return AutoAdamwMomentumState(s.p * h.decay - h.lr * d, m, v, d);
}

// AdamW whose learning rate is decided between its two passes.
//
// d is the direction of this step, which the next one looks back at.
// control/auto_adamw.glsl says what the scalars are.

CONTROLLED_BY(auto_adamw)

struct AutoAdamwState {
  float p, m, v, d;
};

struct AutoAdamwSums {
  float gd, gg, dd;
};

SUMS AutoAdamwSums auto_adamw_sums(AutoAdamwState s, float g, AutoAdamwRow h) {
  float d = h.fresh > 0 ? s.d : 0;
  return AutoAdamwSums(g * d, g * g, d * d);
}

RULE AutoAdamwState auto_adamw(AutoAdamwState s, float g, AutoAdamwRow h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float scale = h.inv_bc1 / (sqrt(v) * h.inv_sqrt_bc2 + h.eps);
  float d = scale * m;
  return AutoAdamwState(s.p * h.decay - h.lr * d, m, v, d);
}

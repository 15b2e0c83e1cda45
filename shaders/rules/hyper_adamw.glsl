// AdamW whose learning rate is decided between its two passes: Baydin et al., "Online learning rate adaptation with
// hypergradient descent" (2018). d is the direction of this step, which the next one looks back at.
// control/hyper_adamw.glsl says what the scalars are.

CONTROLLED_BY(hyper_adamw)

struct HyperAdamwState {
  float p, m, v, d;
};

struct HyperAdamwSums {
  float gd;
};

SUMS HyperAdamwSums hyper_adamw_sums(HyperAdamwState s, float g, HyperAdamwRow h) {
  float gd = h.fresh > 0 ? g * s.d : 0;
  return HyperAdamwSums(gd);
}

RULE HyperAdamwState hyper_adamw(HyperAdamwState s, float g, HyperAdamwRow h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float d = h.inv_bc1 * m / (sqrt(v) * h.inv_sqrt_bc2 + h.eps);
  return HyperAdamwState(s.p * h.decay - h.lr * d, m, v, d + h.counted_decay * s.p);
}

// AdamW whose learning rate follows its hypergradient: Baydin et al., "Online learning rate adaptation with
// hypergradient descent" (2018). control/hyper_adamw.glsl says what the scalars are.

struct HyperAdamwState {
  float p, m, v;
};

struct HyperAdamwScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay;
  float fresh, last_inv_bc1, last_inv_sqrt_bc2, last_lr, last_weight_decay, last_inv_decay, share, weight_decay, inv_bc1;
};

struct HyperAdamwSums {
  float gd;
};

CONTROLLED_BY(hyper_adamw)

SUMS HyperAdamwSums hyper_adamw_sums(HyperAdamwState s, float g, HyperAdamwScalars h) {
  float d = h.last_inv_bc1 * s.m / (sqrt(s.v) * h.last_inv_sqrt_bc2 + h.eps);
  float gd = h.fresh > 0 ? g * d : 0;
  return HyperAdamwSums(gd);
}

RULE HyperAdamwState hyper_adamw(HyperAdamwState s, float g, HyperAdamwScalars h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float d = sqrt(v) * h.inv_sqrt_bc2 + h.eps;
  return HyperAdamwState(s.p * h.decay - h.step * m / d, m, v);
}

// hyper_adamw.glsl whose hypergradient counts the decoupled weight decay, which the learning rate scales too: the
// derivative of a step with respect to lr is -(d + weight_decay p), p being the parameter before that step.

struct HyperAdamwDecayState {
  float p, m, v;
};

struct HyperAdamwDecayScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay;
  float fresh, last_inv_bc1, last_inv_sqrt_bc2, last_lr, last_weight_decay, last_inv_decay, share, weight_decay, inv_bc1;
};

struct HyperAdamwDecaySums {
  float gd;
};

CONTROLLED_BY(hyper_adamw)

SUMS HyperAdamwDecaySums hyper_adamw_decay_sums(HyperAdamwDecayState s, float g, HyperAdamwDecayScalars h) {
  float d = h.last_inv_bc1 * s.m / (sqrt(s.v) * h.last_inv_sqrt_bc2 + h.eps);
  float before = (s.p + h.last_lr * d) * h.last_inv_decay;
  float gd = h.fresh > 0 ? g * (d + h.last_weight_decay * before) : 0;
  return HyperAdamwDecaySums(gd);
}

RULE HyperAdamwDecayState hyper_adamw_decay(HyperAdamwDecayState s, float g, HyperAdamwDecayScalars h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float d = sqrt(v) * h.inv_sqrt_bc2 + h.eps;
  return HyperAdamwDecayState(s.p * h.decay - h.step * m / d, m, v);
}

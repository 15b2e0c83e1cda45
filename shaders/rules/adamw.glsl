// AdamW: Loshchilov & Hutter, "Decoupled weight decay regularization" (2019), in torch.optim.AdamW's arithmetic.
//
// The host computes the scalars in double:
//   c1 = 1 - beta1 (negated to maximise: v only sees g * g), c2 = 1 - beta2, step = lr / (1 - beta1^t),
//   inv_sqrt_bc2 = 1 / sqrt(1 - beta2^t), decay = 1 - lr * weight_decay.

struct AdamWState {
  float p, m, v;
};

struct AdamWScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay;
};

RULE AdamWState adamw(AdamWState s, float g, AdamWScalars h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float d = sqrt(v) * h.inv_sqrt_bc2 + h.eps;
  return AdamWState(s.p * h.decay - h.step * m / d, m, v);
}

// NAdam: Dozat, "Incorporating Nesterov momentum into Adam" (2016), in torch.optim.NAdam's arithmetic.
//
// With mu(t) = beta1 (1 - 0.96^(t momentum_decay) / 2) and P their product up to t: now = lr (1 - mu(t)) / (1 - P),
// ahead = lr mu(t + 1) / (1 - P mu(t + 1)). c1, c2 and inv_sqrt_bc2 as in adamw.glsl; keep = 1 - lr weight_decay with
// decoupled decay, else 1; decay is the coupled one (see sgd.glsl). To maximise, c1, now and decay are negated.

struct NAdamState {
  float p, m, v;
};

struct NAdamScalars {
  float beta1, c1, beta2, c2, now, ahead, inv_sqrt_bc2, eps, keep, decay;
};

RULE NAdamState nadam(NAdamState s, float g, NAdamScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float m = h.beta1 * s.m + h.c1 * grad;
  float v = h.beta2 * s.v + h.c2 * grad * grad;
  float d = sqrt(v) * h.inv_sqrt_bc2 + h.eps;
  return NAdamState(s.p * h.keep - (h.now * grad + h.ahead * m) / d, m, v);
}

// Adam with coupled weight decay: Kingma & Ba, "Adam: a method for stochastic optimization" (2015), in torch.optim.Adam's
// arithmetic. Without decay, or with decoupled decay, adamw.glsl is Adam.
//
// Scalars as in adamw.glsl, but for decay: weight_decay itself. Both c1 and decay are negated to maximise.

struct AdamState {
  float p, m, v;
};

struct AdamScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay;
};

RULE AdamState adam(AdamState s, float g, AdamScalars h) {
  float grad = g + h.decay * s.p;
  float m = h.beta1 * s.m + h.c1 * grad;
  float v = h.beta2 * s.v + h.c2 * grad * grad;
  float d = sqrt(v) * h.inv_sqrt_bc2 + h.eps;
  return AdamState(s.p - h.step * m / d, m, v);
}

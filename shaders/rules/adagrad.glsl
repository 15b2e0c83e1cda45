// Adagrad: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization" (2011),
// in torch.optim.Adagrad's arithmetic.
//
// step = lr / (1 + (t - 1) lr_decay), decay = weight_decay (see sgd.glsl); both negated to maximise.

struct AdagradState {
  float p, v;
};

struct AdagradScalars {
  float eps, step, decay;
};

RULE AdagradState adagrad(AdagradState s, float g, AdagradScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float v = s.v + grad * grad;
  float d = sqrt(v) + h.eps;
  return AdagradState(s.p - h.step * grad / d, v);
}

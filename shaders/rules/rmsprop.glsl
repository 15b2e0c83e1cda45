// RMSprop: Hinton, "Neural networks for machine learning", lecture 6 (2012), in torch.optim.RMSprop's arithmetic.
//
// c2 = 1 - alpha, step = lr, decay = weight_decay (see sgd.glsl); to maximise, step and decay are negated. The variants
// have the same scalars: momentum and centered use the others.

struct RmspropState {
  float p, v;
};

struct RmspropScalars {
  float alpha, c2, eps, step, decay, c1, momentum, push;
};

RULE RmspropState rmsprop(RmspropState s, float g, RmspropScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float v = h.alpha * s.v + h.c2 * grad * grad;
  float d = sqrt(v) + h.eps;
  return RmspropState(s.p - h.step * grad / d, v);
}

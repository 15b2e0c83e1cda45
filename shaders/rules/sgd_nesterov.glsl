// Stochastic gradient descent with Nesterov's momentum: Sutskever et al., "On the importance of initialization and
// momentum in deep learning" (2013), in torch.optim.SGD's arithmetic.
//
// Scalars as in sgd_momentum.glsl (dampening is 0), and momentum, which is 0 at no step.

struct SgdNesterovState {
  float p, b;
};

struct SgdNesterovScalars {
  float keep, c, step, decay, momentum;
};

RULE SgdNesterovState sgd_nesterov(SgdNesterovState s, float g, SgdNesterovScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float push = h.c * grad;
  float b = h.keep * s.b + push;
  return SgdNesterovState(s.p - h.step * (push + h.momentum * b), b);
}

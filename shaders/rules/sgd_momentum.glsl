// Stochastic gradient descent with momentum: Polyak, "Some methods of speeding up the convergence of iteration methods"
// (1964), in torch.optim.SGD's arithmetic.
//
// keep = momentum, c = 1 - dampening; at a parameter's first step keep = 0 and c = 1. step = lr, decay = weight_decay (see
// sgd.glsl). To maximise, c and decay are negated.

struct SgdMomentumState {
  float p, b;
};

struct SgdMomentumScalars {
  float keep, c, step, decay;
};

RULE SgdMomentumState sgd_momentum(SgdMomentumState s, float g, SgdMomentumScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float b = h.keep * s.b + h.c * grad;
  return SgdMomentumState(s.p - h.step * b, b);
}

// Adadelta: Zeiler, "ADADELTA: an adaptive learning rate method" (2012), in torch.optim.Adadelta's arithmetic.
//
// c2 = 1 - rho, step = lr, decay = weight_decay (see sgd.glsl); to maximise, step and decay are negated. Two roots and
// not one of the quotient, which would underflow where the gradients are large.

struct AdadeltaState {
  float p, v, u;
};

struct AdadeltaScalars {
  float rho, c2, eps, step, decay;
};

RULE AdadeltaState adadelta(AdadeltaState s, float g, AdadeltaScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float v = h.rho * s.v + h.c2 * grad * grad;
  float change = sqrt(s.u + h.eps) / sqrt(v + h.eps) * grad;
  float u = h.rho * s.u + h.c2 * change * change;
  return AdadeltaState(s.p - h.step * change, v, u);
}

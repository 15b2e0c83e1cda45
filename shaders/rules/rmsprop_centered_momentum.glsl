// RMSprop that divides by the deviation from the mean gradient, with momentum: see rmsprop_centered.glsl and
// rmsprop_momentum.glsl.

struct RmspropCenteredMomentumState {
  float p, v, a, b;
};

struct RmspropCenteredMomentumScalars {
  float alpha, c2, eps, step, decay, c1, momentum, push;
};

RULE RmspropCenteredMomentumState rmsprop_centered_momentum(RmspropCenteredMomentumState s, float g,
                                                            RmspropCenteredMomentumScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float v = h.alpha * s.v + h.c2 * grad * grad;
  float a = h.alpha * s.a + h.c1 * grad;
  float d = sqrt(v - a * a) + h.eps;
  float b = h.momentum * s.b + h.push * grad / d;
  return RmspropCenteredMomentumState(s.p - h.step * b, v, a, b);
}

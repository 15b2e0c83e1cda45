// RMSprop that divides by the deviation from the mean gradient: Graves, "Generating sequences with recurrent neural
// networks" (2013). Scalars as in rmsprop.glsl, and c1 = 1 - alpha, negated to maximise.

struct RmspropCenteredState {
  float p, v, a;
};

struct RmspropCenteredScalars {
  float alpha, c2, eps, step, decay, c1, momentum, push;
};

RULE RmspropCenteredState rmsprop_centered(RmspropCenteredState s, float g, RmspropCenteredScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float v = h.alpha * s.v + h.c2 * grad * grad;
  float a = h.alpha * s.a + h.c1 * grad;
  float d = sqrt(v - a * a) + h.eps;
  return RmspropCenteredState(s.p - h.step * grad / d, v, a);
}

// RMSprop with momentum: see rmsprop.glsl. push = 1; to maximise, push and decay are negated, and step is not.

struct RmspropMomentumState {
  float p, v, b;
};

struct RmspropMomentumScalars {
  float alpha, c2, eps, step, decay, c1, momentum, push;
};

RULE RmspropMomentumState rmsprop_momentum(RmspropMomentumState s, float g, RmspropMomentumScalars h) {
  float grad = h.decay == 0 ? g : g + h.decay * s.p;
  float v = h.alpha * s.v + h.c2 * grad * grad;
  float d = sqrt(v) + h.eps;
  float b = h.momentum * s.b + h.push * grad / d;
  return RmspropMomentumState(s.p - h.step * b, v, b);
}

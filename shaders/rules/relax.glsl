// One step of a layer towards equilibrium: Scellier & Bengio, "Equilibrium propagation" (2017), for the Hopfield energy and
// for that of predictive coding networks.
//
//   g = own (u - pull) - gain phi'(u) back,  u <- u - step g,  r <- phi(u)
//
// r is phi(u) before a step, too. pull is where the layer below would have u, back what the layers around ask of r. own and gain are what an energy has in
// front of its terms, step = dt / tau. The sum is the square of the raw gradient's norm.

struct RelaxState {
  float r, u;
};

struct RelaxScalars {
  float own, gain, step;
};

struct RelaxSums {
  float gg, r, u;
};

ONE_OF(phi, hard_sigmoid, identity, leaky_relu, relu, sigmoid, softplus, tanh)

MATH float relax_gradient(RelaxState s, float pull, float back, RelaxScalars h) {
  return h.own * (s.u - pull) - h.gain * phi_slope(s.u, s.r) * back;
}

RULE RelaxState relax(RelaxState s, float pull, float back, RelaxScalars h) {
  float u = s.u - h.step * relax_gradient(s, pull, back, h);
  return RelaxState(phi_value(u), u);
}

SUMS RelaxSums relax_sums(RelaxState s, float pull, float back, RelaxScalars h) {
  float g = relax_gradient(s, pull, back, h);
  RelaxState next = relax(s, pull, back, h);
  return RelaxSums(g * g, next.r, next.u);
}

// One step of the leapfrog integrator, as it is done from gradient to gradient: Neal, "MCMC using Hamiltonian dynamics"
// (2011). The momentum changes by the gradient where the position is, the position moves by the momentum as it is then:
//   p <- p - kick g,  q <- q + drift w p
//
// With the step size eps a trajectory has kick = eps / 2 at both ends and eps between, and drift = eps but for the last
// kick, where it is 0. w is the diagonal of the inverse mass; a number that all elements share is scale, and goes into
// drift. The sums are twice the kinetic energies, before the kick and after it, less 1 for each element: that is what an
// element has on average, and a sum of what is left keeps more of its digits.

struct KickDriftState {
  float q, p, w;
};

struct KickDriftScalars {
  float kick, drift, scale;
};

struct KickDriftSums {
  float before, after, q, p;
};

OPTIONAL(w, 1)

RULE KickDriftState kick_drift(KickDriftState s, float g, KickDriftScalars h) {
  float p = s.p - h.kick * g;
  return KickDriftState(s.q + h.drift * (s.w * p), p, s.w);
}

SUMS KickDriftSums kick_drift_sums(KickDriftState s, float g, KickDriftScalars h) {
  KickDriftState next = kick_drift(s, g, h);
  return KickDriftSums(h.scale * s.w * s.p * s.p - 1, h.scale * s.w * next.p * next.p - 1, next.q, next.p);
}

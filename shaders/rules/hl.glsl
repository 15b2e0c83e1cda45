// Hamiltonian Learning: Melacci et al., arXiv 2409.12038 (2024).
//
// A weight w and its costate p. With the model's time step delta, a = -delta flip, keep = 1 + flip theta, step = delta
// beta. Weights follow the costates as they were (local = 1), or as they are now (local = 0).

struct HlState {
  float w, p;
};

struct HlScalars {
  float a, keep, step, local;
};

RULE HlState hl(HlState s, float g, HlScalars h) {
  float p = h.keep * s.p + h.a * g;
  float v = h.local > 0 ? s.p : p;
  return HlState(s.w - h.step * v, p);
}

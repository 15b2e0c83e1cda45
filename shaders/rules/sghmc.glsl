// Stochastic gradient Hamiltonian Monte Carlo: Chen, Fox & Guestrin (2014), in posteriors' order: the parameter moves by
// the momentum as it was, and the momentum changes by the gradient where the parameter was.
//
// With the step h: grad = h nbeta, pull = h localization (towards start), decay = h weight_decay (towards 0),
// drift = h / sigma^2, friction = h alpha / sigma^2, spread = sqrt(temperature h (2 alpha - temperature h beta)). box: how
// far from start a parameter may get, or infinity; a momentum that leads out of it turns around. The sums are those of
// sgld.glsl, of what changes the momentum.

struct SghmcState {
  float p, m, start, mask;
};

struct SghmcScalars {
  float grad, pull, decay, drift, friction, spread, box;
};

struct SghmcSums {
  float gg, uu, ll, ww, nn, dd, g_prior, g_noise, prior_noise, p, m;
};

OPTIONAL(start, 0)
OPTIONAL(mask, 1)
NORMAL(z)

RULE SghmcState sghmc(SghmcState s, float g, float z, SghmcScalars h) {
  float p = s.p + s.mask * (h.drift * s.m);
  float prior = h.pull * (s.p - s.start) + h.decay * s.p;
  float m = s.mask * (s.m - (h.grad * g + prior) - h.friction * s.m + h.spread * z);
  float low = s.start - h.box, high = s.start + h.box;
  float turned = p - s.start < h.box ? (s.start - p < h.box ? m : -m) : -m;
  return SghmcState(p < low ? low : p > high ? high : p, turned, s.start, s.mask);
}

SUMS SghmcSums sghmc_sums(SghmcState s, float g, float z, SghmcScalars h) {
  float u = h.grad * g;
  float a = s.mask * u, l = s.mask * (h.pull * (s.p - s.start)), w = s.mask * (h.decay * s.p);
  float n = s.mask * (h.spread * z), d = s.p - s.start, prior = l + w;
  SghmcState next = sghmc(s, g, z, h);
  return SghmcSums(a * a, u * u, l * l, w * w, n * n, d * d, a * prior, a * n, prior * n, next.p, next.m);
}

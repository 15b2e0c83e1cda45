// Stochastic gradient Langevin dynamics: Welling & Teh, "Bayesian learning via stochastic gradient Langevin dynamics"
// (2011), with a Gaussian prior, a mask and a box.
//
// The host computes the scalars in double, with the learning rate eps:
//   grad = eps / 2 nbeta, pull = eps / 2 localization (towards center), decay = eps / 2 weight_decay (towards 0),
//   spread = sqrt(eps) noise_level, box: how far from start a parameter may get, or infinity.
// The sums are squares and products of the parts of a step, before the box: g of the gradient (u without the mask), l of
// the pull, w of the decay, n of the noise, d of the distance from start, prior = pull + decay.

struct SgldState {
  float p, center, start, mask;
};

struct SgldScalars {
  float grad, pull, decay, spread, box;
};

struct SgldSums {
  float gg, uu, ll, ww, nn, dd, g_prior, g_noise, prior_noise, p;
};

struct SgldParts {
  float part_grad, part_raw, part_pull, part_decay, part_noise;
};

OPTIONAL(center, 0)
OPTIONAL(start, 0)
OPTIONAL(mask, 1)
NORMAL(z)

RULE SgldState sgld(SgldState s, float g, float z, SgldScalars h) {
  float prior = h.pull * (s.p - s.center) + h.decay * s.p;
  float p = s.p - s.mask * (h.grad * g + prior) + s.mask * (h.spread * z);
  float low = s.start - h.box, high = s.start + h.box;
  return SgldState(p < low ? low : p > high ? high : p, s.center, s.start, s.mask);
}

PARTS SgldParts sgld_parts(SgldState s, float g, float z, SgldScalars h) {
  float u = h.grad * g;
  float l = s.mask * (h.pull * (s.p - s.center)), w = s.mask * (h.decay * s.p);
  return SgldParts(s.mask * u, u, l, w, s.mask * (h.spread * z));
}

SUMS SgldSums sgld_sums(SgldState s, float g, float z, SgldScalars h) {
  SgldParts of = sgld_parts(s, g, z, h);
  float a = of.part_grad, u = of.part_raw, l = of.part_pull, w = of.part_decay, n = of.part_noise;
  float d = s.p - s.start, prior = l + w;
  SgldState next = sgld(s, g, z, h);
  return SgldSums(a * a, u * u, l * l, w * w, n * n, d * d, a * prior, a * n, prior * n, next.p);
}

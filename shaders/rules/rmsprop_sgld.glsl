// sgld.glsl with RMSprop's preconditioner, in devinterp's form: Li et al., "Preconditioned stochastic gradient Langevin
// dynamics for deep neural networks" (2016), without the term for the change of the preconditioner.
//
// beta = 1 - alpha; the others are those of sgld.glsl.

struct RmspropSgldState {
  float p, v, center, start, mask;
};

struct RmspropSgldScalars {
  float grad, pull, decay, spread, box, alpha, beta, eps;
};

struct RmspropSgldSums {
  float gg, uu, ll, ww, nn, dd, g_prior, g_noise, prior_noise, p, v;
};

struct RmspropSgldParts {
  float part_grad, part_raw, part_pull, part_decay, part_noise;
};

OPTIONAL(center, 0)
OPTIONAL(start, 0)
OPTIONAL(mask, 1)
NORMAL(z)

RULE RmspropSgldState rmsprop_sgld(RmspropSgldState s, float g, float z, RmspropSgldScalars h) {
  float v = h.alpha * s.v + h.beta * g * g;
  float scale = 1 / (sqrt(v) + h.eps);
  float prior = h.pull * (s.p - s.center) + h.decay * s.p;
  float p = s.p - s.mask * (scale * (h.grad * g + prior)) + s.mask * (h.spread * sqrt(scale) * z);
  float low = s.start - h.box, high = s.start + h.box;
  return RmspropSgldState(p < low ? low : p > high ? high : p, v, s.center, s.start, s.mask);
}

PARTS RmspropSgldParts rmsprop_sgld_parts(RmspropSgldState s, float g, float z, RmspropSgldScalars h) {
  float scale = 1 / (sqrt(h.alpha * s.v + h.beta * g * g) + h.eps);
  float u = h.grad * g;
  float l = s.mask * (scale * (h.pull * (s.p - s.center))), w = s.mask * (scale * (h.decay * s.p));
  return RmspropSgldParts(s.mask * (scale * u), u, l, w, s.mask * (h.spread * sqrt(scale) * z));
}

SUMS RmspropSgldSums rmsprop_sgld_sums(RmspropSgldState s, float g, float z, RmspropSgldScalars h) {
  RmspropSgldParts of = rmsprop_sgld_parts(s, g, z, h);
  float a = of.part_grad, u = of.part_raw, l = of.part_pull, w = of.part_decay, n = of.part_noise;
  float d = s.p - s.start, prior = l + w;
  RmspropSgldState next = rmsprop_sgld(s, g, z, h);
  return RmspropSgldSums(a * a, u * u, l * l, w * w, n * n, d * d, a * prior, a * n, prior * n, next.p, next.v);
}

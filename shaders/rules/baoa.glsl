// Langevin dynamics split into kick (B), half drift (A), friction and noise (O), half drift (A): Leimkuhler & Matthews
// (2013). A step of BAOAB ends with another half kick, by the gradient where the next step begins: after a first step
// with half a kick the two are the same.
//
// With the step h: grad, pull and decay are those of sghmc.glsl, drift = h / (2 sigma^2), keep = exp(-h alpha / sigma^2),
// spread = sigma sqrt(temperature (1 - keep^2)), box as there, and so are the sums.

struct BaoaState {
  float p, m, start, mask;
};

struct BaoaScalars {
  float grad, pull, decay, drift, keep, spread, box;
};

struct BaoaSums {
  float gg, uu, ll, ww, nn, dd, g_prior, g_noise, prior_noise, p, m;
};

OPTIONAL(start, 0)
OPTIONAL(mask, 1)
NORMAL(z)

RULE BaoaState baoa(BaoaState s, float g, float z, BaoaScalars h) {
  float prior = h.pull * (s.p - s.start) + h.decay * s.p;
  float kicked = s.mask * (s.m - (h.grad * g + prior));
  float m = s.mask * (h.keep * kicked + h.spread * z);
  float p = s.p + h.drift * kicked;
  p = p + h.drift * m;
  float low = s.start - h.box, high = s.start + h.box;
  float turned = p - s.start < h.box ? (s.start - p < h.box ? m : -m) : -m;
  return BaoaState(p < low ? low : p > high ? high : p, turned, s.start, s.mask);
}

SUMS BaoaSums baoa_sums(BaoaState s, float g, float z, BaoaScalars h) {
  float u = h.grad * g;
  float a = s.mask * u, l = s.mask * (h.pull * (s.p - s.start)), w = s.mask * (h.decay * s.p);
  float n = s.mask * (h.spread * z), d = s.p - s.start, prior = l + w;
  BaoaState next = baoa(s, g, z, h);
  return BaoaSums(a * a, u * u, l * l, w * w, n * n, d * d, a * prior, a * n, prior * n, next.p, next.m);
}

// Stochastic gradient Nose-Hoover thermostat: Ding et al., "Bayesian sampling using stochastic gradient thermostats"
// (2014). The parts are what the gradient and the noise add to the momentum, g and n; d is the distance from start. The
// thermostat of the next step follows from the momentum's square, mm.
//
// push = eps nbeta, xi: the thermostat, spread = sqrt(2 eps diffusion_factor), box: how far from start a parameter may
// get, or infinity; a momentum that leads out of it turns around.

struct SgnhtState {
  float p, m, start, mask;
};

struct SgnhtScalars {
  float push, xi, spread, box;
};

struct SgnhtSums {
  float mm, gg, nn, dd, g_noise, p, m;
};

struct SgnhtParts {
  float part_grad, part_noise;
};

OPTIONAL(start, 0)
OPTIONAL(mask, 1)
NORMAL(z)

PARTS SgnhtParts sgnht_parts(SgnhtState s, float g, float z, SgnhtScalars h) {
  return SgnhtParts(s.mask * (h.push * g), s.mask * (h.spread * z));
}

SUMS SgnhtSums sgnht_sums(SgnhtState s, float g, float z, SgnhtScalars h) {
  SgnhtParts of = sgnht_parts(s, g, z, h);
  float a = of.part_grad, n = of.part_noise, d = s.p - s.start;
  float m = s.mask * s.m - a;
  m = m - h.xi * m;
  m = m + n;
  float p = s.p + m, low = s.start - h.box, high = s.start + h.box;
  float turned = p - s.start < h.box ? (s.start - p < h.box ? m : -m) : -m;
  return SgnhtSums(m * m, a * a, n * n, d * d, a * n, p < low ? low : p > high ? high : p, turned);
}

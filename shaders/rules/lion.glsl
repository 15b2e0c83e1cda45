// Lion: Chen et al., "Symbolic discovery of optimization algorithms" (2023).
//
// c1 = 1 - beta1, c2 = 1 - beta2, step = lr, keep = 1 - lr * weight_decay. The sign of 0 is 0, and NaN passes.

struct LionState {
  float p, m;
};

struct LionScalars {
  float beta1, c1, beta2, c2, step, keep;
};

RULE LionState lion(LionState s, float g, LionScalars h) {
  float u = h.beta1 * s.m + h.c1 * g;
  float change = u > 0 ? h.step : u < 0 ? -h.step : u;
  return LionState(s.p * h.keep - change, h.beta2 * s.m + h.c2 * g);
}

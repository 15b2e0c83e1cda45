// AdamW with AMSGrad: Reddi, Kale & Kumar, "On the convergence of Adam and beyond" (2018).
//
// The largest v so far divides the step. Scalars as in adamw.glsl. The comparison is written so that a NaN in v passes
// into vmax, as it does in torch.

struct AdamWAmsgradState {
  float p, m, v, vmax;
};

struct AdamWAmsgradScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay;
};

RULE AdamWAmsgradState adamw_amsgrad(AdamWAmsgradState s, float g, AdamWAmsgradScalars h) {
  float m = h.beta1 * s.m + h.c1 * g;
  float v = h.beta2 * s.v + h.c2 * g * g;
  float vmax = s.vmax >= v ? s.vmax : v;
  float d = sqrt(vmax) * h.inv_sqrt_bc2 + h.eps;
  return AdamWAmsgradState(s.p * h.decay - h.step * m / d, m, v, vmax);
}

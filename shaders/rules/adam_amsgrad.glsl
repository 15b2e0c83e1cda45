// Adam with coupled weight decay and AMSGrad: see adam.glsl and adamw_amsgrad.glsl.

struct AdamAmsgradState {
  float p, m, v, vmax;
};

struct AdamAmsgradScalars {
  float beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay;
};

RULE AdamAmsgradState adam_amsgrad(AdamAmsgradState s, float g, AdamAmsgradScalars h) {
  float grad = g + h.decay * s.p;
  float m = h.beta1 * s.m + h.c1 * grad;
  float v = h.beta2 * s.v + h.c2 * grad * grad;
  float vmax = s.vmax >= v ? s.vmax : v;
  float d = sqrt(vmax) * h.inv_sqrt_bc2 + h.eps;
  return AdamAmsgradState(s.p - h.step * m / d, m, v, vmax);
}

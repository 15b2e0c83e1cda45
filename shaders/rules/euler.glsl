// One step of Euler's method, o' = d, with decay: keep = 1 - decay.

struct EulerState {
  float o;
};

struct EulerScalars {
  float keep, step;
};

RULE EulerState euler(EulerState s, float d, EulerScalars h) {
  return EulerState(h.keep * s.o + h.step * d);
}

// Standard normal numbers, times a scale: lib/draws.glsl.

struct DrawNormalState {
  float p;
};

struct DrawNormalScalars {
  float scale;
};

NORMAL(z)

RULE DrawNormalState draw_normal(DrawNormalState s, float z, DrawNormalScalars h) {
  return DrawNormalState(h.scale * z);
}

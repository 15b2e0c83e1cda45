// Uniform numbers in [low, low + width): lib/draws.glsl.

struct DrawUniformState {
  float p;
};

struct DrawUniformScalars {
  float low, width;
};

UNIFORM(u)

RULE DrawUniformState draw_uniform(DrawUniformState s, float u, DrawUniformScalars h) {
  return DrawUniformState(h.low + h.width * u);
}

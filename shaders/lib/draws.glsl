// Random words to numbers, in float32 for rules of both precisions. Only additions, multiplications, exact conversions
// and integer operations: every device gives the same bits. In C++, float, int and uint may stand for many of them.

struct Pair {
  float a, b;
};

// In [0, 1), all multiples of 2^-24.
RULE float uniform_of(uint w) { return float(int(w >> 8)) * 5.9604644775390625e-8f; }

// -2 ln(u) for u in (0, 1], a multiple of 2^-24: u = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)], and a polynomial
// whose error is 3e-8 of the result, near u = 1 too.
RULE float minus_two_log(uint w) {
  int bits = floatBitsToInt(float(int(w >> 8) + 1));
  int n = (0x4bb504f2 - bits) & 0x7f800000;  // 24 - e, where a float has its exponent
  float f = intBitsToFloat(bits + n - 0x0c000000) - 1.0f;
  float q = -0.174008667f * f + 0.285349816f;
  q = q * f - 0.298295408f;
  q = q * f + 0.331551671f;
  q = q * f - 0.399261266f;
  q = q * f + 0.500026762f;
  q = q * f - 0.66667819f;
  return float(n) * 1.6525916635e-7f - f * (2.0f - f * (f * q + 1.0f));
}

// The first guess is good to 3 %, and each of Newton's steps squares that. 0 for 0.
RULE float root_of(float x) {
  float half_x = 0.5f * x;
  float y = intBitsToFloat(0x5f3759df - (floatBitsToInt(x) >> 1));
  y = y * (1.5f - half_x * y * y);
  y = y * (1.5f - half_x * y * y);
  y = y * (1.5f - half_x * y * y);
  return x * y;
}

// Two standard normal numbers: Box & Muller (1958). v is an angle in 2^-32 turns, taken apart into a quarter of a turn
// and what is left of it, t in [-1, 1) eighths of a turn.
RULE Pair normals_of(uint u, uint v) {
  float r = root_of(minus_two_log(u));
  uint turned = v + 0x20000000u;
  float t = float(int(turned & 0x3fffffc0u) - 0x20000000) * 1.862645149230957e-9f;
  float z = t * t;
  float sine = t * (0.785398163f + z * (-0.0807454586f + z * (0.00249004923f + z * -3.59789774e-5f)));
  float cosine = 1.0f + z * (-0.308424503f + z * (0.0158503968f + z * -3.19160114e-4f));
  // An odd quarter swaps the two; then each has its sign.
  float x = mix(sine, cosine, (turned & 0x40000000u) == 0u), y = mix(cosine, sine, (turned & 0x40000000u) == 0u);
  int sign_x = int((turned + 0x40000000u) & 0x80000000u), sign_y = int(turned & 0x80000000u);
  return Pair(r * intBitsToFloat(floatBitsToInt(x) ^ sign_x), r * intBitsToFloat(floatBitsToInt(y) ^ sign_y));
}

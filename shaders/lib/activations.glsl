// Activations x -> r and their derivatives, for rules that are one per activation (ONE_OF): straight lines in the words of
// lib/elementary.glsl, which stands before this text. A derivative may use r, the activation of x, which saves an exponential.
// Where it jumps it has the value that is said here. NaN stays NaN, in every function and every derivative.

MATH float where_number(float result, float x) { return mix(result, x, isnan(x)); }

MATH float identity_value(float x) { return x; }
MATH float identity_slope(float x, float r) { return where_number(float(1), x); }

// 0 at 0.
MATH float relu_value(float x) { return mix(x, float(0), x < float(0)); }
MATH float relu_slope(float x, float r) { return where_number(mix(float(0), float(1), x > float(0)), x); }

// 1/20 at 0.
MATH float leaky_relu_value(float x) { return mix(x, x * (float(1) / 20), x < float(0)); }
MATH float leaky_relu_slope(float x, float r) { return where_number(mix(float(1) / 20, float(1), x > float(0)), x); }

// 1 at 0 and at 1.
MATH float hard_sigmoid_value(float x) { return mix(mix(x, float(0), x < float(0)), float(1), x > float(1)); }
MATH float hard_sigmoid_slope(float x, float r) {
  return where_number(mix(mix(float(1), float(0), x < float(0)), float(0), x > float(1)), x);
}

// With e = exp(-|x|) nothing overflows, and nothing is taken from 1 that would leave few digits.
MATH float sigmoid_value(float x) {
  float e = exponential(-magnitude(x));
  return mix(float(1), e, x < float(0)) / (1 + e);
}
MATH float sigmoid_slope(float x, float r) { return r * (1 - r); }

// (exp(y) - 1) / y for y in [0, 7/10]: Taylor's polynomial, which loses nothing at 0.
MATH float excess_ratio(float y) {
  float sum = 1 + y * (float(1) / 17);
  sum = 1 + sum * y * (float(1) / 16);
  sum = 1 + sum * y * (float(1) / 15);
  sum = 1 + sum * y * (float(1) / 14);
  sum = 1 + sum * y * (float(1) / 13);
  sum = 1 + sum * y * (float(1) / 12);
  sum = 1 + sum * y * (float(1) / 11);
  sum = 1 + sum * y * (float(1) / 10);
  sum = 1 + sum * y * (float(1) / 9);
  sum = 1 + sum * y * (float(1) / 8);
  sum = 1 + sum * y * (float(1) / 7);
  sum = 1 + sum * y * (float(1) / 6);
  sum = 1 + sum * y * (float(1) / 5);
  sum = 1 + sum * y * (float(1) / 4);
  sum = 1 + sum * y * (float(1) / 3);
  return 1 + sum * y * (float(1) / 2);
}

// (exp(2x) - 1) / (exp(2x) + 1), by the one exponential or the other.
MATH float tanh_value(float x) {
  float y = 2 * magnitude(x);
  float m = y * excess_ratio(mix(y, float(0), y > float(7) / 10));
  float e = exponential(-y);
  float t = mix(m / (m + 2), (1 - e) / (1 + e), y > float(7) / 10);
  return where_number(mix(t, -t, x < float(0)), x);
}
MATH float tanh_slope(float x, float r) { return 1 - r * r; }

// log(1 + exp(x)), and x itself above 20.
MATH float softplus_value(float x) { return mix(softplus(x), x, x > float(20)); }
MATH float softplus_slope(float x, float r) { return mix(sigmoid_value(x), float(1), x > float(20)); }

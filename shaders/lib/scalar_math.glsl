// exp, tanh and whole powers for the code between two passes: branches and loops, so not for rules.
//
// The same text serves both precisions, so constants are ratios of integers.

RULE float power(float x, float n) {
  float result = float(1);
  while (n >= 1) {
    float rest = floor(n / 2);
    if (n - 2 * rest == 1) result = result * x;
    x = x * x;
    n = rest;
  }
  return result;
}

// Cody & Waite, "Software Manual for the Elementary Functions" (1980): log 2 in three pieces whose products with a small
// whole number are exact, then Taylor's polynomial for |r| <= log(2) / 2, to the last bits of a double.
RULE float exponential(float x) {
  if (!(x == x)) return x;
  x = x > 1100 ? float(1100) : x < -1100 ? float(-1100) : x;
  float k = floor(x * 14427 / 10000 + float(1) / 2);
  float r = x - k * (float(355) / 512);
  r = r + k * (float(14581891) / 65536 / 1048576);
  r = r - k * (float(15187158) / 67108864 / 67108864 / 2048);
  float sum = float(1);
  for (int n = 14; n >= 1; --n) sum = 1 + sum * r / n;
  return sum * (k >= 0 ? power(float(2), k) : power(float(1) / 2, -k));
}

RULE float hyperbolic_tangent(float x) {
  float e = exponential(-2 * (x < 0 ? -x : x));
  float t = (1 - e) / (1 + e);
  return x < 0 ? -t : t;
}

RULE bool is_finite(float x) { return x - x == 0; }

// exp and log for potentials: one straight line of additions, multiplications and divisions, so the same bits wherever
// these are rounded correctly (Vulkan lets a GPU be 2.5 ulp off in a division), and `float` may stand for many of them.
// What depends on the precision stands in LOWEST_EXP (below it exp is 0: its last digits would be subnormal, which some
// devices flush), HIGHEST_EXP, ROUNDER (added and taken away, it rounds) and power_of_two(k), for whole k. Constants are
// ratios of integers: one text serves both precisions.

// Cody & Waite, "Software Manual for the Elementary Functions" (1980): log 2 in three pieces whose products with a small
// whole number are exact, then Taylor's polynomial for |r| <= log(2) / 2.
MATH float exponential(float x) {
  float y = mix(float(LOWEST_EXP), x, x > float(LOWEST_EXP));
  y = mix(float(HIGHEST_EXP), y, y < float(HIGHEST_EXP));
  float k = (y * (float(14427) / 10000) + float(ROUNDER)) - float(ROUNDER);
  float r = y - k * (float(355) / 512);
  r = r + k * (float(14581891) / 65536 / 1048576);
  r = r - k * (float(15187158) / 67108864 / 67108864 / 2048);
  float sum = float(1) / 479001600 * r / 13 + float(1) / 479001600;
  sum = sum * r + float(1) / 39916800;
  sum = sum * r + float(1) / 3628800;
  sum = sum * r + float(1) / 362880;
  sum = sum * r + float(1) / 40320;
  sum = sum * r + float(1) / 5040;
  sum = sum * r + float(1) / 720;
  sum = sum * r + float(1) / 120;
  sum = sum * r + float(1) / 24;
  sum = sum * r + float(1) / 6;
  sum = sum * r + float(1) / 2;
  sum = sum * r + 1;
  sum = sum * r + 1;
  // In two factors: 2^k itself may be beyond the largest number.
  float half_k = (k * (float(1) / 2) + float(ROUNDER)) - float(ROUNDER);
  float result = sum * power_of_two(half_k) * power_of_two(k - half_k);
  result = mix(result, float(0), x < float(LOWEST_EXP));
  return mix(result, x, isnan(x));
}

// log(1 + y) for y in [0, 1]: 2 artanh(y / (2 + y)).
MATH float log_one_plus(float y) {
  float s = y / (2 + y), z = s * s;
  float sum = float(1) / 35;
  sum = sum * z + float(1) / 33;
  sum = sum * z + float(1) / 31;
  sum = sum * z + float(1) / 29;
  sum = sum * z + float(1) / 27;
  sum = sum * z + float(1) / 25;
  sum = sum * z + float(1) / 23;
  sum = sum * z + float(1) / 21;
  sum = sum * z + float(1) / 19;
  sum = sum * z + float(1) / 17;
  sum = sum * z + float(1) / 15;
  sum = sum * z + float(1) / 13;
  sum = sum * z + float(1) / 11;
  sum = sum * z + float(1) / 9;
  sum = sum * z + float(1) / 7;
  sum = sum * z + float(1) / 5;
  sum = sum * z + float(1) / 3;
  return 2 * (s * z * sum + s);
}

MATH float magnitude(float x) { return mix(x, -x, x < float(0)); }

// log(1 + exp(x))
MATH float softplus(float x) { return mix(float(0), x, x > float(0)) + log_one_plus(exponential(-magnitude(x))); }

// A sum that keeps what rounding loses: Knuth's two-sum.
struct Sum {
  float hi, lo;
};

MATH Sum zero_sum() { return Sum(float(0), float(0)); }

MATH Sum plus(Sum s, float x) {
  float t = s.hi + x;
  float z = t - s.hi;
  return Sum(t, s.lo + ((s.hi - (t - z)) + (x - z)));
}

MATH Sum plus_sum(Sum a, Sum b) {
  Sum s = plus(a, b.hi);
  return Sum(s.hi, s.lo + b.lo);
}

MATH Sum half_of(Sum s) { return Sum(s.hi * (float(1) / 2), s.lo * (float(1) / 2)); }

MATH float difference(Sum a, Sum b) { return (a.hi - b.hi) + (a.lo - b.lo); }

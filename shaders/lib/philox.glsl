// Philox4x32-10: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
//
// Word is a 32-bit word, or a vector of them; mul_low and mul_high are the two halves of a product. docs/random.md says
// what stands in the counter.

struct Words {
  Word a, b, c, d;
};

RULE Words philox_round(Words x, uint key0, uint key1) {
  return Words(mul_high(x.c, 0xCD9E8D57u) ^ x.b ^ key0, mul_low(x.c, 0xCD9E8D57u), mul_high(x.a, 0xD2511F53u) ^ x.d ^ key1,
               mul_low(x.a, 0xD2511F53u));
}

RULE Words philox(Words x, uint key0, uint key1) {
  for (uint round = 0u; round < 10u; ++round)
    x = philox_round(x, key0 + round * 0x9E3779B9u, key1 + round * 0xBB67AE85u);
  return x;
}

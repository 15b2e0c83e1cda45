// What may happen to a gradient before a rule sees it, and to a parameter's path after it: the same for every rule.
//
// limit clips by value, scale by norm; strength is that of an anchored quadratic, the penalty of a method against
// forgetting (Kirkpatrick et al. 2017), whose gradient is weight * (p - anchor). A NaN passes through the comparisons.

struct Mix {
  float limit, scale, strength;
};

RULE float clipped(float g, Mix m) {
  return m.scale * (g > m.limit ? m.limit : g < -m.limit ? -m.limit : g);
}

RULE float anchored(float g, float p, float weight, float anchor, Mix m) {
  return g + m.strength * (weight * (p - anchor));
}

// The path integral of Zenke et al. 2017: what the loss lost along this element's way.
RULE float traced(float trace, float before, float after, float g) {
  return trace - (after - before) * g;
}

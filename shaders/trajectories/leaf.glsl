// One step of the integrator, for the leaf that comes next; forward or backward.

TRAJECTORY void leaf() {
  float size = number(SIGNED_SIZE), half_size = size * (float(1) / 2);
  for (uint d = 0; d < dim; ++d) put(MOMENTUM, d, momentum(d) - half_size * at(GRADIENT, d));
  for (uint d = 0; d < dim; ++d) put(POSITION, d, at(POSITION, d) + size * velocity(d));
  set_sum(U_HERE, potential(1));
  Sum twice = zero_sum();
  for (uint d = 0; d < dim; ++d) put(MOMENTUM, d, momentum(d) - half_size * at(GRADIENT, d));
  for (uint d = 0; d < dim; ++d) {
    float v = velocity(d);
    put(VELOCITY, d, v);
    twice = plus(twice, momentum(d) * v);
  }
  set_sum(H_HERE, plus_sum(sum_at(U_HERE), half_of(twice)));
}

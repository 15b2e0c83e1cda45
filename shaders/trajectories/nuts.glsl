// The no-U-turn sampler: Hoffman & Gelman (2014), multinomial as in Betancourt, "A conceptual introduction to Hamiltonian
// Monte Carlo" (2017), with Stan's checks across the join of two halves. One chain, leaf by leaf, without recursion;
// sampling/_tree_multinomial.py says what happens in which order.
//
// Of the past a subtree needs, for each level, where a half began (its momentum, velocity, and the total before it) and
// where the first half of a pair ended (momentum and velocity).

TRAJECTORY uint begun(uint ones) { return TABLES + 3 * ones; }
TRAJECTORY uint ended(uint level) { return TABLES + 3 * max_tree_depth + 2 * level; }

TRAJECTORY void add_momentum() {
  for (uint d = 0; d < dim; ++d) put(TOTAL, d, at(TOTAL, d) + momentum(d));
}

TRAJECTORY void copy_edge(uint from, uint to) {
  for (uint k = 0; k < 4; ++k) copy(from + k, to + k);
}

// A new subtree, from one of the tree's edges.
TRAJECTORY void sprout(uint t) {
  float doublings = number(DOUBLINGS);
  bool backward = drawn(t, PURPOSE_DIRECTION, 2 * uint(doublings)) < float(1) / 2;
  copy_edge(backward ? LEFT : RIGHT, POSITION);
  copy(ZERO, TOTAL);
  set_number(SIGNED_SIZE, backward ? -number(STEP_SIZE) : number(STEP_SIZE));
  set_number(DOUBLINGS, doublings + 1);
  set_number(LEAF, float(0));
}

TRAJECTORY void begin(uint t) {
  draw_normals(t);
  for (uint d = 0; d < dim; ++d) put(MOMENTUM, d, fresh(d));
  for (uint d = 0; d < dim; ++d) put(VELOCITY, d, velocity(d));
  copy_edge(POSITION, LEFT);
  copy_edge(POSITION, RIGHT);
  copy(MOMENTUM, RHO);
  copy(POSITION, KEPT_POSITION);
  copy(GRADIENT, KEPT_GRADIENT);
  Sum h = plus_sum(sum_at(U_HERE), kinetic());
  set_sum(H_START, h);
  set_sum(H_KEPT, h);
  set_sum(U_KEPT, sum_at(U_HERE));
  set_number(M_TREE, float(0));
  set_number(S_TREE, float(1));
  set_number(TRANSITION, float(t));
  set_number(DOUBLINGS, float(0));
  set_number(LEAVES, float(0));
  set_number(ACCEPTANCE, float(0));
  set_number(MOVED, float(0));
  sprout(t);
}

TRAJECTORY void prepare() {
  for (uint d = 0; d < dim; ++d) put(ZERO, d, float(0));
  begin(0);
}

// To where the transition leads.
TRAJECTORY void settle() {
  copy(KEPT_POSITION, POSITION);
  copy(KEPT_GRADIENT, GRADIENT);
  set_sum(U_HERE, sum_at(U_KEPT));
}

TRAJECTORY void finish(uint t, bool diverging, bool saturated) {
  settle();
  Sum u = sum_at(U_KEPT), h = sum_at(H_KEPT);
  float rate = number(ACCEPTANCE) / number(LEAVES);
  float diverged = diverging ? float(1) : number(DIVERGED);
  set_number(MOVES, number(MOVES) + number(MOVED));
  if (kept(t) > 0) {
    keep_position(t);
    keep(t, LP, -u.hi);
    keep(t, LP + 1, -u.lo);
    keep(t, TOTAL_ENERGY, h.hi);
    keep(t, TOTAL_ENERGY + 1, h.lo);
    keep(t, RATE, rate);
    keep(t, SIZE, number(STEP_SIZE));
    keep(t, TAKEN, number(LEAVES));
    keep(t, DIVERGING, diverged);
    diverged = float(0);
    keep(t, ACCEPTED, number(MOVED));
    keep(t, DEPTH, number(DOUBLINGS));
    keep(t, SATURATED, saturated ? float(1) : float(0));
  }
  set_number(DIVERGED, diverged);
  if (adapting > 0) adapt_step_size(rate);
  if (t + 1 < transitions) {
    begin(t + 1);
  } else {
    set_number(TRANSITION, float(t + 1));
    set_number(SIGNED_SIZE, float(0));
  }
}

// Whether two halves L and R, grown one after the other, have turned. Their sums are at(sum_l) - at(but_l), and at(sum_r)
// - at(but_r); first_l, last_l and first_r are momenta of theirs, and R's last one is the leaf's.
TRAJECTORY bool turned(uint sum_l, uint but_l, uint sum_r, uint but_r, uint first_l, uint last_l, uint first_r) {
  float both_first = float(0), both_last = float(0), left_first = float(0), left_last = float(0);
  float right_first = float(0), right_last = float(0);
  for (uint d = 0; d < dim; ++d) {
    float l = at(sum_l, d) - at(but_l, d), r = at(sum_r, d) - at(but_r, d);
    float v_first = at(first_l + 1, d), v_last = at(VELOCITY, d);
    float with_first = l + at(first_r, d), with_last = at(last_l, d) + r;
    both_first = both_first + v_first * (l + r);
    both_last = both_last + v_last * (l + r);
    left_first = left_first + v_first * with_first;
    left_last = left_last + at(first_r + 1, d) * with_first;
    right_first = right_first + at(last_l + 1, d) * with_last;
    right_last = right_last + v_last * with_last;
  }
  return !(both_first > 0 && both_last > 0 && left_first > 0 && left_last > 0 && right_first > 0 && right_last > 0);
}

// What the leaf adds to the subtree's weight, relative to what comes out of it.
TRAJECTORY float weigh(float fall, uint n) {
  float m = number(M_NEW), s = number(S_NEW), weight = float(1);
  if (n == 0) {
    m = fall;
    s = float(1);
  } else if (fall > m) {
    s = s * exponential(m - fall) + 1;
    m = fall;
  } else {
    weight = exponential(fall - m);
    s = s + weight;
  }
  set_number(M_NEW, m);
  set_number(S_NEW, s);
  return weight / s;
}

// Whether leaf n closes a pair of halves that has turned.
TRAJECTORY bool closes_turn(uint n) {
  uint place = ones(n >> 1);
  if ((n & 1) == 0) {
    copy(MOMENTUM, begun(place));
    copy(VELOCITY, begun(place) + 1);
    copy(TOTAL, begun(place) + 2);
    add_momentum();
    return false;
  }
  add_momentum();
  uint first = begun(place), level = 1;
  if (turned(first, ZERO, MOMENTUM, ZERO, first, first, MOMENTUM)) return true;
  while ((n >> level & 1) == 1) {
    uint middle = first;
    first = first - 3;
    if (turned(middle + 2, first + 2, TOTAL, middle + 2, first, ended(level), middle)) return true;
    level = level + 1;
  }
  copy(MOMENTUM, ended(level));
  copy(VELOCITY, ended(level) + 1);
  return false;
}

// The tree takes the subtree in; whether it has turned by that.
TRAJECTORY bool join(uint t, uint doublings) {
  float m = number(M_TREE), m_new = number(M_NEW);
  float top = m_new > m ? m_new : m;
  float old = number(S_TREE) * exponential(m - top), weight = number(S_NEW) * exponential(m_new - top);
  if (drawn(t, PURPOSE_DIRECTION, 2 * doublings - 1) * old < weight) {
    copy(LEAF_POSITION, KEPT_POSITION);
    copy(LEAF_GRADIENT, KEPT_GRADIENT);
    set_sum(U_KEPT, sum_at(U_LEAF));
    set_sum(H_KEPT, sum_at(H_LEAF));
    set_number(MOVED, float(1));
  }
  set_number(M_TREE, top);
  set_number(S_TREE, old + weight);
  bool backward = number(SIGNED_SIZE) < 0;
  uint near = backward ? LEFT : RIGHT, far = backward ? RIGHT : LEFT;
  bool turns = turned(RHO, ZERO, TOTAL, ZERO, far + 1, near + 1, begun(0));
  for (uint d = 0; d < dim; ++d) put(RHO, d, at(RHO, d) + at(TOTAL, d));
  copy_edge(POSITION, near);
  return turns;
}

// What a new leaf means for the tree. One `finish` is all that shaders are to be made of: functions are copied to where
// they are called.
TRAJECTORY void grow() {
  uint t = uint(number(TRANSITION)), n = uint(number(LEAF)), leaves = uint(number(LEAVES));
  uint doublings = uint(number(DOUBLINGS));
  float fall = difference(sum_at(H_START), sum_at(H_HERE));
  bool finite = fall - fall == 0;
  float ratio = exponential(fall);
  set_number(LEAVES, float(leaves + 1));
  if (finite) set_number(ACCEPTANCE, number(ACCEPTANCE) + (ratio < 1 ? ratio : float(1)));
  bool diverging = !finite || fall < -delta_max, saturated = false, over = diverging;
  if (!diverging) {
    float share = weigh(fall, n);
    if (drawn(t, PURPOSE_ACCEPT, leaves) < share) {
      copy(POSITION, LEAF_POSITION);
      copy(GRADIENT, LEAF_GRADIENT);
      set_sum(U_LEAF, sum_at(U_HERE));
      set_sum(H_LEAF, sum_at(H_HERE));
    }
    over = closes_turn(n);
    if (!over) {
      set_number(LEAF, float(n + 1));
      if (n + 1 == (1u << (doublings - 1))) {
        over = join(t, doublings);
        saturated = !over && doublings == max_tree_depth;
        if (!over && !saturated) sprout(t);
      }
    }
  }
  if (over || saturated) finish(t, diverging, saturated);
}

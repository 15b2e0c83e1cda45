// What a chain is made of. Fields are one number per dimension.

NAMED(POSITION, 0)
NAMED(MOMENTUM, 1)  // a velocity stands behind its momentum, everywhere
NAMED(VELOCITY, 2)
NAMED(GRADIENT, 3)
NAMED(NORMAL, 4)  // what the next momentum is made of
NAMED(KEPT_POSITION, 5)
NAMED(KEPT_GRADIENT, 6)
NAMED(HMC_FIELDS, 7)
// Of trees: edges are four fields as the first ones are; tables have a place for each level behind TABLES.
NAMED(LEAF_POSITION, 7)
NAMED(LEAF_GRADIENT, 8)
NAMED(RHO, 9)
NAMED(TOTAL, 10)
NAMED(ZERO, 11)
NAMED(LEFT, 12)
NAMED(RIGHT, 16)
NAMED(TABLES, 20)
NAMED(LEVEL_FIELDS, 5)

// Its numbers. Energies are sums that keep what rounding loses, and take two.
NAMED(U_HERE, 0)
NAMED(U_KEPT, 2)
NAMED(H_START, 4)
NAMED(STEPS, 6)
NAMED(STEP_SIZE, 7)
NAMED(COUNT, 8)  // of dual averaging, and the next three
NAMED(H_BAR, 9)
NAMED(LOG_AVERAGE, 10)
NAMED(MU, 11)
NAMED(TRANSITION, 12)
NAMED(DOUBLINGS, 13)
NAMED(LEAF, 14)  // or stage
NAMED(LEAVES, 15)
NAMED(SIGNED_SIZE, 16)
NAMED(ACCEPTANCE, 17)
NAMED(MOVED, 18)
// A weight s exp(m) of the tree, and of the subtree that grows.
NAMED(M_TREE, 19)
NAMED(S_TREE, 20)
NAMED(M_NEW, 21)
NAMED(S_NEW, 22)
NAMED(H_HERE, 24)
NAMED(H_KEPT, 26)
NAMED(U_LEAF, 28)
NAMED(H_LEAF, 30)
NAMED(DIVERGED, 32)  // since the last transition that was kept
NAMED(MOVES, 33)
NAMED(NUMBERS, 34)

// What is reported of a transition; energies take two here as well.
NAMED(LP, 0)
NAMED(TOTAL_ENERGY, 2)
NAMED(RATE, 4)
NAMED(SIZE, 5)
NAMED(TAKEN, 6)
NAMED(DIVERGING, 7)
NAMED(ACCEPTED, 8)
NAMED(DEPTH, 9)
NAMED(SATURATED, 10)
NAMED(STATS, 11)

// Purposes of random numbers (docs/random.md).
NAMED(PURPOSE_MOMENTUM, 1)
NAMED(PURPOSE_ACCEPT, 2)
NAMED(PURPOSE_DIRECTION, 3)

// What potentials and trajectories find around them in C++. Included once for each precision, with `Real` in scope, in
// a namespace of its own: `float` is a number of each chain that runs side by side, and in the namespace `one` of one
// chain.

#define float Row<Real>
#include "lib/elementary.glsl"
#include "trajectories/names.glsl"
#undef float

// What a potential sees of the chains.
struct Places {
  std::uint32_t dim, rows;
  Real* fields;  // [field][dim][kChains]
  const void* const* tables;
  const double* constants;

  Real* place(std::uint32_t field, std::uint32_t d) const { return fields + (std::size_t{field} * dim + d) * kChains; }
  Row<Real> at(std::uint32_t field, std::uint32_t d) const { return Row<Real>::from(place(field, d)); }
  void put(std::uint32_t field, std::uint32_t d, const Row<Real>& x) { x.to(place(field, d)); }
  Row<Real> position(std::uint32_t d) const { return at(POSITION, d); }
  Row<Real> gradient(std::uint32_t d) const { return at(GRADIENT, d); }
  void set_gradient(std::uint32_t d, const Row<Real>& x) { put(GRADIENT, d, x); }
  Row<Real> table(std::size_t which, std::uint32_t i) const { return static_cast<const Real*>(tables[which])[i]; }
};

using Evaluate = Sum (*)(Places& places, std::uint32_t energy);

constexpr std::size_t kAlignment = 64;
struct Aligned {
  void operator()(Real* memory) const { operator delete[](memory, std::align_val_t{kAlignment}); }
};

// And what a trajectory sees of them.
struct Moving : Places {
  const cpu::Tile& tile;
  const Transitions& asked;
  const Evaluate evaluate;
  const std::size_t mass_width;
  std::unique_ptr<Real[], Aligned> memory;
  Real *masses, *roots;
  alignas(kAlignment) Real numbers[NUMBERS][kChains] = {};
  const std::uint32_t dense, given, carried, adapting, max_tree_depth, transitions;
  const Real persistence, persists, renewed, delta_max, target, eagerness, t_0;

  Moving(const cpu::Tile& tile_, Evaluate evaluate_, std::size_t field_count)
      : Places{static_cast<std::uint32_t>(tile_.dim), static_cast<std::uint32_t>(tile_.rows), nullptr, tile_.tables,
               tile_.constants},
        tile(tile_),
        asked(*tile_.transitions),
        evaluate(evaluate_),
        mass_width(asked.mass_per_chain ? kChains : 1),
        dense(asked.dense),
        given(asked.normal != nullptr),
        carried(asked.carried),
        adapting(asked.adaptation != nullptr),
        max_tree_depth(asked.max_tree_depth),
        transitions(static_cast<std::uint32_t>(asked.count)),
        persistence(static_cast<Real>(asked.persistence)),
        persists(sqrt(persistence)),
        renewed(sqrt(1 - persistence)),
        delta_max(static_cast<Real>(asked.delta_max)),
        target(static_cast<Real>(asked.target)),
        eagerness(static_cast<Real>(1 / asked.gamma)),
        t_0(static_cast<Real>(asked.t_0)) {
    const std::size_t mass = (asked.dense ? dim : 1) * dim * mass_width;
    const std::size_t size = field_count * dim * kChains + 2 * mass;
    memory.reset(new (std::align_val_t{kAlignment}) Real[size]());
    fields = memory.get();
    masses = fields + field_count * dim * kChains;
    roots = masses + mass;
    take(asked.position, dim, place(POSITION, 0));
    if (asked.momentum) take(asked.momentum, dim, place(MOMENTUM, 0));
    take_mass(asked.inverse_mass, mass, masses);
    take_mass(asked.root, mass, roots);
    take(asked.step_size, 1, numbers[STEP_SIZE]);
    if (adapting) take(asked.adaptation, kAdaptationNumbers, numbers[COUNT]);
  }

  // What chains leave behind.
  void give_back() const {
    give(place(POSITION, 0), dim, asked.position);
    if (asked.momentum) give(place(MOMENTUM, 0), dim, asked.momentum);
    give(place(GRADIENT, 0), dim, asked.gradient);
    give(numbers[U_HERE], 2, asked.energy);
    give(numbers[DIVERGED], 2, asked.tally);
    give(numbers[STEP_SIZE], 1, asked.step_size);
    if (adapting) give(numbers[COUNT], kAdaptationNumbers, asked.adaptation);
  }

  Row<Real> number(std::uint32_t k) const { return Row<Real>::from(numbers[k]); }
  void set_number(std::uint32_t k, const Row<Real>& x) { x.to(numbers[k]); }
  Row<Real> inverse_mass(std::uint32_t i) const { return of_mass(masses, i); }
  Row<Real> root(std::uint32_t i) const { return of_mass(roots, i); }
  Sum potential(std::uint32_t energy) { return evaluate(*this, energy); }
  std::uint32_t longest(const Row<Real>& steps) const { return static_cast<std::uint32_t>(largest(steps)); }

  void draw_normals(std::uint32_t t) {
    if (given)
      take(static_cast<const Real*>(asked.normal) + std::size_t{t} * dim * asked.chains, dim, place(NORMAL, 0));
    else
      normal_rows(keys_of(t, PURPOSE_MOMENTUM), dim, place(NORMAL, 0));
  }
  Row<Real> drawn(std::uint32_t t, std::uint32_t purpose, std::uint32_t element) const {
    alignas(kAlignment) Real made[kChains] = {};
    if (asked.uniform && purpose == PURPOSE_ACCEPT)
      take(static_cast<const Real*>(asked.uniform) + t * asked.chains, 1, made);
    else
      uniform_row(keys_of(t, purpose), element, made);
    return Row<Real>::from(made);
  }
  // Steps of this transition: n, or uniform on 1 ... 2 n - 1.
  Row<Real> steps_of(std::uint32_t t) const {
    Real made[kChains] = {}, u[kChains] = {};
    if (asked.jitter) drawn(t, PURPOSE_DIRECTION, 0).to(u);
    for (std::size_t chain = 0; chain < tile.chains; ++chain) {
      std::uint64_t steps = asked.num_steps;
      if (asked.trajectory > 0) {
        const Real wanted = static_cast<Real>(asked.trajectory) / numbers[STEP_SIZE][chain];
        steps = wanted > 1 ? wanted < kMaxSteps ? static_cast<std::uint64_t>(__builtin_ceil(double{wanted})) : kMaxSteps
                           : 1;
      }
      if (asked.jitter) steps = 1 + (static_cast<std::uint64_t>(u[chain] * Real{1 << 24}) * (2 * steps - 1) >> 24);
      made[chain] = static_cast<Real>(steps);
    }
    return Row<Real>::from(made);
  }

  std::uint32_t kept(std::uint32_t t) const { return (asked.seen + t + 1) % asked.thin == 0; }
  void keep_position(std::uint32_t t) const {
    // Some rows at a time: each is a cache line, which holds a number of every chain.
    for (std::size_t first = 0; first < dim; first += kChains)
      for (std::size_t chain = 0; chain < tile.chains; ++chain)
        keep_positions(t, chain, first, std::min<std::size_t>(dim, first + kChains));
  }
  void keep_position(std::uint32_t t, std::size_t chain) const { keep_positions(t, chain, 0, dim); }
  void keep(std::uint32_t t, std::uint32_t stat, const Row<Real>& x) const {
    Real made[kChains];
    x.to(made);
    give(made, 1, kept_stats(t) + stat * asked.chains);
  }
  Real* kept_stats(std::uint32_t t) const {
    return static_cast<Real*>(asked.stats) + row_of(t) * kTransitionStats * asked.chains;
  }

  void keep_positions(std::uint32_t t, std::size_t chain, std::size_t begin, std::size_t end) const {
    const Real* const from = place(POSITION, 0) + chain;
    Real* const to = static_cast<Real*>(asked.positions) + (row_of(t) * asked.chains + tile.first + chain) * dim;
    for (std::size_t d = begin; d < end; ++d) to[d] = from[d * kChains];
  }
  Draw draw_of(std::uint32_t t, std::uint32_t purpose, std::size_t chain) const {
    return {asked.seed, static_cast<std::uint64_t>(asked.done[tile.first + chain]) + t + 1, purpose};
  }

 private:
  std::uint64_t row_of(std::uint32_t t) const { return (asked.seen % asked.thin + t + 1) / asked.thin - 1; }
  Row<Real> of_mass(const Real* from, std::uint32_t i) const {
    return mass_width > 1 ? Row<Real>::from(from + i * kChains) : Row<Real>(from[i]);
  }
  ChainKeys keys_of(std::uint32_t t, std::uint32_t purpose) const {
    ChainKeys keys{asked.seed, purpose, {}, {}, {}};
    for (std::size_t chain = 0; chain < tile.chains; ++chain) {
      const std::uint64_t step = draw_of(t, purpose, chain).step;
      keys.stream[chain] = asked.streams[tile.first + chain];
      keys.low[chain] = static_cast<std::uint32_t>(step);
      keys.high[chain] = static_cast<std::uint32_t>(step >> 32) << 24;
    }
    return keys;
  }
  // Rows of the caller's arrays, whose last axis is the chain, from and to rows of the tile.
  void take(const void* from, std::size_t count, Real* to) const {
    for (std::size_t row = 0; row < count; ++row)
      std::memcpy(to + row * kChains, static_cast<const Real*>(from) + row * asked.chains + tile.first,
                  tile.chains * sizeof(Real));
  }
  void give(const Real* from, std::size_t count, void* to) const {
    for (std::size_t row = 0; row < count; ++row)
      std::memcpy(static_cast<Real*>(to) + row * asked.chains + tile.first, from + row * kChains,
                  tile.chains * sizeof(Real));
  }
  void take_mass(const void* from, std::size_t size, Real* to) const {
    if (mass_width > 1)
      take(from, size / kChains, to);
    else
      std::memcpy(to, from, size * sizeof(Real));
  }
};

#define uint std::uint32_t
#define float Row<Real>
#define bool Chosen<Real>

// All chains are in the same stage of the same transition.
struct HmcMoving : Moving {
  HmcMoving(const cpu::Tile& tile_, Evaluate evaluate_) : Moving(tile_, evaluate_, HMC_FIELDS) {}
  void advance() { run(0, ~0u); }
  uint counter(uint k) const { return static_cast<uint>(numbers[k][0]); }
  void set_counter(uint k, uint x) { set_number(k, x); }
#include "trajectories/common.glsl"
#include "trajectories/hmc.glsl"
};

struct Leaves : Moving {
  Leaves(const cpu::Tile& tile_, Evaluate evaluate_) : Moving(tile_, evaluate_, NORMAL) {}
#include "trajectories/common.glsl"
#include "trajectories/leaf.glsl"
};

#undef bool
#undef float

namespace one {

#define float Real
#include "lib/elementary.glsl"

// One of the chains, whose tree is its own. Its other fields lie by themselves, so that they stay in the first cache
// level.
struct Tree {
  Leaves& all;
  const std::size_t chain;
  const std::uint32_t dim = all.dim, dense = all.dense, given = all.given, adapting = all.adapting;
  const std::uint32_t max_tree_depth = all.max_tree_depth, transitions = all.transitions;
  const Real delta_max = all.delta_max, target = all.target, eagerness = all.eagerness, t_0 = all.t_0;
  std::vector<Real> memory;

  Tree(Leaves& all_, std::size_t chain_)
      : all(all_), chain(chain_), memory((TABLES + LEVEL_FIELDS * max_tree_depth - NORMAL) * std::size_t{dim}) {}

  Real* field(uint which) {
    return which < NORMAL ? all.place(which, 0) + chain : &memory[(which - NORMAL) * std::size_t{dim}];
  }
  static std::size_t stride(uint which) { return which < NORMAL ? kChains : 1; }
  Real at(uint which, uint d) { return field(which)[d * stride(which)]; }
  void put(uint which, uint d, Real x) { field(which)[d * stride(which)] = x; }
  Real number(uint k) const { return all.numbers[k][chain]; }
  void set_number(uint k, Real x) { all.numbers[k][chain] = x; }
  Real inverse_mass(uint i) const { return of_mass(all.masses, i); }
  Real root(uint i) const { return of_mass(all.roots, i); }
  void draw_normals(uint t) {
    if (given) {
      const Real* from =
          static_cast<const Real*>(all.asked.normal) + std::size_t{t} * dim * all.asked.chains + all.tile.first + chain;
      for (uint d = 0; d < dim; ++d) put(NORMAL, d, from[d * all.asked.chains]);
    } else {
      all.tile.draw->normal[sizeof(Real) / 8](all.draw_of(t, PURPOSE_MOMENTUM, chain), stream(), 0, dim, field(NORMAL));
    }
  }
  // A transition asks for one number after the other; they come cheaper by the dozen.
  Real drawn(uint t, uint purpose, uint element) {
    Drawn& some = purpose == PURPOSE_ACCEPT ? accepts : directions;
    if (some.t != t || element - some.first >= kTogether) {
      some.t = t;
      some.first = element / kTogether * kTogether;
      all.tile.draw->uniform[sizeof(Real) / 8](all.draw_of(t, purpose, chain), stream(), some.first, kTogether,
                                               some.of);
    }
    return some.of[element - some.first];
  }
  uint ones(uint x) const { return static_cast<uint>(std::popcount(x)); }
  uint kept(uint t) const { return all.kept(t); }
  void keep_position(uint t) { all.keep_position(t, chain); }
  void keep(uint t, uint stat, Real x) { all.kept_stats(t)[stat * all.asked.chains + all.tile.first + chain] = x; }
  bool goes_on() const { return number(TRANSITION) < static_cast<Real>(transitions); }
#include "trajectories/common.glsl"
#include "trajectories/nuts.glsl"

 private:
  static constexpr uint kTogether = 64;
  struct Drawn {
    uint t = ~0u, first = 0;
    Real of[kTogether];
  } accepts, directions;
  std::uint32_t stream() const { return all.asked.streams[all.tile.first + chain]; }
  Real of_mass(const Real* from, uint i) const { return from[i * all.mass_width + (all.mass_width > 1 ? chain : 0)]; }
};

#undef float

}  // namespace one

struct NutsMoving : Leaves {
  using Leaves::Leaves;
  // Chains grow their trees leaf by leaf, side by side; one that is done with a transition begins the next.
  void advance() {
    set_sum(U_HERE, potential(1));
    std::vector<one::Tree> trees;
    trees.reserve(tile.chains);
    for (std::size_t chain = 0; chain < tile.chains; ++chain) trees.emplace_back(*this, chain).prepare();
    for (std::size_t going = trees.size(); going > 0;) {
      leaf();
      for (one::Tree& tree : trees) {
        if (!tree.goes_on()) continue;
        tree.grow();
        going -= !tree.goes_on();
      }
    }
    // Chains that waited for others went on with steps of size 0, which lead away from where a momentum overflows.
    for (one::Tree& tree : trees) tree.settle();
  }
};

#undef uint

template <class Trajectory>
static void advance(const cpu::Tile& tile, Evaluate evaluate) {
  Trajectory chains(tile, evaluate);
  if (tile.transitions->count == 0) return;
  chains.advance();
  chains.give_back();
}

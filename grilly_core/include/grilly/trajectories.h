// Markov chains that the engine advances by whole transitions, in potentials that it knows (shaders/potentials/).
//
// Chains are independent of one another: what one does follows from its position, its random stream and the number of
// the transition. Arrays are the caller's, in the run's precision, with the chain as their last axis, but for what goes
// to Python as it is.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "grilly/rules.h"

namespace grilly {

enum class Method { hmc, nuts };

struct PotentialRule {
  std::string_view name;
  std::size_t dim;                                                        // 0: any
  std::vector<std::string_view> tables;                                   // numbers that all chains read
  std::vector<std::string_view> constants;                                // and single ones
  std::vector<std::size_t (*)(std::size_t dim, std::size_t rows)> sizes;  // of tables
  std::array<SpirvPair, 2> shader;                                        // by Method
};

// In the order of their names.
const std::vector<PotentialRule>& potentials();

// Numbers per transition and chain, as shaders/trajectories/names.glsl names them.
constexpr std::size_t kTransitionStats = 11;
// Numbers of dual averaging per chain: count, h_bar, log_average, mu.
constexpr std::size_t kAdaptationNumbers = 4;
// Steps that a trajectory of a given length is divided into at most.
constexpr std::uint32_t kMaxSteps = 1'024;
// What chains count in float32: transitions of a run, and steps of one.
constexpr std::uint64_t kMostCounted = std::uint64_t{1} << 24;

struct Transitions {
  Method method = Method::hmc;
  std::uint64_t count = 0;
  std::uint64_t seen = 0, thin = 1;  // of (seen + 1), (seen + 2), ... every thin-th is kept
  std::uint32_t num_steps = 1;
  double trajectory = 0;  // length of trajectories, in place of num_steps where it is above 0
  bool jitter = false;
  double persistence = 0;
  bool carried = true;  // there is a momentum to begin with
  std::uint32_t max_tree_depth = 10;
  double delta_max = 1000;
  double target = 0, gamma = 0.05, t_0 = 10;  // of dual averaging
  std::uint64_t seed = 0;
  std::size_t chains = 0;

  const std::uint32_t* streams = nullptr;  // (C,)
  const std::int64_t* done = nullptr;      // (C,): transitions that each chain has behind it
  void* position = nullptr;                // (D, C), in and out
  void* momentum = nullptr;                // (D, C), in and out
  void* step_size = nullptr;               // (C,), in and out
  void* adaptation = nullptr;              // (4, C), in and out; null: step sizes stay
  bool dense = false, mass_per_chain = false;
  const void* inverse_mass = nullptr;  // (D,) or (D, D), with (C,) behind it if each chain has its own
  const void* root = nullptr;          // the same: what makes momenta of standard normal numbers
  const void* normal = nullptr;        // (n, D, C): momenta that replace the drawn ones, or null
  const void* uniform = nullptr;       // (n, C): numbers that decide, of HMC alone, or null

  void* gradient = nullptr;   // (D, C), out: at the last position
  void* energy = nullptr;     // (2, C), out: U there, and what it has lost
  void* tally = nullptr;      // (2, C), out: whether one diverged behind the last that was kept; how many moved
  void* positions = nullptr;  // (kept, C, D), out
  void* stats = nullptr;  // (kept, kTransitionStats, C), out; HMC leaves the last two, which are of trees, as they are

  std::uint64_t kept() const { return (seen % thin + count) / thin; }
};

// What a device is asked to hold of a potential: tables in the order of their names, in the precision, contiguous.
struct PotentialData {
  const PotentialRule* potential;
  Precision precision;
  std::size_t dim, rows;
  std::vector<std::vector<double>> tables;
  std::vector<double> constants;
};

// A potential with its tables, on a device.
class Trajectories {
 public:
  explicit Trajectories(const PotentialData& data)
      : potential(*data.potential), precision(data.precision), dim(data.dim), rows(data.rows) {
    for (const std::vector<double>& table : data.tables) table_numbers += table.size();
  }
  virtual ~Trajectories() = default;
  Trajectories(const Trajectories&) = delete;
  Trajectories& operator=(const Trajectories&) = delete;

  virtual void run(const Transitions& transitions) = 0;

  // Numbers that a step of one chain goes through.
  double step_numbers(bool dense) const {
    const auto d = static_cast<double>(dim);
    return d + static_cast<double>(table_numbers) + (dense ? d * d : 0.0);
  }

  const PotentialRule& potential;
  const Precision precision;
  const std::size_t dim, rows;  // rows: of data, where there are tables of them
  std::uint64_t table_numbers = 0;
};

}  // namespace grilly

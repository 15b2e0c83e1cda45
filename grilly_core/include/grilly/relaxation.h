// Relaxation of a whole network: layers of (batch, width) numbers that go down the gradient of an energy, all at once.
//
// u are states, r = phi(u) rates, W[i] (width of i + 1, width of i) and b[i] lead from layer i to the next:
//   gaussian: e[i + 1] = W[i] r[i] + b[i] - u[i + 1], and the energy is the sum of their squares
//   hopfield: half the sum of the squares of u, less the sum of r[i + 1] (W[i] r[i] + b[i])
// and beta times a cost of the last layer's u comes on top of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "grilly/rules.h"

namespace grilly {

enum class Energy { gaussian, hopfield };
enum class Cost { none, squared, cross_entropy };

struct Network {
  Energy energy;
  Cost cost;
  Precision precision;
  std::vector<std::size_t> widths;  // two or more
  std::size_t batch;
  std::vector<std::uint32_t> phi;  // Rule::choice of each layer's activation

  std::size_t layers() const { return widths.size(); }
};

// One run. Arrays are contiguous and in the network's precision.
struct Relaxing {
  std::vector<void*> u;  // by layer, in and out; only read where clamped
  std::vector<const void*> weights, biases;
  const void* target = nullptr;  // null: no cost
  std::vector<bool> clamped;
  double beta = 0, step = 0, tol = 0;
  std::uint32_t count = 0;        // steps at most; without a tolerance exactly
  bool per_sample = false;        // samples stop by themselves, not all when their mean is below tol
  bool measured = false;          // norms without a tolerance
  std::uint32_t check_every = 1;  // steps between two looks at who goes on
  // Called between submissions, with nothing locked; may throw, which ends the run. Then u is as it was, but where the
  // device works on it in place.
  std::function<void()> listen;

  std::uint32_t* steps = nullptr;  // (batch,), out
  double* norms = nullptr;         // (batch,), out, if there is a tolerance or measured; NaN without a step
};

// The memory that a network needs on a device.
class Relaxation {
 public:
  explicit Relaxation(Network network_) : network(std::move(network_)) {}
  virtual ~Relaxation() = default;
  Relaxation(const Relaxation&) = delete;
  Relaxation& operator=(const Relaxation&) = delete;
  virtual void run(const Relaxing& relaxing) = 0;

  const Network network;
};

struct RelaxationShaders {
  SpirvPair product, settle, softmax, verdict;
};
const RelaxationShaders& relaxation_shaders();

}  // namespace grilly

#include "trajectories.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <string>

#include "grilly/errors.h"
#include "pool.h"

namespace grilly::cpu {
namespace {

// Numbers that all steps go through from which it is worth waking a thread.
constexpr double kWakeWork = 20'000;

}  // namespace

CpuTrajectories::CpuTrajectories(Device& device, const InstructionSet& isa, const PotentialData& data)
    : Trajectories(data),
      device_(device),
      loops_(isa.trajectories[data.potential - potentials().data()]),
      threads_(cpu_threads()),
      constants_(data.constants) {
  for (const std::vector<double>& table : data.tables) {
    std::vector<char>& mine = tables_.emplace_back(table.size() * size_of(precision));
    if (precision == Precision::f64)
      std::copy(table.begin(), table.end(), reinterpret_cast<double*>(mine.data()));
    else
      std::transform(table.begin(), table.end(), reinterpret_cast<float*>(mine.data()),
                     [](double x) { return static_cast<float>(x); });
  }
  for (const std::vector<char>& table : tables_) addresses_.push_back(table.data());
}

void CpuTrajectories::run(const Transitions& transitions) {
  // Few chains still are for all threads.
  const std::size_t wanted = (transitions.chains + threads_ - 1) / threads_;
  struct Job {
    const CpuTrajectories& self;
    const Transitions& transitions;
    std::size_t each;
    std::atomic<bool> refused{false};  // the memory for some chains
  } job{*this, transitions, std::min(wanted, loops_.chains)};
  const auto work = [](void* context, std::uint64_t chunk) {
    Job& mine = *static_cast<Job*>(context);
    const std::size_t first = chunk * mine.each;
    const Tile tile{&mine.transitions,
                    mine.self.loops_.draw,
                    mine.self.dim,
                    mine.self.rows,
                    mine.self.addresses_.data(),
                    mine.self.constants_.data(),
                    first,
                    std::min(mine.each, mine.transitions.chains - first)};
    const auto& loops = mine.transitions.method == Method::hmc ? mine.self.loops_.hmc : mine.self.loops_.nuts;
    // An exception must not leave a worker.
    try {
      loops[static_cast<std::size_t>(mine.self.precision)](tile);
    } catch (const std::bad_alloc&) {
      mine.refused = true;
    }
  };
  // How many steps a tree, or a trajectory of a given length, will have nobody knows.
  const bool planned = transitions.method == Method::hmc && transitions.trajectory == 0;
  const auto steps = static_cast<double>(transitions.count) * (planned ? transitions.num_steps : 8);
  Pool::of(threads_).run(
      {.work = work,
       .context = &job,
       .chunks = (transitions.chains + job.each - 1) / job.each,
       .backwards = false,
       .worth_waking = steps * step_numbers(transitions.dense) * static_cast<double>(transitions.chains) >= kWakeWork});
  if (job.refused)
    throw OutOfDeviceMemory("cpu: the system refused the memory that chains of " + std::to_string(dim) +
                            " dimensions need");
  device_.counters.dispatches.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace grilly::cpu

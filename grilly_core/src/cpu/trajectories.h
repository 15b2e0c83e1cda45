// Chains on the processor: as many as fill the vectors are advanced side by side, from their first transition to their
// last, in memory that stays in the cache.
#pragma once

#include <vector>

#include "grilly/device.h"
#include "grilly/trajectories.h"
#include "plan.h"

namespace grilly::cpu {

class CpuTrajectories final : public Trajectories {
 public:
  CpuTrajectories(Device& device, const InstructionSet& isa, const PotentialData& data);
  void run(const Transitions& transitions) override;

 private:
  Device& device_;
  const TrajectoryLoops& loops_;
  const unsigned threads_;
  std::vector<std::vector<char>> tables_;
  std::vector<const void*> addresses_;
  std::vector<double> constants_;
};

}  // namespace grilly::cpu

// A plan on the processor: the rules' loops over the caller's own memory, by the threads of a pool.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "grilly/device.h"
#include "grilly/rules.h"
#include "tile.h"

namespace grilly::cpu {

constexpr std::size_t kCacheLine = 64;

// Loops that the compiler made for some of the processors; the same results from all of them.
struct InstructionSet {
  const char* name;
  const Loops* loops;  // in the order of rules()
  const GradientLoops* gradient;
  const DrawLoops* draw;
  const TrajectoryLoops* trajectories;  // in the order of potentials()
  bool (*present)();
};

class CpuPlan final : public Plan {
 public:
  CpuPlan(Device& device, const InstructionSet& isa, const Rule& rule, Precision precision,
          std::vector<Segment> segments);
  void read_state(std::size_t field, std::size_t segment, void* to) override;
  void write_state(std::size_t field, std::size_t segment, const void* from) override;
  void expect_run() override;
  bool update();                // false: nothing to do
  bool add_up(Totals& totals);  // the pass with sums; false: nothing to do
  void decide(std::span<double> numbers) const { loops_.decide(numbers.data()); }
  void make_rows(std::span<const double> numbers);
  char* state(std::size_t field, std::size_t segment);

 private:
  void make_field(std::size_t field) override;
  void update_range(std::size_t segment, std::uint64_t begin, std::uint64_t end);
  void update_chunk(std::uint64_t begin, std::uint64_t end);
  void add_up_chunk(std::size_t chunk);
  // Fills the drawn input of a stretch; null where there is none.
  void draw_input(std::size_t segment, std::uint64_t element, void** stream, void* scratch, std::size_t count);
  void streams_at(std::size_t segment, std::uint64_t element, void** stream);
  const void* mixed_gradient(std::size_t segment, std::uint64_t element, void* const* stream, void* scratch,
                             std::size_t count);
  const double* row_of(std::size_t segment) const { return rows.data() + segments[segment].row * rule.scalars.size(); }

  Device& device_;
  const InstructionSet& isa_;
  const Loops& loops_;
  const unsigned threads_;
  std::uint64_t chunk_ = 0;
  bool backwards_ = false;
  bool far_ = false;                            // see Loop
  std::vector<std::shared_ptr<Memory>> state_;  // by field - 1
  std::vector<std::size_t> first_chunk_;        // by segment, and the number of all: chunks of the first pass
  std::vector<double> partial_;                 // [chunk][sum]
};

}  // namespace grilly::cpu

// The compiled CPU device: the rules' loops over the caller's own memory.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#endif

#include "grilly/device.h"
#include "grilly/errors.h"
#include "grilly/relaxation.h"
#include "plan.h"
#include "pool.h"
#include "sketch.h"
#include "trajectories.h"

namespace grilly {

// Compiled from the same generated file, once per instruction set; in the order of rules().
namespace base {
extern const Loops loops[];
extern const GradientLoops gradient_loops;
extern const DrawLoops draw_loops;
extern const cpu::TrajectoryLoops trajectory_loops[];
}  // namespace base
#if defined(GRILLY_X86_LOOPS)
namespace avx2 {
extern const Loops loops[];
extern const GradientLoops gradient_loops;
extern const DrawLoops draw_loops;
extern const cpu::TrajectoryLoops trajectory_loops[];
}  // namespace avx2
namespace avx512 {
extern const Loops loops[];
extern const GradientLoops gradient_loops;
extern const DrawLoops draw_loops;
extern const cpu::TrajectoryLoops trajectory_loops[];
}  // namespace avx512
#endif

namespace {

constexpr std::size_t kPage = 4'096, kHugePage = std::size_t{2} << 20;

const cpu::InstructionSet instruction_sets[] = {
#if defined(GRILLY_X86_LOOPS)
    {"avx512", avx512::loops, &avx512::gradient_loops, &avx512::draw_loops, avx512::trajectory_loops,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
     }},
    {"avx2", avx2::loops, &avx2::gradient_loops, &avx2::draw_loops, avx2::trajectory_loops,
     [] { return static_cast<bool>(__builtin_cpu_supports("avx2")); }},
#endif
    {"base", base::loops, &base::gradient_loops, &base::draw_loops, base::trajectory_loops, [] { return true; }},
};

// GRILLY_ISA, else the best there is. Read when a plan is made.
const cpu::InstructionSet& instruction_set() {
  const char* wanted = std::getenv("GRILLY_ISA");
  for (const cpu::InstructionSet& set : instruction_sets) {
    if (!set.present()) continue;
    if (!wanted || !*wanted || std::strcmp(wanted, set.name) == 0) return set;
  }
  std::string there;
  for (const std::string& name : cpu_instruction_sets()) there += (there.empty() ? "" : ", ") + name;
  throw DeviceUnavailable("GRILLY_ISA=" + std::string(wanted) + ": this processor and build have " + there);
}

struct CpuMemory final : Memory {
  CpuMemory(std::shared_ptr<Device> owner, std::size_t bytes);
  ~CpuMemory() override;
  std::shared_ptr<Device> device;
  std::size_t held = 0;
};

class CpuDevice final : public Device {
 public:
  std::shared_ptr<Memory> allocate(std::size_t bytes) override {
    return std::make_shared<CpuMemory>(shared_from_this(), bytes);
  }
  bool reaches(const void*, std::size_t) const override { return true; }
  std::unique_ptr<Plan> make_plan(const Rule& rule, Precision precision, std::vector<Segment> segments) override {
    return std::make_unique<cpu::CpuPlan>(*this, instruction_set(), rule, precision, std::move(segments));
  }
  std::unique_ptr<Sketch> make_sketch(SketchLayout layout) override {
    return std::make_unique<cpu::CpuSketch>(*this, std::move(layout));
  }
  std::unique_ptr<Trajectories> make_trajectories(const PotentialData& data) override {
    return std::make_unique<cpu::CpuTrajectories>(*this, instruction_set(), data);
  }
  std::unique_ptr<Relaxation> make_relaxation(Network) override {
    throw DeviceUnavailable(
        "cpu has no relaxations of whole networks: products belong to the host's BLAS there, and a "
        "step of a layer is the rule relax");
  }
  void run(std::span<Plan* const> plans, std::span<double> numbers) override;
};

// 64 bytes for the widest vectors, pages above a page; huge pages where an array fills several.
std::size_t alignment_for(std::size_t bytes) {
  return bytes < kPage ? cpu::kCacheLine : bytes < kHugePage ? kPage : kHugePage;
}

CpuMemory::CpuMemory(std::shared_ptr<Device> owner, std::size_t bytes) : device(std::move(owner)) {
  held = std::max<std::size_t>(bytes, 1);
  const std::size_t alignment = alignment_for(held);
  if (const char* limit = std::getenv("GRILLY_MEMORY_LIMIT");
      limit && held + device->counters.bytes_allocated > std::strtoull(limit, nullptr, 10))
    throw OutOfDeviceMemory("cpu: " + std::to_string(held) + " bytes asked for, " +
                            std::to_string(device->counters.bytes_allocated) + " in use, GRILLY_MEMORY_LIMIT=" + limit);
  data = ::operator new (held, std::align_val_t{alignment}, std::nothrow);
  if (!data) throw OutOfDeviceMemory("cpu: the system refused " + std::to_string(held) + " bytes");
  size = bytes;
#if defined(__linux__)
  if (alignment == kHugePage) madvise(data, held, MADV_HUGEPAGE);
#endif
  device->counters.bytes_allocated += held;
  ++device->counters.allocations;
}

CpuMemory::~CpuMemory() {
  ::operator delete (data, std::align_val_t{alignment_for(held)});
  device->counters.bytes_allocated -= held;
}

void CpuDevice::run(std::span<Plan* const> plans, std::span<double> numbers) {
  if (std::none_of(plans.begin(), plans.end(), [](const Plan* plan) { return plan->active_elements() > 0; })) return;
  const auto each = [&](auto&& pass) {
    for (Plan* plan : plans)
      if (pass(*static_cast<cpu::CpuPlan*>(plan))) counters.dispatches.fetch_add(1, std::memory_order_relaxed);
  };
  const Rule& rule = plans[0]->rule;
  if (rule.sums_in(numbers)) {
    Totals totals(rule, numbers);
    each([&](cpu::CpuPlan& plan) { return plan.add_up(totals); });
    totals.finish();
    if (rule.decides) {
      counters.dispatches.fetch_add(1, std::memory_order_relaxed);  // a small kernel of its own elsewhere
      static_cast<cpu::CpuPlan*>(plans[0])->decide(numbers);
      for (Plan* plan : plans) static_cast<cpu::CpuPlan*>(plan)->make_rows(numbers);
    }
  }
  if (rule.updates_in(numbers)) each([](cpu::CpuPlan& plan) { return plan.update(); });
}

}  // namespace

std::shared_ptr<Device> cpu_device() {
  static auto* const device = new std::shared_ptr<Device>(std::make_shared<CpuDevice>());
  return *device;
}

std::string cpu_instruction_set() { return instruction_set().name; }

std::vector<std::string> cpu_instruction_sets() {
  std::vector<std::string> names;
  for (const cpu::InstructionSet& set : instruction_sets)
    if (set.present()) names.emplace_back(set.name);
  return names;
}

// GRILLY_THREADS, else the processors this process may run on.
unsigned cpu_threads() {
  if (const char* wanted = std::getenv("GRILLY_THREADS"); wanted && *wanted) {
    char* end = nullptr;
    const long threads = std::strtol(wanted, &end, 10);
    if (*end || threads < 1 || threads > long{Pool::kMaxThreads})
      throw DeviceUnavailable("GRILLY_THREADS=" + std::string(wanted) + ": expected a number from 1 to " +
                              std::to_string(Pool::kMaxThreads));
    return static_cast<unsigned>(threads);
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    return std::clamp(static_cast<unsigned>(CPU_COUNT(&set)), 1u, Pool::kMaxThreads);
#endif
  return std::clamp(std::thread::hardware_concurrency(), 1u, Pool::kMaxThreads);
}

}  // namespace grilly

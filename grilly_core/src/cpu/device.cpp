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
#include "pool.h"

namespace grilly {

// Compiled from the same generated file, once per instruction set; in the order of rules().
namespace base {
extern const LoopPair loops[];
}
#if defined(GRILLY_X86_LOOPS)
namespace avx2 {
extern const LoopPair loops[];
}
namespace avx512 {
extern const LoopPair loops[];
}
#endif

namespace {

// Below this a second thread costs more than it saves, even one that is awake.
constexpr std::uint64_t kParallelElements = 60'000;
// Below this it costs more to wake one that sleeps.
constexpr std::uint64_t kWakeElements = 250'000;
// A chunk is long enough to amortise its claim, and short enough to balance threads that are not equally fast.
constexpr std::uint64_t kMinChunk = 2'048, kMaxChunk = 16'384;
// Up to here it pays to begin with what the last run left in the caches; far above, only to go the way the hardware
// fetches ahead.
constexpr std::uint64_t kAlternateElements = 5'000'000;
constexpr std::size_t kPage = 4'096, kCacheLine = 64, kHugePage = std::size_t{2} << 20;

struct InstructionSet {
  const char* name;
  const LoopPair* loops;
  bool (*present)();
};

const InstructionSet instruction_sets[] = {
#if defined(GRILLY_X86_LOOPS)
    {"avx512", avx512::loops,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
     }},
    {"avx2", avx2::loops, [] { return static_cast<bool>(__builtin_cpu_supports("avx2")); }},
#endif
    {"base", base::loops, [] { return true; }},
};

// GRILLY_ISA, else the best there is. Read when a plan is made.
const InstructionSet& instruction_set() {
  const char* wanted = std::getenv("GRILLY_ISA");
  for (const InstructionSet& set : instruction_sets) {
    if (!set.present()) continue;
    if (!wanted || !*wanted || std::strcmp(wanted, set.name) == 0) return set;
  }
  std::string there;
  for (const std::string& name : cpu_instruction_sets()) there += (there.empty() ? "" : ", ") + name;
  throw DeviceUnavailable("GRILLY_ISA=" + std::string(wanted) + ": this processor and build have " + there);
}

std::size_t index_of(const Rule& rule) { return static_cast<std::size_t>(&rule - rules().data()); }

struct CpuMemory final : Memory {
  CpuMemory(std::shared_ptr<Device> owner, std::size_t bytes);
  ~CpuMemory() override;
  std::shared_ptr<Device> device;
  std::size_t held = 0;
};

class CpuPlan final : public Plan {
 public:
  CpuPlan(Device& device, const Rule& rule, Precision precision, std::vector<Segment> segments);
  void read_state(std::size_t field, std::size_t segment, void* to) override;
  void write_state(std::size_t field, std::size_t segment, const void* from) override;
  bool run();  // false: nothing to do

 private:
  char* state(std::size_t field, std::size_t segment);
  void run_range(std::size_t segment, std::uint64_t begin, std::uint64_t end);
  void run_chunk(std::uint64_t begin, std::uint64_t end);

  const Loop loop_;
  const unsigned threads_;
  std::uint64_t chunk_ = 0;
  bool backwards_ = false;
  std::vector<std::shared_ptr<Memory>> state_;  // by field - 1
};

class CpuDevice final : public Device {
 public:
  std::shared_ptr<Memory> allocate(std::size_t bytes) override {
    return std::make_shared<CpuMemory>(shared_from_this(), bytes);
  }
  bool reaches(const void*, std::size_t) const override { return true; }
  std::unique_ptr<Plan> make_plan(const Rule& rule, Precision precision, std::vector<Segment> segments) override {
    return std::make_unique<CpuPlan>(*this, rule, precision, std::move(segments));
  }
  void run(std::span<Plan* const> plans) override {
    for (Plan* plan : plans)
      if (static_cast<CpuPlan*>(plan)->run()) counters.dispatches.fetch_add(1, std::memory_order_relaxed);
  }
};

// 64 bytes for the widest vectors, pages above a page; huge pages where an array fills several.
std::size_t alignment_for(std::size_t bytes) {
  return bytes < kPage ? kCacheLine : bytes < kHugePage ? kPage : kHugePage;
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

CpuPlan::CpuPlan(Device& device, const Rule& rule_, Precision precision_, std::vector<Segment> segments_)
    : Plan(rule_, precision_, std::move(segments_)),
      loop_(instruction_set().loops[index_of(rule)][static_cast<std::size_t>(precision)]),
      threads_(cpu_threads()) {
  const std::size_t bytes = span() * size_of(precision) + segments.size() * kCacheLine;
  for (std::size_t field = 1; field < rule.state.size(); ++field) {
    state_.push_back(device.allocate(bytes));
    std::memset(state_.back()->data, 0, state_.back()->size);
  }
}

// A segment's state lies on its cache lines as the parameter does, so that vectors that are aligned in one are in all.
char* CpuPlan::state(std::size_t field, std::size_t segment) {
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(segments[segment].parameter) % kCacheLine;
  return static_cast<char*>(state_[field - 1]->data) + segments[segment].first * size_of(precision) +
         segment * kCacheLine + offset;
}

void CpuPlan::read_state(std::size_t field, std::size_t segment, void* to) {
  std::memcpy(to, state(field, segment), segments[segment].elements * size_of(precision));
}

void CpuPlan::write_state(std::size_t field, std::size_t segment, const void* from) {
  std::memcpy(state(field, segment), from, segments[segment].elements * size_of(precision));
}

bool CpuPlan::run() {
  const std::uint64_t elements = active_elements();
  if (elements == 0) return false;
  if (threads_ == 1 || elements < kParallelElements) {
    run_chunk(0, span());
    return true;
  }
  // As many chunks for one thread as for another, in whole cache lines of any precision; and never more than the pool
  // can number.
  const std::uint64_t wanted = std::clamp(span() / (8 * threads_) + 1, kMinChunk, kMaxChunk);
  chunk_ = round_up(std::max(wanted, span() / Pool::kMaxChunks + 1), kCacheLine);
  // Every other run goes backwards.
  backwards_ = !backwards_ && elements <= kAlternateElements;
  Pool::of(threads_).run({.work =
                              [](void* plan, std::uint32_t chunk) {
                                CpuPlan& self = *static_cast<CpuPlan*>(plan);
                                self.run_chunk(chunk * self.chunk_, (chunk + std::uint64_t{1}) * self.chunk_);
                              },
                          .context = this,
                          .chunks = static_cast<std::uint32_t>((span() + chunk_ - 1) / chunk_),
                          .backwards = backwards_,
                          .worth_waking = elements >= kWakeElements});
  return true;
}

// The segments, or parts of segments, whose global elements lie in [begin, end).
void CpuPlan::run_chunk(std::uint64_t begin, std::uint64_t end) {
  auto after = std::upper_bound(segments.begin(), segments.end(), begin,
                                [](std::uint64_t at, const Segment& s) { return at < s.first; });
  std::size_t index = static_cast<std::size_t>(after - segments.begin());
  // The one before may reach into the range.
  if (index > 0) --index;
  for (; index < segments.size() && segments[index].first < end; ++index) {
    const Segment& segment = segments[index];
    if (!segment.active || segment.first + segment.elements <= begin) continue;
    run_range(index, std::max(begin, segment.first) - segment.first, std::min(end - segment.first, segment.elements));
  }
}

void CpuPlan::run_range(std::size_t index, std::uint64_t begin, std::uint64_t end) {
  const std::size_t size = size_of(precision), fields = rule.state.size();
  void* stream[kMaxStreams];
  stream[0] = static_cast<char*>(segments[index].parameter) + begin * size;
  for (std::size_t field = 1; field < fields; ++field) stream[field] = state(field, index) + begin * size;
  for (std::size_t input = 0; input < rule.inputs.size(); ++input) {
    // The loops read inputs through const pointers.
    stream[fields + input] =
        const_cast<char*>(static_cast<const char*>(inputs[index * rule.inputs.size() + input])) + begin * size;
  }
  loop_(rows.data() + segments[index].row * rule.scalars.size(), stream, end - begin);
}

}  // namespace

std::shared_ptr<Device> cpu_device() {
  static auto* const device = new std::shared_ptr<Device>(std::make_shared<CpuDevice>());
  return *device;
}

std::string cpu_instruction_set() { return instruction_set().name; }

std::vector<std::string> cpu_instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : instruction_sets)
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

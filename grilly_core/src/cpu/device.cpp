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
extern const Loops loops[];
extern const GradientLoops gradient_loops;
}
#if defined(GRILLY_X86_LOOPS)
namespace avx2 {
extern const Loops loops[];
extern const GradientLoops gradient_loops;
}
namespace avx512 {
extern const Loops loops[];
extern const GradientLoops gradient_loops;
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
// Elements whose gradients are mixed at a time.
constexpr std::size_t kStretch = 1'024;
constexpr std::size_t kPage = 4'096, kCacheLine = 64, kHugePage = std::size_t{2} << 20;

struct InstructionSet {
  const char* name;
  const Loops* loops;
  const GradientLoops* gradient;
  bool (*present)();
};

const InstructionSet instruction_sets[] = {
#if defined(GRILLY_X86_LOOPS)
    {"avx512", avx512::loops, &avx512::gradient_loops,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
     }},
    {"avx2", avx2::loops, &avx2::gradient_loops, [] { return static_cast<bool>(__builtin_cpu_supports("avx2")); }},
#endif
    {"base", base::loops, &base::gradient_loops, [] { return true; }},
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
  bool update();  // false: nothing to do
  bool add_up(std::vector<double>& lanes);  // the first pass: kSumLanes numbers per sum; false: nothing to do
  void decide(std::span<double> numbers) const { loops_.decide(numbers.data()); }
  void make_rows(std::span<const double> numbers);

 private:
  void make_field(std::size_t field) override;
  char* state(std::size_t field, std::size_t segment);
  void update_range(std::size_t segment, std::uint64_t begin, std::uint64_t end);
  void update_chunk(std::uint64_t begin, std::uint64_t end);
  void add_up_chunk(std::size_t chunk);
  void streams_at(std::size_t segment, std::uint64_t element, void** stream);
  const void* mixed_gradient(std::size_t segment, std::uint64_t element, void* const* stream, void* scratch,
                             std::size_t count);
  const double* row_of(std::size_t segment) const {
    return rows.data() + segments[segment].row * rule.scalars.size();
  }

  Device& device_;
  const InstructionSet& isa_;
  const Loops& loops_;
  const unsigned threads_;
  std::uint64_t chunk_ = 0;
  bool backwards_ = false;
  std::vector<std::shared_ptr<Memory>> state_;  // by field - 1
  std::vector<std::size_t> first_chunk_;        // by segment, and the number of all: chunks of the first pass
  std::vector<double> partial_;                 // [chunk][sum]
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
  void run(std::span<Plan* const> plans, std::span<double> numbers) override;
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
      device_(device),
      isa_(instruction_set()),
      loops_(isa_.loops[index_of(rule)]),
      threads_(cpu_threads()),
      state_(rule.state.size() - 1 + kExtras) {
  for (std::size_t field = 1; field < rule.state.size(); ++field) make_field(field);
  if (rule.sums.empty()) return;
  first_chunk_.push_back(0);
  for (const Segment& segment : segments)
    first_chunk_.push_back(first_chunk_.back() + (segment.elements + kSumChunk - 1) / kSumChunk);
  partial_.resize(first_chunk_.back() * rule.sums.size());
}

void CpuPlan::make_field(std::size_t field) {
  auto memory = device_.allocate(span() * size_of(precision) + segments.size() * kCacheLine);
  std::memset(memory->data, 0, memory->size);
  state_[field - 1] = std::move(memory);
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

bool CpuPlan::update() {
  const std::uint64_t elements = active_elements();
  if (elements == 0) return false;
  if (threads_ == 1 || elements < kParallelElements) {
    update_chunk(0, span());
    return true;
  }
  // As many chunks for one thread as for another, in whole cache lines of any precision; and never more than the pool
  // can number.
  const std::uint64_t wanted = std::clamp(span() / (8 * threads_) + 1, kMinChunk, kMaxChunk);
  chunk_ = round_up(std::max(wanted, span() / Pool::kMaxChunks + 1), kCacheLine);
  // Every other run goes backwards; an update behind a first pass always does.
  backwards_ = (!backwards_ || !rule.sums.empty()) && elements <= kAlternateElements;
  Pool::of(threads_).run({.work =
                              [](void* plan, std::uint32_t chunk) {
                                CpuPlan& self = *static_cast<CpuPlan*>(plan);
                                self.update_chunk(chunk * self.chunk_, (chunk + std::uint64_t{1}) * self.chunk_);
                              },
                          .context = this,
                          .chunks = static_cast<std::uint32_t>((span() + chunk_ - 1) / chunk_),
                          .backwards = backwards_,
                          .worth_waking = elements >= kWakeElements});
  return true;
}

// The segments, or parts of segments, whose global elements lie in [begin, end).
void CpuPlan::update_chunk(std::uint64_t begin, std::uint64_t end) {
  auto after = std::upper_bound(segments.begin(), segments.end(), begin,
                                [](std::uint64_t at, const Segment& s) { return at < s.first; });
  std::size_t index = static_cast<std::size_t>(after - segments.begin());
  // The one before may reach into the range.
  if (index > 0) --index;
  for (; index < segments.size() && segments[index].first < end; ++index) {
    const Segment& segment = segments[index];
    if (!segment.active || segment.first + segment.elements <= begin) continue;
    update_range(index, std::max(begin, segment.first) - segment.first,
                 std::min(end - segment.first, segment.elements));
  }
}

// The rule's streams, from an element of a segment on.
void CpuPlan::streams_at(std::size_t index, std::uint64_t element, void** stream) {
  const std::size_t fields = rule.state.size(), at = element * size_of(precision);
  stream[0] = static_cast<char*>(segments[index].parameter) + at;
  for (std::size_t field = 1; field < fields; ++field) stream[field] = state(field, index) + at;
  for (std::size_t input = 0; input < rule.inputs.size(); ++input) {
    // The loops read inputs through const pointers.
    stream[fields + input] =
        const_cast<char*>(static_cast<const char*>(inputs[index * rule.inputs.size() + input])) + at;
  }
}

const void* CpuPlan::mixed_gradient(std::size_t index, std::uint64_t element, void* const* stream, void* scratch,
                                    std::size_t count) {
  const std::size_t at = element * size_of(precision);
  const double numbers[] = {mix.limit, mix.scale, strength};
  const void* weight = anchored() ? state(field_of(Extra::weight), index) + at : nullptr;
  const void* anchor = anchored() ? state(field_of(Extra::anchor), index) + at : nullptr;
  isa_.gradient->mix[static_cast<std::size_t>(precision)](numbers, stream[rule.state.size()], stream[0], weight,
                                                          anchor, scratch, count);
  return scratch;
}

// Memory for a stretch of elements, on its cache lines as `like` is.
template <std::size_t Elements>
struct Scratch {
  alignas(kCacheLine) char bytes[Elements * sizeof(double) + kCacheLine];
  void* like(const void* other) { return bytes + reinterpret_cast<std::uintptr_t>(other) % kCacheLine; }
};

void CpuPlan::update_range(std::size_t index, std::uint64_t begin, std::uint64_t end) {
  const auto which = static_cast<std::size_t>(precision);
  void* stream[kMaxStreams];
  if (!mixed() && !anchored() && !traced()) {
    streams_at(index, begin, stream);
    loops_.update[which](row_of(index), stream, end - begin);
    return;
  }
  // Stretch by stretch, so that what is made for a stretch is still in the first cache level when it is used.
  Scratch<kStretch> gradient, before;
  for (; begin < end; begin += kStretch) {
    const std::size_t count = std::min<std::uint64_t>(kStretch, end - begin);
    streams_at(index, begin, stream);
    void*& given = stream[rule.state.size()];
    void* const original = given;
    if (traced()) std::memcpy(before.like(stream[0]), stream[0], count * size_of(precision));
    // A gradient in the parameter's own memory must outlive the parameter's change.
    if (mixed() || anchored() || original == stream[0])
      given = const_cast<void*>(mixed_gradient(index, begin, stream, gradient.like(stream[0]), count));
    loops_.update[which](row_of(index), stream, count);
    if (traced())
      isa_.gradient->trace[which](state(field_of(Extra::trace), index) + begin * size_of(precision),
                                  before.like(stream[0]), stream[0],
                                  original == stream[0] ? before.like(stream[0]) : original, count);
  }
}

bool CpuPlan::add_up(std::vector<double>& lanes) {
  const std::uint64_t elements = active_elements();
  if (elements == 0) return false;
  const std::size_t chunks = first_chunk_.back(), sums = rule.sums.size();
  if (threads_ == 1 || elements < kParallelElements) {
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) add_up_chunk(chunk);
  } else {
    chunk_ = chunks / Pool::kMaxChunks + 1;
    Pool::of(threads_).run({.work =
                                [](void* plan, std::uint32_t job) {
                                  CpuPlan& self = *static_cast<CpuPlan*>(plan);
                                  const std::size_t end = std::min(self.first_chunk_.back(), (job + 1) * self.chunk_);
                                  for (std::size_t c = job * self.chunk_; c < end; ++c) self.add_up_chunk(c);
                                },
                            .context = this,
                            .chunks = static_cast<std::uint32_t>((chunks + chunk_ - 1) / chunk_),
                            .backwards = false,
                            .worth_waking = elements >= kWakeElements});
  }
  for (std::size_t chunk = 0; chunk < chunks; ++chunk)
    for (std::size_t s = 0; s < sums; ++s) lanes[s * kSumLanes + chunk % kSumLanes] += partial_[chunk * sums + s];
  return true;
}

void CpuPlan::add_up_chunk(std::size_t chunk) {
  const auto after = std::upper_bound(first_chunk_.begin(), first_chunk_.end(), chunk);
  const auto index = static_cast<std::size_t>(after - first_chunk_.begin()) - 1;
  double* const sums = partial_.data() + chunk * rule.sums.size();
  if (!segments[index].active) {
    std::fill_n(sums, rule.sums.size(), 0.0);
    return;
  }
  const std::uint64_t begin = (chunk - first_chunk_[index]) * kSumChunk;
  const std::size_t count = std::min<std::uint64_t>(kSumChunk, segments[index].elements - begin);
  void* stream[kMaxStreams];
  streams_at(index, begin, stream);
  Scratch<kSumChunk> gradient;
  if (mixed() || anchored())
    stream[rule.state.size()] =
        const_cast<void*>(mixed_gradient(index, begin, stream, gradient.like(stream[0]), count));
  loops_.sums[static_cast<std::size_t>(precision)](row_of(index), stream, count, sums);
}

void CpuPlan::make_rows(std::span<const double> numbers) {
  for (std::size_t at = 0; at < rows.size(); at += rule.scalars.size()) loops_.make_row(rows.data() + at, numbers.data());
}

void CpuDevice::run(std::span<Plan* const> plans, std::span<double> numbers) {
  if (std::none_of(plans.begin(), plans.end(), [](const Plan* plan) { return plan->active_elements() > 0; })) return;
  const auto each = [&](auto&& pass) {
    for (Plan* plan : plans)
      if (pass(*static_cast<CpuPlan*>(plan))) counters.dispatches.fetch_add(1, std::memory_order_relaxed);
  };
  const Rule& rule = plans[0]->rule;
  if (!rule.sums.empty()) {
    std::vector<double> lanes(rule.sums.size() * kSumLanes);
    each([&](CpuPlan& plan) { return plan.add_up(lanes); });
    for (std::size_t s = 0; s < rule.sums.size(); ++s) {
      double* const lane = lanes.data() + s * kSumLanes;
      for (std::size_t width = kSumLanes / 2; width > 0; width /= 2)
        for (std::size_t k = 0; k < width; ++k) lane[k] += lane[k + width];
      numbers[rule.sum_at[s]] = lane[0];
    }
    counters.dispatches.fetch_add(1, std::memory_order_relaxed);  // this, a small kernel of its own elsewhere
    if (rule.decides) {
      static_cast<CpuPlan*>(plans[0])->decide(numbers);
      for (Plan* plan : plans) static_cast<CpuPlan*>(plan)->make_rows(numbers);
    }
  }
  if (rule.updates) each([](CpuPlan& plan) { return plan.update(); });
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

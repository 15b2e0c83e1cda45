#include "plan.h"

#include <algorithm>
#include <cstring>

#include "pool.h"

namespace grilly::cpu {
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
constexpr std::size_t kStretch = 4'096;

// Memory for a stretch of elements, on its cache lines as `like` is.
template <std::size_t Elements>
struct Scratch {
  alignas(kCacheLine) char bytes[Elements * sizeof(double) + kCacheLine];
  void* like(const void* other) { return bytes + reinterpret_cast<std::uintptr_t>(other) % kCacheLine; }
};

}  // namespace

CpuPlan::CpuPlan(Device& device, const InstructionSet& isa, const Rule& rule_, Precision precision_,
                 std::vector<Segment> segments_)
    : Plan(rule_, precision_, std::move(segments_)),
      device_(device),
      isa_(isa),
      loops_(isa.loops[&rule - rules().data()]),
      threads_(cpu_threads()),
      state_(rule.state.size() - 1 + kExtras + rule.parts.size()) {
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

// Wakes the threads that a run would wake: a job of nothing, which is over before they are there.
void CpuPlan::expect_run() {
  if (threads_ == 1 || span() < kWakeElements) return;
  Pool::of(threads_).run(
      {.work = [](void*, std::uint64_t) {}, .context = nullptr, .chunks = 1, .backwards = false, .worth_waking = true});
}

bool CpuPlan::update() {
  const std::uint64_t elements = active_elements();
  if (elements == 0) return false;
  far_ = elements > kAlternateElements;
  if (threads_ == 1 || elements < kParallelElements) {
    update_chunk(0, span());
    return true;
  }
  // As many chunks for one thread as for another, in whole cache lines of any precision.
  chunk_ = round_up(std::clamp(span() / (8 * threads_) + 1, kMinChunk, kMaxChunk), kCacheLine);
  // Every other run goes backwards; an update behind a first pass always does.
  backwards_ = (!backwards_ || rule.decides) && elements <= kAlternateElements;
  Pool::of(threads_).run({.work =
                              [](void* plan, std::uint64_t chunk) {
                                CpuPlan& self = *static_cast<CpuPlan*>(plan);
                                self.update_chunk(chunk * self.chunk_, (chunk + 1) * self.chunk_);
                              },
                          .context = this,
                          .chunks = (span() + chunk_ - 1) / chunk_,
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
  // The loops read inputs through const pointers.
  for (std::size_t input = 0; input < rule.inputs.size(); ++input)
    if (const void* given = inputs[index * rule.inputs.size() + input])
      stream[fields + input] = const_cast<char*>(static_cast<const char*>(given)) + at;
}

const void* CpuPlan::mixed_gradient(std::size_t index, std::uint64_t element, void* const* stream, void* scratch,
                                    std::size_t count) {
  const std::size_t at = element * size_of(precision);
  const double numbers[] = {mix.limit, mix.scale, strength};
  const void* weight = anchored() ? state(field_of(Extra::weight), index) + at : nullptr;
  const void* anchor = anchored() ? state(field_of(Extra::anchor), index) + at : nullptr;
  isa_.gradient->mix[static_cast<std::size_t>(precision)](numbers, stream[rule.state.size()], stream[0], weight, anchor,
                                                          scratch, count);
  return scratch;
}

void CpuPlan::draw_input(std::size_t index, std::uint64_t element, void** stream, void* scratch, std::size_t count) {
  if (!draws) return;
  const auto& loops = rule.drawn == Drawn::normal ? isa_.draw->normal : isa_.draw->uniform;
  const Segment& segment = segments[index];
  loops[static_cast<std::size_t>(precision)](draw, segment.stream, segment.element + element, count, scratch);
  stream[rule.streams() - 1] = scratch;
}

void CpuPlan::update_range(std::size_t index, std::uint64_t begin, std::uint64_t end) {
  const auto which = static_cast<std::size_t>(precision);
  void* stream[kMaxStreams];
  if (!mixed() && !anchored() && !traced() && !draws) {
    streams_at(index, begin, stream);
    loops_.update[which](row_of(index), stream, end - begin, far_);
    return;
  }
  // Stretch by stretch, so that what is made for a stretch is still in the first cache level when it is used.
  Scratch<kStretch> gradient, before, drawn;
  for (; begin < end; begin += kStretch) {
    const std::size_t count = std::min<std::uint64_t>(kStretch, end - begin);
    streams_at(index, begin, stream);
    void*& given = stream[rule.state.size()];
    void* const original = given;
    draw_input(index, begin, stream, drawn.like(stream[0]), count);
    if (traced()) std::memcpy(before.like(stream[0]), stream[0], count * size_of(precision));
    // A gradient in the parameter's own memory must outlive the parameter's change.
    if (mixed() || anchored() || original == stream[0])
      given = const_cast<void*>(mixed_gradient(index, begin, stream, gradient.like(stream[0]), count));
    loops_.update[which](row_of(index), stream, count, far_);
    if (traced())
      isa_.gradient->trace[which](state(field_of(Extra::trace), index) + begin * size_of(precision),
                                  before.like(stream[0]), stream[0],
                                  original == stream[0] ? before.like(stream[0]) : original, count);
  }
}

bool CpuPlan::add_up(Totals& totals) {
  const std::uint64_t elements = active_elements();
  if (elements == 0) return false;
  const std::size_t chunks = first_chunk_.back();
  if (threads_ == 1 || elements < kParallelElements) {
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) add_up_chunk(chunk);
  } else {
    Pool::of(threads_).run(
        {.work = [](void* plan, std::uint64_t chunk) { static_cast<CpuPlan*>(plan)->add_up_chunk(chunk); },
         .context = this,
         .chunks = chunks,
         .backwards = false,
         .worth_waking = elements >= kWakeElements});
  }
  totals.add(*this, partial_);
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
  for (std::size_t part = 0; part < rule.parts.size(); ++part)
    stream[rule.streams() + part] = parted() ? state(field_of_part(part), index) + begin * size_of(precision) : nullptr;
  Scratch<kSumChunk> gradient, drawn;
  draw_input(index, begin, stream, drawn.like(stream[0]), count);
  if (mixed() || anchored())
    stream[rule.state.size()] =
        const_cast<void*>(mixed_gradient(index, begin, stream, gradient.like(stream[0]), count));
  loops_.sums[static_cast<std::size_t>(precision)](row_of(index), stream, count, sums);
}

void CpuPlan::make_rows(std::span<const double> numbers) {
  for (std::size_t at = 0; at < rows.size(); at += rule.scalars.size())
    loops_.make_row(rows.data() + at, numbers.data());
}

}  // namespace grilly::cpu

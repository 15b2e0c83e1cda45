// What every device does: hand out memory, make plans, run them.
//
// A plan is one rule over a table of segments (tensors) of one precision. The device that made it owns its state; the
// caller owns the parameters, and gives gradients and rows of scalars anew for every run.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "grilly/rules.h"

namespace grilly {

// Global element indices of segments start at multiples of this, so that what is keyed by them (random numbers, chunked
// reductions) does not change when a segment is cut or moved.
constexpr std::uint64_t kSegmentAlignment = 256;
constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t to) { return (n + to - 1) / to * to; }
constexpr std::uint64_t padded(std::uint64_t elements) { return round_up(elements, kSegmentAlignment); }

struct DeviceInfo {
  std::string name;
  std::string type;  // "discrete", "integrated", "virtual", "cpu", "other"
  std::string uuid;
  std::string driver;
  std::string api_version;
  std::string reason;  // why it cannot be used; empty when it can
  bool float64 = false;
  bool shares_memory = false;  // arrays can live where both the host and the device reach them at full speed
  std::map<std::string, std::uint64_t> limits;
};

struct Counters {
  std::atomic<std::uint64_t> dispatches{0}, submits{0}, bytes_up{0}, bytes_down{0}, bytes_allocated{0}, allocations{0};
};

// Host memory that its device can use where it lies, if the device can do that at all. Not initialised.
struct Memory {
  void* data = nullptr;
  std::size_t size = 0;
  virtual ~Memory() = default;
};

struct Segment {
  void* parameter = nullptr;  // state field 0, in the caller's memory
  std::uint64_t elements = 0;
  std::uint64_t first = 0;    // global index of element 0
  std::uint64_t element = 0;  // what element 0 is called in random streams, a multiple of kSegmentAlignment
  std::uint32_t stream = 0;   // its random stream
  std::uint32_t bucket = 0;   // which sums it adds to, of rules without a decision
  std::uint32_t row = 0;      // which row of scalars
  bool active = true;         // inactive: not touched by this run
  bool measured = false;      // took part in the last run, which was one with sums
};

// What a plan may have beside its rule (shaders/lib/gradient.glsl): streams of its own, behind the rule's state fields.
enum class Extra { weight, anchor, trace };
constexpr std::size_t kExtras = 3;

// What happens to the gradients on their way to the rule.
struct Mix {
  double limit = std::numeric_limits<double>::infinity();  // clips by value
  double scale = 1;                                        // clips by norm
};

class Plan {
 public:
  Plan(const Rule& rule, Precision precision, std::vector<Segment> segments);
  virtual ~Plan() = default;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const Rule& rule;
  const Precision precision;
  std::vector<Segment> segments;
  std::vector<const void*> inputs;  // [segment][input], contiguous and aligned to their element; null: to be drawn
  std::vector<double> rows;         // [row][scalar]
  Mix mix;
  Draw draw;
  bool draws;           // the last input is drawn in this run, as it is unless it is given
  double strength = 0;  // of the anchored quadratic

  // A quadratic whose gradient comes on top of the given one: weight * (parameter - anchor), both zero at first.
  void add_anchor();
  // The path integral of the given gradient, zero at first.
  void add_trace();
  // What a step is made of, element by element, is kept by runs with sums; zero at first.
  void add_parts();
  bool anchored() const { return has_[static_cast<std::size_t>(Extra::weight)]; }
  bool traced() const { return has_[static_cast<std::size_t>(Extra::trace)]; }
  bool parted() const { return parted_; }
  bool mixed() const { return mix.scale != 1 || mix.limit < std::numeric_limits<double>::infinity(); }
  std::size_t field_of(Extra extra) const { return rule.state.size() + static_cast<std::size_t>(extra); }

  std::size_t field_of_part(std::size_t part) const { return rule.state.size() + kExtras + part; }

  // One of the plan's own fields (state fields from 1 on, extras, parts) of one segment, as contiguous elements.
  virtual void read_state(std::size_t field, std::size_t segment, void* to) = 0;
  virtual void write_state(std::size_t field, std::size_t segment, const void* from) = 0;

  // A run will come soon: what it needs of the device may be made ready while its caller is still at work.
  virtual void expect_run() {}

  std::uint64_t span() const;  // global elements, gaps for alignment included
  std::uint64_t active_elements() const;

 protected:
  virtual void make_field(std::size_t field) = 0;

 private:
  void add(Extra extra);
  std::array<bool, kExtras> has_{};
  bool parted_ = false;
};

// Adds up what the chunks of plans came to, each bucket by itself: its chunks in their order, in lanes, then the lanes.
class Totals {
 public:
  // numbers: [bucket][sum], written by finish().
  Totals(const Rule& rule, std::span<double> numbers);
  // partial: [chunk][sum], for all chunks of all segments of a plan.
  void add(const Plan& plan, std::span<const double> partial);
  void finish();

 private:
  void widen(std::uint64_t chunks);

  const Rule& rule_;
  std::span<double> numbers_;
  std::size_t buckets_;
  std::size_t width_ = 1;              // lanes: a power of two, up to kSumLanes
  std::vector<double> lanes_;          // [bucket][sum][lane]
  std::vector<std::size_t> chunk_of_;  // how many chunks a bucket has had
};

class Sketch;
struct SketchLayout;
class Trajectories;
struct PotentialData;
class Relaxation;
struct Network;

class Device : public std::enable_shared_from_this<Device> {
 public:
  virtual ~Device() = default;

  Counters counters;

  virtual std::shared_ptr<Memory> allocate(std::size_t bytes) = 0;
  // Whether plans use this memory where it lies.
  virtual bool reaches(const void* data, std::size_t bytes) const = 0;
  virtual std::unique_ptr<Plan> make_plan(const Rule& rule, Precision precision, std::vector<Segment> segments) = 0;
  // Of plans that this device made, which must outlive it.
  virtual std::unique_ptr<Sketch> make_sketch(SketchLayout layout) = 0;
  virtual std::unique_ptr<Trajectories> make_trajectories(const PotentialData& data) = 0;
  // On the processor the host drives relaxations itself, with its own products: this throws DeviceUnavailable there.
  virtual std::unique_ptr<Relaxation> make_relaxation(Network network) = 0;
  // Runs plans that this device made, in order, and returns when the parameters are readable. Rules with sums must all
  // be the same one: their numbers are the whole run's, taken from and written to `numbers`; one set for each bucket
  // where nothing is decided.
  virtual void run(std::span<Plan* const> plans, std::span<double> numbers) = 0;
  // Whether a run waits for something other than the processor.
  virtual bool waits() const { return false; }
  // Nanoseconds the device itself measured for the dispatches of the last run; 0 where it has no clock.
  virtual std::uint64_t last_run_ns() const { return 0; }
  // True once the driver has given up: what was made on the device cannot be used any more.
  virtual bool lost() const { return false; }
};

// The host's processor. Opened once, kept to the end of the process.
std::shared_ptr<Device> cpu_device();
// The one that plans are made for: GRILLY_ISA, else the best. Throws DeviceUnavailable where it is not there.
std::string cpu_instruction_set();
// Instruction sets this processor has, best first: "avx512", "avx2", "base".
std::vector<std::string> cpu_instruction_sets();
unsigned cpu_threads();

// Vulkan: never throws; when nothing can be listed the reason says why and what to do.
struct VulkanListing {
  std::vector<DeviceInfo> devices;
  std::string reason;
};
VulkanListing vulkan_devices();
std::shared_ptr<Device> open_vulkan(std::size_t index);
// What the validation layer said since the last call (GRILLY_VALIDATION=1 switches the layer on).
std::vector<std::string> take_vulkan_messages();
// At exit: destroys what nobody holds any more.
void close_vulkan();

}  // namespace grilly

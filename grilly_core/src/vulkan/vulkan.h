// The Vulkan device, inside. One header for its few files: instance, capabilities, device, memory, transfers, plans.
#pragma once

#include <volk.h>

#include <array>
#include <atomic>
#include <compare>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "grilly/device.h"
#include "grilly/errors.h"
#include "grilly/relaxation.h"
#include "grilly/sketch.h"
#include "grilly/trajectories.h"

namespace grilly::vulkan {

// --- instance.cpp: the loader and the instance, opened once per process.

// Throws DeviceUnavailable: no loader, no driver, or a process forked from one that had opened Vulkan.
VkInstance instance();
std::vector<VkPhysicalDevice> physical_devices();
long process_id();
// Counts devices, so that the instance is destroyed after the last of them.
void device_opened();
void device_closed();
// Throws what a failed call means: OutOfDeviceMemory, DeviceLost, or DeviceUnavailable for the rest.
void check(VkResult result, const char* call);

// --- capabilities.cpp: what a physical device is and whether the engine can use it.

DeviceInfo describe(VkPhysicalDevice physical, bool force_staging);

// --- memory.cpp

enum class Use {
  device,
  shared,
  upload,
  readback
};  // device only; both at full speed; written by the host; read by the host

struct Buffer {
  VkBuffer handle = VK_NULL_HANDLE;
  VkDeviceMemory memory = VK_NULL_HANDLE;
  VkDeviceSize size = 0;
  char* mapped = nullptr;  // null for Use::device on a device with memory of its own
  VkDeviceAddress address = 0;
};

class VulkanDevice;

// A buffer that is destroyed with its owner.
class OwnedBuffer {
 public:
  OwnedBuffer() = default;
  OwnedBuffer(VulkanDevice& device, Use use, VkDeviceSize bytes);
  OwnedBuffer(OwnedBuffer&& other) noexcept : device_(other.device_), buffer_(other.buffer_) {
    other.device_ = nullptr;
  }
  OwnedBuffer& operator=(OwnedBuffer&& other) noexcept;
  ~OwnedBuffer();
  explicit operator bool() const { return device_ != nullptr; }
  const Buffer* operator->() const { return &buffer_; }
  const Buffer& operator*() const { return buffer_; }

 private:
  VulkanDevice* device_ = nullptr;
  Buffer buffer_;
};

// Where mapped memory lies in the host's address space, and in the device's.
class AddressBook {
 public:
  void add(const Buffer& buffer);
  void remove(const Buffer& buffer);
  // The device's address of [host, host + bytes), if all of it is mapped and it starts at a multiple of
  // kAddressAlignment.
  std::optional<VkDeviceAddress> find(const void* host, std::uint64_t bytes) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::uintptr_t, Buffer> by_host_address_;
};

// The shader loads 16-byte aligned packs.
constexpr std::uint64_t kAddressAlignment = 16;

// Arrays lie in blocks, small ones side by side: many drivers stop at 4,096 allocations.
struct Block {
  OwnedBuffer buffer;
  VkDeviceSize used = 0;
};

// --- transfers.cpp: everything that is submitted to the queue.

struct Transfer {
  VkBuffer buffer;
  VkDeviceSize offset;
  char* host;
  VkDeviceSize size;
};

constexpr std::uint32_t kPushBytes = 88;

struct Dispatch {
  VkPipeline pipeline;
  std::uint32_t groups;
  std::uint32_t push_bytes = 0;
  std::array<char, kPushBytes> push{};
};

// Dispatches that do not depend on one another.
using Stage = std::vector<Dispatch>;

struct Slot {
  OwnedBuffer buffer;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  std::uint64_t busy_until = 0;
};

constexpr VkDeviceSize kSlotBytes = VkDeviceSize{16} << 20;
constexpr std::size_t kSlots = 4;

// One command stream on one queue. Everything here is called with the device's mutex held.
class Queue {
 public:
  void open(VulkanDevice& device, std::uint32_t family, std::uint32_t timestamp_bits);
  void close();
  // Uploads, then stages of dispatches one after another, then downloads; returns when the host may read. One
  // submission as long as the transfers fit in the staging ring, which holds kSlots * kSlotBytes each way.
  void execute(const std::vector<Transfer>& up, const std::vector<Stage>& stages, const std::vector<Transfer>& down);
  std::uint64_t last_ns = 0;

 private:
  VkCommandBuffer begin();
  void submit(VkCommandBuffer commands);
  void wait(std::uint64_t value);
  void record_dispatches(VkCommandBuffer commands, const std::vector<Stage>& stages);
  Slot& slot(std::vector<Slot>& ring, std::size_t batch, Use use);

  VulkanDevice* device_ = nullptr;
  VkQueue queue_ = VK_NULL_HANDLE;
  VkCommandPool pool_ = VK_NULL_HANDLE;
  VkQueryPool queries_ = VK_NULL_HANDLE;
  VkSemaphore timeline_ = VK_NULL_HANDLE;
  std::uint64_t value_ = 0;  // the last one submitted
  std::uint64_t timestamp_mask_ = 0;
  double ns_per_tick_ = 0;
  std::vector<VkCommandBuffer> commands_;
  std::size_t recorded_ = 0;
  std::vector<Slot> up_ring_, down_ring_;
};

// --- device.cpp

constexpr std::uint32_t kLocalSize = 128;  // the smallest maxComputeWorkGroupInvocations that Vulkan allows

// Numbers in another precision, or the same.
void convert(std::span<const double> from, Precision precision, void* to);

// What a pipeline is made for.
struct Pass {
  const SpirvPair* shader;
  Precision precision;
  bool mixed = false, anchored = false, traced = false, drawn = false, parted = false;
  std::uint32_t missing = 0;  // a bit for each field of the shader
  std::uint32_t choice = 0;   // Rule::choice
  auto operator<=>(const Pass&) const = default;
};

class VulkanPlan;

class VulkanDevice final : public Device {
 public:
  VulkanDevice(VkPhysicalDevice physical, bool force_staging);
  ~VulkanDevice() override;

  std::shared_ptr<Memory> allocate(std::size_t bytes) override;
  bool reaches(const void* data, std::size_t bytes) const override { return addresses.find(data, bytes).has_value(); }
  std::unique_ptr<Plan> make_plan(const Rule& rule, Precision precision, std::vector<Segment> segments) override;
  std::unique_ptr<Sketch> make_sketch(SketchLayout layout) override;
  std::unique_ptr<Trajectories> make_trajectories(const PotentialData& data) override;
  std::unique_ptr<Relaxation> make_relaxation(Network network) override;
  void run(std::span<Plan* const> plans, std::span<double> numbers) override;
  bool waits() const override { return true; }
  std::uint64_t last_run_ns() const override { return queue.last_ns; }
  bool lost() const override { return lost_; }

  // Throws when the device cannot be used any more: in a forked child, or after it was lost.
  void require_usable() const;
  bool in_child() const { return process_id() != pid_; }
  [[noreturn]] void lose(const char* when);
  VkPipeline pipeline(const Pass& pass);
  // The precision of what is decided between two passes.
  Precision control_precision() const { return info.float64 ? Precision::f64 : Precision::f32; }

  Buffer create_buffer(Use use, VkDeviceSize bytes);
  void destroy_buffer(Buffer& buffer);

  const VkPhysicalDevice physical;
  const DeviceInfo info;
  VkDevice handle = VK_NULL_HANDLE;
  VolkDeviceTable vk{};
  VkPhysicalDeviceMemoryProperties memory_types{};
  VkDeviceSize max_allocation = 0;
  std::uint32_t max_groups = 0;
  std::uint32_t packs = 0;  // per invocation
  VkPipelineLayout pipeline_layout = VK_NULL_HANDLE;
  AddressBook addresses;
  std::mutex mutex;  // the queue, the staging ring
  Queue queue;

 private:
  void open(std::uint32_t family);
  const long pid_;
  std::atomic<bool> lost_{false};
  std::mutex block_mutex_;
  std::weak_ptr<Block> open_block_;  // which the next small array is cut from; the arrays keep it alive
  std::mutex pipelines_mutex_;
  std::map<Pass, VkPipeline> pipelines_;
  // What the decision between two passes reads and writes.
  Dispatch decision(std::span<VulkanPlan* const> plans, std::span<const double> numbers);
  OwnedBuffer parts_, numbers_;
};

// --- plan.cpp

class VulkanPlan final : public Plan {
 public:
  VulkanPlan(VulkanDevice& device, const Rule& rule, Precision precision, std::vector<Segment> segments);
  void read_state(std::size_t field, std::size_t segment, void* to) override;
  void write_state(std::size_t field, std::size_t segment, const void* from) override;

  // Writes the tables and brings up what the device does not have yet: by memcpy into mapped memory, else through `up`.
  void prepare(std::vector<Transfer>& up);
  Dispatch first_pass() const;
  Dispatch update() const;
  // The plan in the table that the decision reads (control.comp.in).
  struct Part {
    VkDeviceAddress sums, wide_rows, rows;
    std::uint32_t chunks, row_count, is_double, unused;
  };
  Part part() const;
  // Of a field: where each chunk of kSumChunk elements of a segment lies on the device.
  void chunk_addresses(std::size_t field, std::size_t segment, VkDeviceAddress* to) const;
  void add_up(Totals& totals) const;          // what the pass with sums has left, once it is over
  void collect(std::vector<Transfer>& down);  // parameters that must come back through the staging ring
  void finish();                              // and the ones that the host can copy itself

 private:
  // A segment, or the part of one that lies in one allocation.
  struct Piece {
    std::size_t segment;
    std::uint64_t offset, elements;  // within the segment
    std::size_t block;
    std::uint64_t at;  // elements into the block
  };
  using Arena = std::vector<OwnedBuffer>;  // one stream of all segments, by block

  // Of a piece in the segment table: elements, first, row, and an address per stream, extra and part.
  std::uint32_t entry_bytes() const {
    return static_cast<std::uint32_t>((3 + rule.fields.size() + rule.inputs.size() + kExtras + rule.parts.size()) *
                                      sizeof(std::uint64_t));
  }
  void lay_out();
  Arena make_arena(Use use) const;
  void make_field(std::size_t field) override;
  OwnedBuffer chunk_table(std::uint64_t chunk, std::uint32_t& count) const;
  Pass pass(const SpirvPair& shader) const;
  Dispatch dispatch(const SpirvPair& shader, const OwnedBuffer& chunks, std::uint32_t count) const;
  void write_tables();
  void write_rows(OwnedBuffer& buffer, Precision as);
  void bring_parameters(std::vector<Transfer>& up, bool all);
  void remember(const Piece& piece);
  void bring_inputs(std::vector<Transfer>& up);
  Transfer transfer(const Arena& arena, const Piece& piece, void* segment_start) const;
  void move_state(std::size_t field, std::size_t segment, void* host, bool up);

  VulkanDevice& device_;
  const std::size_t size_;
  const Use resident_;  // what the plan's own streams live in
  std::vector<Piece> pieces_;
  std::vector<std::uint64_t> block_elements_;
  std::vector<Arena> state_;               // by field - 1; empty where there is none
  std::vector<VkDeviceAddress> in_place_;  // by segment: where the device finds the parameter itself, 0: it has a copy
  Arena parameters_;                       // the copies
  std::vector<std::vector<char>> last_seen_;  // by segment: what the host had when it and the copy last agreed
  std::vector<Arena> inputs_;                 // by input, made when first needed
  std::vector<VkDeviceAddress> input_at_;     // [segment][input], 0: in the arena
  OwnedBuffer table_, chunks_, rows_;
  std::uint32_t chunk_count_ = 0;
  // Of a rule with sums: chunks of the first pass, a number for each and each sum, and rows as the decision takes them.
  OwnedBuffer sum_chunks_, partial_, wide_rows_;
  std::uint32_t sum_chunk_count_ = 0;
};

// --- sketch.cpp

class VulkanSketch final : public Sketch {
 public:
  VulkanSketch(VulkanDevice& device, SketchLayout layout);
  void read(double* to) override;

 private:
  void write_places();

  VulkanDevice& device_;
  std::uint64_t chunks_ = 0;         // of all tensors, in one chain
  std::uint32_t longest_ = 0;        // entries of the fullest bucket
  OwnedBuffer starts_;               // by bucket, and the number of all: entries
  std::vector<OwnedBuffer> blocks_;  // of entries, 2^block_bits_ each
  std::uint32_t block_bits_ = 0;
  OwnedBuffer block_table_, places_, totals_;
};

// --- trajectories.cpp

class VulkanTrajectories final : public Trajectories {
 public:
  VulkanTrajectories(VulkanDevice& device, const PotentialData& data);
  void run(const Transitions& transitions) override;

 private:
  struct Traffic;
  OwnedBuffer buffer(VkDeviceSize bytes) const;
  std::pair<std::uint64_t, std::uint64_t> turns(const Transitions& transitions) const;
  template <class Real>
  void run_in(const Transitions& transitions);

  VulkanDevice& device_;
  const Use resident_;
  const std::vector<double> constants_;
  std::vector<OwnedBuffer> tables_;
};

// --- relaxation.cpp

class VulkanRelaxation final : public Relaxation {
 public:
  VulkanRelaxation(VulkanDevice& device, Network network);
  void run(const Relaxing& relaxing) override;

 private:
  // Of a layer: copies of what the device does not find where the caller has it, and what is made of that.
  struct Buffers {
    OwnedBuffer u, weight, bias, r, forward, error, back, partial;
  };
  OwnedBuffer& need(OwnedBuffer& buffer, VkDeviceSize bytes, Use use) const;
  VkDeviceAddress bring(OwnedBuffer& copy, const void* host, VkDeviceSize bytes, std::vector<Transfer>& up) const;
  template <class Real>
  void run_in(const Relaxing& relaxing, std::unique_lock<std::mutex>& lock);

  VulkanDevice& device_;
  const Use resident_;
  std::mutex running_;  // held for a whole run, before the device's, which is given away between submissions
  std::vector<Buffers> layers_;
  OwnedBuffer target_, softmax_, state_, norms_, table_;
};

}  // namespace grilly::vulkan

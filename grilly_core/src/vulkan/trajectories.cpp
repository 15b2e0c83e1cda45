// Chains on Vulkan: one invocation each. What they are made of lies on the device as long as a run takes.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "vulkan.h"

namespace grilly::vulkan {
namespace {

namespace names {
#define NAMED(name, value) constexpr std::size_t name = value;
#include "trajectories/names.glsl"
#undef NAMED
}  // namespace names
using names::NUMBERS;
static_assert(names::STATS == kTransitionStats);

constexpr std::size_t kMaxTables = 4, kMaxConstants = 4;

// llvmpipe leaves loops after 65,535 turns of all loops that an invocation has been through. On other devices a
// dispatch must be over before somebody takes it for a hang, which is after two seconds on some: turns of as many
// chains as run at once. More of them wait for one another.
constexpr std::uint64_t kTurnsInSoftware = 60'000, kTurns = std::uint64_t{1} << 22;
constexpr std::size_t kChainsAtOnce = 65'536;
// Dispatches of one submission.
constexpr std::size_t kTogether = 64;

template <class Real>
struct Setup {
  VkDeviceAddress fields, numbers, streams, done, masses, roots, normals, uniforms, positions, stats;
  VkDeviceAddress tables[kMaxTables];
  std::uint64_t seen, thin;
  std::uint32_t seed[2];
  std::uint32_t chains, dim, rows, transitions, max_steps, num_steps, jitter, dense, mass_per_chain, carried, adapting,
      max_tree_depth;
  Real persists, renewed, delta_max, target, eagerness, t_0, trajectory, unused;
  Real constants[kMaxConstants];
};

}  // namespace

// Memory that a run moves to and from the device, by the host's hand where it is mapped.
struct VulkanTrajectories::Traffic {
  VulkanDevice& device;
  std::vector<Transfer> up, down;

  void bring(const OwnedBuffer& to, VkDeviceSize at, const void* from, VkDeviceSize bytes) {
    if (bytes == 0) return;
    if (to->mapped) {
      std::memcpy(to->mapped + at, from, bytes);
      device.counters.bytes_up += bytes;
    } else {
      up.push_back({to->handle, at, static_cast<char*>(const_cast<void*>(from)), bytes});
    }
  }
  void fetch(const OwnedBuffer& from, VkDeviceSize at, void* to, VkDeviceSize bytes) {
    if (bytes > 0) down.push_back({from->handle, at, static_cast<char*>(to), bytes});
  }
  // Those that lie in mapped memory are copied once the work is over, the others with it.
  void finish(std::span<const OwnedBuffer* const> buffers) {
    for (const Transfer& transfer : down)
      for (const OwnedBuffer* buffer : buffers)
        if ((*buffer)->handle == transfer.buffer) {
          std::memcpy(transfer.host, (*buffer)->mapped + transfer.offset, transfer.size);
          device.counters.bytes_down += transfer.size;
        }
  }
};

VulkanTrajectories::VulkanTrajectories(VulkanDevice& device, const PotentialData& data)
    : Trajectories(data),
      device_(device),
      resident_(device.info.shares_memory ? Use::shared : Use::device),
      constants_(data.constants) {
  Traffic traffic{device_, {}, {}};
  std::vector<std::vector<char>> images;
  for (const std::vector<double>& table : data.tables) {
    std::vector<char>& image = images.emplace_back(table.size() * size_of(precision));
    convert(table, precision, image.data());
    tables_.push_back(buffer(image.size()));
    traffic.bring(tables_.back(), 0, image.data(), image.size());
  }
  const std::lock_guard lock(device_.mutex);
  if (!traffic.up.empty()) device_.queue.execute(traffic.up, {}, {});
}

OwnedBuffer VulkanTrajectories::buffer(VkDeviceSize bytes) const {
  return OwnedBuffer(device_, resident_, std::max<VkDeviceSize>(bytes, 16));
}

// Turns of loops that an invocation goes through at most: for each part of a run, and besides for each transition. The
// one in which a loop is left counts as well.
std::pair<std::uint64_t, std::uint64_t> VulkanTrajectories::turns(const Transitions& t) const {
  const std::uint64_t loop = dim + 1, product = t.dense ? dim * loop : 0;
  const std::uint64_t gradient = 2 * loop + 3 * rows + 2 * table_numbers + 8;
  // Loops over dimensions, with five more turns for four numbers that are drawn; and the rounds of draws that decide.
  if (t.method == Method::hmc) return {2 * loop + product + gradient + 1, 20 * loop + 3 * product + 64};
  return {(64 + std::uint64_t{t.max_tree_depth}) * loop + 5 * product + gradient + 160, 0};
}

void VulkanTrajectories::run(const Transitions& t) {
  if (precision == Precision::f64)
    run_in<double>(t);
  else
    run_in<float>(t);
}

template <class Real>
void VulkanTrajectories::run_in(const Transitions& t) {
  device_.require_usable();
  if (t.count == 0 || t.chains == 0) return;
  const bool trees = t.method == Method::nuts;
  const std::size_t row = t.chains * sizeof(Real), field = dim * row;
  const std::size_t field_count = trees ? names::TABLES + names::LEVEL_FIELDS * t.max_tree_depth : names::HMC_FIELDS;
  const std::size_t mass = (t.dense ? dim : 1) * dim * (t.mass_per_chain ? row : sizeof(Real));
  const bool planned = !trees && !t.jitter && t.trajectory == 0;

  const auto [each, besides] = turns(t);
  const bool in_software = device_.info.type == "cpu";
  if (in_software && each + besides > kTurnsInSoftware)
    throw DeviceUnavailable(device_.info.name + " goes through " + std::to_string(kTurnsInSoftware) +
                            " turns of loops at most, and one step in this potential takes " +
                            std::to_string(each + besides) + ": use another device");
  // Where a single step takes more than what a dispatch should, it has one of its own.
  const std::uint64_t limit =
      in_software ? kTurnsInSoftware : std::max(kTurns / (1 + t.chains / kChainsAtOnce), each + besides);

  OwnedBuffer fields = buffer(field_count * field), numbers = buffer(NUMBERS * row), streams = buffer(t.chains * 4);
  OwnedBuffer done = buffer(t.chains * 8), masses = buffer(mass), roots = buffer(mass);
  OwnedBuffer normals = buffer(t.normal ? t.count * field : 0), uniforms = buffer(t.uniform ? t.count * row : 0);
  OwnedBuffer positions = buffer(t.kept() * field), stats = buffer(t.kept() * kTransitionStats * row);
  OwnedBuffer setup(device_, Use::upload, sizeof(Setup<Real>));

  Setup<Real> filled{};
  filled.fields = fields->address;
  filled.numbers = numbers->address;
  filled.streams = streams->address;
  filled.done = done->address;
  filled.masses = masses->address;
  filled.roots = roots->address;
  filled.normals = t.normal ? normals->address : 0;
  filled.uniforms = t.uniform ? uniforms->address : 0;
  filled.positions = positions->address;
  filled.stats = stats->address;
  for (std::size_t k = 0; k < tables_.size(); ++k) filled.tables[k] = tables_[k]->address;
  filled.seen = t.seen;
  filled.thin = t.thin;
  filled.seed[0] = static_cast<std::uint32_t>(t.seed);
  filled.seed[1] = static_cast<std::uint32_t>(t.seed >> 32);
  filled.chains = static_cast<std::uint32_t>(t.chains);
  filled.dim = static_cast<std::uint32_t>(dim);
  filled.rows = static_cast<std::uint32_t>(rows);
  filled.transitions = static_cast<std::uint32_t>(t.count);
  filled.max_steps = kMaxSteps;
  filled.num_steps = t.num_steps;
  filled.jitter = t.jitter;
  filled.dense = t.dense;
  filled.mass_per_chain = t.mass_per_chain;
  filled.carried = t.carried;
  filled.adapting = t.adaptation != nullptr;
  filled.max_tree_depth = t.max_tree_depth;
  const Real persistence = static_cast<Real>(t.persistence);
  filled.persists = std::sqrt(persistence);
  filled.renewed = std::sqrt(1 - persistence);
  filled.delta_max = static_cast<Real>(t.delta_max);
  filled.target = static_cast<Real>(t.target);
  filled.eagerness = static_cast<Real>(1 / t.gamma);
  filled.t_0 = static_cast<Real>(t.t_0);
  filled.trajectory = static_cast<Real>(t.trajectory);
  std::transform(constants_.begin(), constants_.end(), filled.constants, [](double x) { return static_cast<Real>(x); });
  std::memcpy(setup->mapped, &filled, sizeof filled);

  Traffic traffic{device_, {}, {}};
  const std::vector<Real> zeros(NUMBERS * t.chains);
  traffic.bring(numbers, 0, zeros.data(), NUMBERS * row);
  traffic.bring(numbers, names::STEP_SIZE * row, t.step_size, row);
  if (t.adaptation) traffic.bring(numbers, names::COUNT * row, t.adaptation, kAdaptationNumbers * row);
  traffic.bring(fields, names::POSITION * field, t.position, field);
  if (t.momentum) traffic.bring(fields, names::MOMENTUM * field, t.momentum, field);
  traffic.bring(streams, 0, t.streams, t.chains * 4);
  traffic.bring(done, 0, t.done, t.chains * 8);
  traffic.bring(masses, 0, t.inverse_mass, mass);
  traffic.bring(roots, 0, t.root, mass);
  if (t.normal) traffic.bring(normals, 0, t.normal, t.count * field);
  if (t.uniform) traffic.bring(uniforms, 0, t.uniform, t.count * row);

  traffic.fetch(fields, names::POSITION * field, t.position, field);
  if (t.momentum) traffic.fetch(fields, names::MOMENTUM * field, t.momentum, field);
  traffic.fetch(fields, names::GRADIENT * field, t.gradient, field);
  traffic.fetch(numbers, names::U_HERE * row, t.energy, 2 * row);
  traffic.fetch(numbers, names::DIVERGED * row, t.tally, 2 * row);
  traffic.fetch(numbers, names::STEP_SIZE * row, t.step_size, row);
  if (t.adaptation) traffic.fetch(numbers, names::COUNT * row, t.adaptation, kAdaptationNumbers * row);
  traffic.fetch(positions, 0, t.positions, t.kept() * field);
  traffic.fetch(stats, 0, t.stats, t.kept() * kTransitionStats * row);

  struct {
    VkDeviceAddress setup;
    std::uint32_t first, end;
  } push{setup->address, 0, 0};
  Dispatch dispatch{device_.pipeline({&potential.shader[static_cast<std::size_t>(t.method)], precision}),
                    static_cast<std::uint32_t>((t.chains + kLocalSize - 1) / kLocalSize), sizeof push};
  const auto next = [&](std::uint32_t end) {
    push.first = push.end;
    push.end = end;
    std::memcpy(dispatch.push.data(), &push, sizeof push);
    return dispatch;
  };

  const std::lock_guard lock(device_.mutex);
  const bool mapped = fields->mapped != nullptr;
  const std::vector<Transfer> nothing;
  std::vector<Stage> work;
  const auto submit = [&](bool last) {
    device_.queue.execute(traffic.up, work, last && !mapped ? traffic.down : nothing);
    traffic.up.clear();
    work.clear();
  };
  if (!planned) {
    // How many leaves or stages there will be nobody knows.
    const auto parts = static_cast<std::uint32_t>(limit / (each + besides));
    std::vector<Real> made(t.chains);
    std::size_t ahead = 1;
    do {
      // One dispatch first: often it is enough.
      for (std::size_t k = 0; k < ahead; ++k) work.push_back({next(push.end + parts)});
      ahead = std::min(2 * ahead, kTogether);
      Transfer look{numbers->handle, names::TRANSITION * row, reinterpret_cast<char*>(made.data()), row};
      device_.queue.execute(traffic.up, work, mapped ? nothing : std::vector{look});
      if (mapped) std::memcpy(made.data(), numbers->mapped + look.offset, row);
      traffic.up.clear();
      work.clear();
    } while (std::any_of(made.begin(), made.end(), [&](Real x) { return x < static_cast<Real>(t.count); }));
    if (!mapped) device_.queue.execute({}, {}, traffic.down);
  } else {
    // Whole transitions in a dispatch where they fit, behind one evaluation; else some stages of one.
    const std::uint64_t end = 1 + t.count * t.num_steps, whole = (limit - each) / (each * t.num_steps + besides);
    const std::uint64_t together = whole > 0 ? whole * t.num_steps : (limit - besides) / each;
    while (push.end < end) {
      const std::uint64_t first = push.end == 0 && whole > 0 ? 1 : 0;
      work.push_back({next(static_cast<std::uint32_t>(std::min(push.end + first + together, end)))});
      if (work.size() == kTogether || push.end == end) submit(push.end == end);
    }
  }
  if (mapped) {
    const OwnedBuffer* const all[] = {&fields, &numbers, &positions, &stats};
    traffic.finish(all);
  }
}

std::unique_ptr<Trajectories> VulkanDevice::make_trajectories(const PotentialData& data) {
  require_usable();
  return std::make_unique<VulkanTrajectories>(*this, data);
}

}  // namespace grilly::vulkan

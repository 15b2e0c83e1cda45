// Relaxation on Vulkan: all steps of a run in one submission, or as many as may pass before somebody looks who goes on.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "vulkan.h"

namespace grilly::vulkan {
namespace {

// As in shaders/relaxation.
constexpr std::size_t kTile = 32, kDepth = 16, kChunk = 4'096;
enum What : std::uint32_t { kActivate, kStep, kMeasure };

// llvmpipe leaves loops after 65,535 turns of all loops that an invocation has been through.
constexpr std::uint64_t kTurnsInSoftware = 60'000;
// Groups of a dispatch: 65,535 rows of 65,535 are the least that devices take.
constexpr std::uint64_t kMostGroups = (std::uint64_t{1} << 31) - 1;
// Steps of one submission: what is recorded of them takes memory. And a submission must be over before a driver takes
// it for a hang, or a user who wants to stop does: the first of a run has so many multiplications at most, or one step,
// which is milliseconds on a GPU; the others follow from the time that the one before has taken.
constexpr std::uint32_t kTogether = 4'096;
constexpr double kFirstWork = 1e9, kSeconds = 0.5;
// What the update of one element counts for.
constexpr double kUpdateWork = 32;

std::uint64_t parts(std::uint64_t n, std::uint64_t of) { return (n + of - 1) / of; }

template <class Real>
struct Layer {
  VkDeviceAddress u, r, forward, back, target, softmax, partial, state;
  std::uint32_t width, chunks, is_hopfield, unused;
  Real own, gain, step, beta;
};

template <class Push>
Dispatch dispatch(VkPipeline pipeline, std::uint64_t groups, const Push& push) {
  static_assert(sizeof push <= kPushBytes);
  Dispatch made{pipeline, static_cast<std::uint32_t>(groups), sizeof push};
  std::memcpy(made.push.data(), &push, sizeof push);
  return made;
}

}  // namespace

VulkanRelaxation::VulkanRelaxation(VulkanDevice& device, Network network_)
    : Relaxation(std::move(network_)),
      device_(device),
      resident_(device.info.shares_memory ? Use::shared : Use::device),
      layers_(network.layers()) {
  if (network.precision == Precision::f64 && !device.info.float64)
    throw DeviceUnavailable(device.info.name + " has no float64 (shaderFloat64): use float32, or another device");
  const std::size_t widest = *std::max_element(network.widths.begin(), network.widths.end());
  const std::uint64_t most =
      std::max(parts(network.batch, kTile) * parts(widest, kTile), network.batch * parts(widest, kChunk));
  if (most > kMostGroups)
    throw DeviceUnavailable(device.info.name + ": a layer of " + std::to_string(network.batch) + " by " +
                            std::to_string(widest) + " takes " + std::to_string(most) + " workgroups, and " +
                            std::to_string(kMostGroups) + " are the most");
  if (device.info.type != "cpu") return;
  // What leaves a loop counts as well.
  const std::uint64_t product = parts(widest, kDepth) * (kDepth + 2) + 1, softmax = 2 * parts(widest, kLocalSize) + 64;
  const std::uint64_t norm = network.layers() * (parts(widest, kChunk) + 2) + 3;
  const std::uint64_t turns = std::max({product, softmax, parts(network.batch, kLocalSize) * norm + 64});
  if (turns > kTurnsInSoftware)
    throw DeviceUnavailable(device.info.name + " goes through " + std::to_string(kTurnsInSoftware) +
                            " turns of loops at most, and a batch of " + std::to_string(network.batch) +
                            " with layers of " + std::to_string(widest) + " takes " + std::to_string(turns) +
                            ": use another device");
}

// Kept from run to run.
OwnedBuffer& VulkanRelaxation::need(OwnedBuffer& buffer, VkDeviceSize bytes, Use use) const {
  if (!buffer || buffer->size < bytes) {
    buffer = OwnedBuffer();
    buffer = OwnedBuffer(device_, use, std::max<VkDeviceSize>(bytes, 16));
  }
  return buffer;
}

// Where the device finds an array of the caller's: there, or in a copy.
VkDeviceAddress VulkanRelaxation::bring(OwnedBuffer& copy, const void* host, VkDeviceSize bytes,
                                        std::vector<Transfer>& up) const {
  if (const auto in_place = device_.addresses.find(host, bytes)) return *in_place;
  need(copy, bytes, resident_);
  if (copy->mapped) {
    std::memcpy(copy->mapped, host, bytes);
    device_.counters.bytes_up += bytes;
  } else {
    up.push_back({copy->handle, 0, static_cast<char*>(const_cast<void*>(host)), bytes});
  }
  return copy->address;
}

void VulkanRelaxation::run(const Relaxing& relaxing) {
  device_.require_usable();
  const std::lock_guard running(running_);
  std::unique_lock lock(device_.mutex);
  if (network.precision == Precision::f64)
    run_in<double>(relaxing, lock);
  else
    run_in<float>(relaxing, lock);
}

template <class Real>
void VulkanRelaxation::run_in(const Relaxing& t, std::unique_lock<std::mutex>& lock) {
  const std::size_t batch = network.batch, count = network.layers(), last = count - 1;
  const bool stopping = t.tol > 0, hopfield = network.energy == Energy::hopfield;
  const bool moves = std::find(t.clamped.begin(), t.clamped.end(), false) != t.clamped.end();
  std::fill_n(t.steps, batch, t.count);
  if (t.norms) std::fill_n(t.norms, batch, t.count > 0 ? 0.0 : std::numeric_limits<double>::quiet_NaN());
  // Where nothing moves no norm is above 0.
  if (stopping && t.count > 0 && !moves) std::fill_n(t.steps, batch, 1u);
  if (t.count == 0 || !moves) return;

  const auto bytes = [&](std::size_t layer) { return VkDeviceSize{batch} * network.widths[layer] * sizeof(Real); };
  const auto mine = [&](OwnedBuffer& buffer, VkDeviceSize size) { return need(buffer, size, resident_)->address; };
  std::vector<Transfer> up;
  std::vector<VkDeviceAddress> weights, biases;
  for (std::size_t i = 0; i < last; ++i) {
    const VkDeviceSize columns = network.widths[i + 1] * sizeof(Real);
    weights.push_back(bring(layers_[i].weight, t.weights[i], columns * network.widths[i], up));
    biases.push_back(bring(layers_[i].bias, t.biases[i], columns, up));
  }
  // How many samples go on, who has stopped, and the steps of each.
  std::vector<std::uint32_t> state(1 + 2 * batch);
  state[0] = static_cast<std::uint32_t>(batch);
  const VkDeviceSize state_bytes = state.size() * sizeof state[0];
  if (stopping) {
    need(state_, state_bytes, resident_);
    if (state_->mapped)
      std::memcpy(state_->mapped, state.data(), state_bytes);
    else
      up.push_back({state_->handle, 0, reinterpret_cast<char*>(state.data()), state_bytes});
  }
  const VkDeviceAddress state_at = stopping ? state_->address : 0;
  const bool norms = t.norms != nullptr || stopping;
  if (norms) need(norms_, batch * sizeof(Real), resident_);

  // What comes forward to a layer is wanted where it moves, or where its difference from u goes back to one that does.
  const auto goes_back = [&](std::size_t i) { return i < last && !t.clamped[i]; };
  const auto comes_forward = [&](std::size_t i) { return i > 0 && (!t.clamped[i] || (!hopfield && goes_back(i - 1))); };
  std::vector<Layer<Real>> layers(count);
  for (std::size_t i = 0; i < count; ++i) {
    Layer<Real>& layer = layers[i];
    Buffers& buffers = layers_[i];
    const std::size_t chunks = parts(network.widths[i], kChunk);
    layer.u = bring(buffers.u, t.u[i], bytes(i), up);
    layer.r = mine(buffers.r, bytes(i));
    if (comes_forward(i)) layer.forward = mine(buffers.forward, bytes(i));
    if (goes_back(i)) layer.back = mine(buffers.back, bytes(i));
    if (i == last && t.target) {
      layer.target = bring(target_, t.target, bytes(i), up);
      layer.softmax = mine(softmax_, 2 * batch * sizeof(Real));
    }
    if (norms && !t.clamped[i]) layer.partial = mine(buffers.partial, batch * chunks * sizeof(Real));
    layer.state = state_at;
    layer.width = static_cast<std::uint32_t>(network.widths[i]);
    layer.chunks = static_cast<std::uint32_t>(chunks);
    layer.is_hopfield = hopfield;
    layer.own = hopfield ? Real{1} : i > 0 ? Real{2} : Real{0};
    layer.gain = hopfield ? Real{1} : Real{-2};
    layer.step = static_cast<Real>(t.step);
    layer.beta = static_cast<Real>(t.beta);
  }
  need(table_, count * sizeof layers[0], Use::upload);
  std::memcpy(table_->mapped, layers.data(), count * sizeof layers[0]);
  const auto in_table = [&](std::size_t i) { return table_->address + i * sizeof layers[0]; };

  const auto& shaders = relaxation_shaders();
  const auto rows = static_cast<std::uint32_t>(batch);
  const auto product = [&](VkDeviceAddress a, std::size_t of, bool transposed, std::size_t to) {
    struct {
      VkDeviceAddress a, b, bias, minus, to, rest, state;
      std::uint32_t rows, columns, depth, transposed, count;
    } push{};
    const std::uint64_t groups = parts(batch, kTile) * parts(network.widths[to], kTile);
    const std::size_t from = transposed ? to + 1 : of;
    push.a = a;
    push.b = weights[of];
    push.bias = transposed ? 0 : biases[of];
    push.to = transposed ? layers[to].back : layers[to].forward;
    if (!transposed && !hopfield && goes_back(of)) {
      push.minus = layers[to].u;
      push.rest = mine(layers_[to].error, bytes(to));
    }
    push.state = state_at;
    push.rows = rows;
    push.columns = layers[to].width;
    push.depth = layers[from].width;
    push.transposed = transposed;
    push.count = static_cast<std::uint32_t>(groups);
    return dispatch(device_.pipeline({&shaders.product, network.precision}), groups, push);
  };
  const auto settle = [&](std::size_t i, What what) {
    Pass pass{&shaders.settle, network.precision};
    pass.choice = network.phi[i];
    struct {
      VkDeviceAddress layer;
      std::uint32_t what, cost, count;
    } push{in_table(i), what, i == last && t.target ? static_cast<std::uint32_t>(network.cost) : 0, 0};
    push.count = rows * layers[i].chunks;
    return dispatch(device_.pipeline(pass), push.count, push);
  };
  struct {
    VkDeviceAddress layer;
    std::uint32_t count;
  } const softmax{in_table(last), rows};
  struct {
    VkDeviceAddress layers, state, norms;
    std::uint32_t layer_count, batch, per_sample, unused;
    Real tol;
  } const verdict{in_table(0),  state_at, norms ? norms_->address : 0, static_cast<std::uint32_t>(count), rows,
                  t.per_sample, 0,        static_cast<Real>(t.tol)};

  // Products of what does not change are made once; the others by stage: forward, and back what that has left.
  Stage activate, once, forward, back;
  double work = 0;  // of a step
  const auto costs = [&](std::size_t of) {
    return static_cast<double>(batch) * static_cast<double>(network.widths[of]) *
           static_cast<double>(network.widths[of + 1]);
  };
  for (std::size_t i = 0; i < count; ++i) {
    activate.push_back(settle(i, kActivate));
    if (!t.clamped[i]) work += kUpdateWork * static_cast<double>(batch) * static_cast<double>(network.widths[i]);
    if (i > 0 && comes_forward(i) && !t.clamped[i - 1]) work += costs(i - 1);
    if (goes_back(i)) work += costs(i);
  }
  for (std::size_t i = 1; i < count; ++i)
    if (comes_forward(i)) (t.clamped[i - 1] ? once : forward).push_back(product(layers[i - 1].r, i - 1, false, i));
  for (std::size_t i = 0; i < last; ++i) {
    if (!goes_back(i)) continue;
    if (hopfield)
      (t.clamped[i + 1] ? once : forward).push_back(product(layers[i + 1].r, i, true, i));
    else
      back.push_back(product(layers_[i + 1].error->address, i, true, i));
  }
  if (network.cost == Cost::cross_entropy && t.target && !t.clamped[last])
    forward.push_back(dispatch(device_.pipeline({&shaders.softmax, network.precision}), batch, softmax));
  const auto step = [&](std::vector<Stage>& stages, bool measured) {
    if (!forward.empty()) stages.push_back(forward);
    if (!back.empty()) stages.push_back(back);
    Stage& update = stages.emplace_back();
    for (std::size_t i = 0; i < count; ++i)
      if (!t.clamped[i]) update.push_back(settle(i, measured ? kMeasure : kStep));
    if (measured) stages.push_back({dispatch(device_.pipeline({&shaders.verdict, network.precision}), 1, verdict)});
  };

  // What comes back, by the host's hand where it is mapped.
  std::vector<Transfer> down;
  std::vector<Real> last_norms(norms ? batch : 0);
  const auto fetch = [&](const OwnedBuffer& from, void* to, VkDeviceSize size) {
    down.push_back({from->handle, 0, static_cast<char*>(to), size});
  };
  for (std::size_t i = 0; i < count; ++i)
    if (!t.clamped[i] && layers_[i].u && layers[i].u == layers_[i].u->address) fetch(layers_[i].u, t.u[i], bytes(i));
  if (stopping) fetch(state_, state.data(), state_bytes);
  if (norms) fetch(norms_, last_norms.data(), batch * sizeof(Real));
  const bool mapped = resident_ == Use::shared;
  const std::vector<Transfer> nothing;

  const auto at_most = [&](double steps) {
    const auto bounded = static_cast<std::uint32_t>(std::clamp(steps, 1.0, double{kTogether}));
    return stopping ? std::min(bounded, t.check_every) : bounded;
  };
  std::uint32_t together = at_most(kFirstWork / work), done = 0, live = rows;
  while (done < t.count && live > 0) {
    const std::uint32_t begin = done;
    std::vector<Stage> stages;
    if (done == 0) stages.push_back(activate);
    if (done == 0 && !once.empty()) stages.push_back(once);
    const std::uint32_t end = std::min(t.count - done, together) + done;
    for (; done < end; ++done) step(stages, stopping || (norms && done + 1 == t.count));
    // The last submission brings everything; the others how many go on.
    const bool final = done == t.count;
    const std::vector<Transfer> look{{state_ ? state_->handle : VK_NULL_HANDLE, 0, reinterpret_cast<char*>(&live), 4}};
    const auto started = std::chrono::steady_clock::now();
    device_.queue.execute(up, stages, mapped ? nothing : final ? down : stopping ? look : nothing);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - started;
    up.clear();
    if (mapped && stopping) std::memcpy(&live, state_->mapped, sizeof live);
    if (final || live == 0) break;
    together = at_most(kSeconds * (done - begin) / std::max(taken.count(), 1e-6));
    // Whoever listens may wait for a thread that waits for the device.
    lock.unlock();
    if (t.listen) t.listen();
    lock.lock();
    device_.require_usable();
  }
  if (!mapped && done < t.count) device_.queue.execute({}, {}, down);
  if (mapped) {
    for (std::size_t i = 0; i < count; ++i) {
      const OwnedBuffer& copy = layers_[i].u;
      if (t.clamped[i] || !copy || layers[i].u != copy->address) continue;
      std::memcpy(t.u[i], copy->mapped, bytes(i));
      device_.counters.bytes_down += bytes(i);
    }
    if (stopping) std::memcpy(state.data(), state_->mapped, state_bytes);
    if (norms) std::memcpy(last_norms.data(), norms_->mapped, batch * sizeof(Real));
  }
  if (stopping) std::copy_n(state.begin() + 1 + static_cast<std::ptrdiff_t>(batch), batch, t.steps);
  if (t.norms) std::copy(last_norms.begin(), last_norms.end(), t.norms);
}

std::unique_ptr<Relaxation> VulkanDevice::make_relaxation(Network network) {
  require_usable();
  return std::make_unique<VulkanRelaxation>(*this, std::move(network));
}

}  // namespace grilly::vulkan

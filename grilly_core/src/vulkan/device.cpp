// Opening and closing a device, its pipelines, and a run of plans.

#include "vulkan.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace grilly::vulkan {
namespace {

std::uint64_t limit(const char* variable, std::uint64_t otherwise) {
  const char* value = std::getenv(variable);
  return value && *value ? std::max<std::uint64_t>(std::strtoull(value, nullptr, 10), 1) : otherwise;
}

}  // namespace

VulkanDevice::VulkanDevice(VkPhysicalDevice physical_, bool force_staging)
    : physical(physical_), info(describe(physical, force_staging)), pid_(process_id()) {
  if (!info.reason.empty()) throw DeviceUnavailable(info.name + " cannot be used: " + info.reason);
  vkGetPhysicalDeviceMemoryProperties(physical, &memory_types);
  // What the device allows, or what a test wants it to allow: real limits take gigabytes to reach.
  max_allocation = limit("GRILLY_MAX_ALLOCATION", info.limits.at("max_allocation_bytes"));
  max_groups = static_cast<std::uint32_t>(limit("GRILLY_MAX_GROUPS", info.limits.at("max_groups")));

  // Loads that a workgroup shares are loads per lane in software, so there more packs share them; a GPU wants
  // workgroups.
  packs = info.type == "cpu" ? 8 : 2;

  std::uint32_t count = 0;
  vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, families.data());
  for (std::uint32_t family = 0; family < count; ++family) {
    if (!(families[family].queueFlags & VK_QUEUE_COMPUTE_BIT)) continue;
    open(family);
    device_opened();
    try {
      queue.open(*this, family, families[family].timestampValidBits);
    } catch (...) {
      queue.close();
      vk.vkDestroyPipelineLayout(handle, pipeline_layout, nullptr);
      vk.vkDestroyDevice(handle, nullptr);
      device_closed();
      throw;
    }
    return;
  }
  throw DeviceUnavailable(info.name + " has no compute queue");
}

void VulkanDevice::open(std::uint32_t family) {
  const float priority = 1.0f;
  const VkDeviceQueueCreateInfo queue_info{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                           .queueFamilyIndex = family,
                                           .queueCount = 1,
                                           .pQueuePriorities = &priority};
  VkPhysicalDeviceVulkan12Features features12{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
                                              .scalarBlockLayout = VK_TRUE,
                                              .timelineSemaphore = VK_TRUE,
                                              .bufferDeviceAddress = VK_TRUE};
  VkPhysicalDeviceFeatures2 features{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &features12};
  features.features.shaderInt64 = VK_TRUE;
  features.features.shaderFloat64 = info.float64;

  // A driver that has this extension requires that it is enabled.
  constexpr const char* portability = "VK_KHR_portability_subset";
  std::uint32_t count = 0;
  vkEnumerateDeviceExtensionProperties(physical, nullptr, &count, nullptr);
  std::vector<VkExtensionProperties> extensions(count);
  vkEnumerateDeviceExtensionProperties(physical, nullptr, &count, extensions.data());
  std::uint32_t enable = 0;
  for (const auto& extension : extensions) enable |= std::string(extension.extensionName) == portability;

  const VkDeviceCreateInfo create{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                  .pNext = &features,
                                  .queueCreateInfoCount = 1,
                                  .pQueueCreateInfos = &queue_info,
                                  .enabledExtensionCount = enable,
                                  .ppEnabledExtensionNames = &portability};
  check(vkCreateDevice(physical, &create, nullptr, &handle), "vkCreateDevice");
  volkLoadDeviceTable(&vk, handle);

  const VkPushConstantRange push{.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .offset = 0, .size = kPushBytes};
  const VkPipelineLayoutCreateInfo layout{.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                          .pushConstantRangeCount = 1,
                                          .pPushConstantRanges = &push};
  const VkResult result = vk.vkCreatePipelineLayout(handle, &layout, nullptr, &pipeline_layout);
  if (result != VK_SUCCESS) vk.vkDestroyDevice(handle, nullptr);
  check(result, "vkCreatePipelineLayout");
}

VulkanDevice::~VulkanDevice() {
  // A forked child has the handles but not the driver's threads: it must not touch them.
  if (in_child()) return;
  vk.vkDeviceWaitIdle(handle);
  parts_ = OwnedBuffer();
  numbers_ = OwnedBuffer();
  queue.close();
  for (auto& [key, pipeline] : pipelines_) vk.vkDestroyPipeline(handle, pipeline, nullptr);
  vk.vkDestroyPipelineLayout(handle, pipeline_layout, nullptr);
  vk.vkDestroyDevice(handle, nullptr);
  device_closed();
}

void VulkanDevice::require_usable() const {
  if (in_child())
    throw DeviceUnavailable(info.name +
                            " was opened before this process was forked, and a driver does not survive a fork: "
                            "start workers with the 'spawn' method, or open Vulkan in the child only");
  if (lost_)
    throw DeviceLost(info.name +
                     " was lost earlier: build a new optimizer, which opens the device anew, and load the last "
                     "state_dict() you have");
}

void VulkanDevice::lose(const char* when) {
  lost_ = true;
  throw DeviceLost(info.name + " was lost " + when +
                   ": the step did not finish, and what was on the device is gone. "
                   "Build a new optimizer, which opens the device anew, and load the last state_dict() you have");
}

VkPipeline VulkanDevice::pipeline(const Pass& pass) {
  const std::lock_guard lock(pipelines_mutex_);
  VkPipeline& pipeline = pipelines_[pass];
  if (pipeline) return pipeline;
  const Spirv& spirv = (*pass.shader)[static_cast<std::size_t>(pass.precision)];
  const VkShaderModuleCreateInfo module_info{.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                             .codeSize = spirv.count * sizeof(std::uint32_t),
                                             .pCode = spirv.words};
  VkShaderModule module;
  check(vk.vkCreateShaderModule(handle, &module_info, nullptr, &module), "vkCreateShaderModule");
  // constant_id is the position; a shader takes those that it declares.
  std::array<std::uint32_t, 8 + kMaxStreams> constants{kLocalSize,  packs,      pass.mixed, pass.anchored,
                                                       pass.traced, pass.drawn, pass.parted};
  for (std::size_t field = 0; field < kMaxStreams; ++field) constants[7 + field] = pass.missing >> field & 1;
  constants[7 + kMaxStreams] = pass.choice;
  std::array<VkSpecializationMapEntry, constants.size()> entries;
  for (std::uint32_t id = 0; id < entries.size(); ++id)
    entries[id] = {id, id * static_cast<std::uint32_t>(sizeof constants[0]), sizeof constants[0]};
  const VkSpecializationInfo specialization{.mapEntryCount = static_cast<std::uint32_t>(entries.size()),
                                            .pMapEntries = entries.data(),
                                            .dataSize = sizeof constants,
                                            .pData = constants.data()};
  const VkComputePipelineCreateInfo create{.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
                                           .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                                                     .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                                                     .module = module,
                                                     .pName = "main",
                                                     .pSpecializationInfo = &specialization},
                                           .layout = pipeline_layout};
  const VkResult result = vk.vkCreateComputePipelines(handle, VK_NULL_HANDLE, 1, &create, nullptr, &pipeline);
  vk.vkDestroyShaderModule(handle, module, nullptr);
  check(result, "vkCreateComputePipelines");
  return pipeline;
}

std::unique_ptr<Plan> VulkanDevice::make_plan(const Rule& rule, Precision precision, std::vector<Segment> segments) {
  require_usable();
  return std::make_unique<VulkanPlan>(*this, rule, precision, std::move(segments));
}

std::unique_ptr<Sketch> VulkanDevice::make_sketch(SketchLayout layout) {
  require_usable();
  return std::make_unique<VulkanSketch>(*this, std::move(layout));
}

// One workgroup that reads what the first passes of all plans came to, and writes their rows for the second.
Dispatch VulkanDevice::decision(std::span<VulkanPlan* const> plans, std::span<const double> numbers) {
  const Precision precision = control_precision();
  const VkDeviceSize bytes = plans.size() * sizeof(VulkanPlan::Part), size = size_of(precision);
  if (!parts_ || parts_->size < bytes) parts_ = OwnedBuffer(*this, Use::upload, bytes);
  if (!numbers_ || numbers_->size < numbers.size() * size)
    numbers_ = OwnedBuffer(*this, Use::readback, numbers.size() * size);
  auto* part = reinterpret_cast<VulkanPlan::Part*>(parts_->mapped);
  for (const VulkanPlan* plan : plans) *part++ = plan->part();
  convert(numbers, precision, numbers_->mapped);

  struct {
    VkDeviceAddress parts, numbers;
    std::uint32_t count;
  } push{parts_->address, numbers_->address, static_cast<std::uint32_t>(plans.size())};
  Dispatch dispatch{pipeline({&plans[0]->rule.decision, precision}), 1, 20};
  std::memcpy(dispatch.push.data(), &push, dispatch.push_bytes);
  return dispatch;
}

void VulkanDevice::run(std::span<Plan* const> all, std::span<double> numbers) {
  require_usable();
  const std::lock_guard lock(mutex);
  std::vector<VulkanPlan*> plans;
  for (Plan* plan : all)
    if (plan->active_elements() > 0) plans.push_back(static_cast<VulkanPlan*>(plan));
  if (plans.empty()) return;

  std::vector<Transfer> up, down;
  for (VulkanPlan* plan : plans) plan->prepare(up);
  const Rule& rule = plans[0]->rule;
  std::vector<Stage> stages;
  if (rule.sums_in(numbers)) {
    for (Stage& first = stages.emplace_back(); const VulkanPlan* plan : plans) first.push_back(plan->first_pass());
    if (rule.decides) stages.push_back({decision(plans, numbers)});
  }
  if (rule.updates_in(numbers))
    for (Stage& second = stages.emplace_back(); const VulkanPlan* plan : plans) second.push_back(plan->update());
  for (VulkanPlan* plan : plans) plan->collect(down);
  queue.execute(up, stages, down);
  for (VulkanPlan* plan : plans) plan->finish();
  if (!rule.sums_in(numbers)) return;
  if (!rule.decides) {
    Totals totals(rule, numbers);
    for (const VulkanPlan* plan : plans) plan->add_up(totals);
    totals.finish();
    return;
  }
  for (std::size_t k = 0; k < numbers.size(); ++k)
    numbers[k] = control_precision() == Precision::f64
                     ? reinterpret_cast<const double*>(numbers_->mapped)[k]
                     : static_cast<double>(reinterpret_cast<const float*>(numbers_->mapped)[k]);
}

}  // namespace grilly::vulkan

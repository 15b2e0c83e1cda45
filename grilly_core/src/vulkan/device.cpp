// Opening and closing a device, its pipelines, and a run of plans.

#include "vulkan.h"

#include <algorithm>
#include <cstdlib>

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

  const VkPushConstantRange push{.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .offset = 0, .size = 32};
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

VkPipeline VulkanDevice::pipeline(const Rule& rule, Precision precision) {
  const std::lock_guard lock(pipelines_mutex_);
  VkPipeline& pipeline = pipelines_[{&rule, precision}];
  if (pipeline) return pipeline;
  const Spirv& spirv = rule.spirv[static_cast<std::size_t>(precision)];
  const VkShaderModuleCreateInfo module_info{.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                             .codeSize = spirv.count * sizeof(std::uint32_t),
                                             .pCode = spirv.words};
  VkShaderModule module;
  check(vk.vkCreateShaderModule(handle, &module_info, nullptr, &module), "vkCreateShaderModule");
  const std::uint32_t constants[] = {kLocalSize, packs};
  const VkSpecializationMapEntry entries[] = {{0, 0, sizeof constants[0]},
                                              {1, sizeof constants[0], sizeof constants[1]}};
  const VkSpecializationInfo specialization{
      .mapEntryCount = 2, .pMapEntries = entries, .dataSize = sizeof constants, .pData = constants};
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

void VulkanDevice::run(std::span<Plan* const> plans) {
  require_usable();
  const std::lock_guard lock(mutex);
  std::vector<Transfer> up, down;
  std::vector<Dispatch> dispatches;
  for (Plan* plan : plans) {
    VulkanPlan& one = *static_cast<VulkanPlan*>(plan);
    if (one.active_elements() == 0) continue;
    one.prepare(up);
    dispatches.push_back(one.dispatch());
  }
  if (dispatches.empty()) return;
  for (Plan* plan : plans) static_cast<VulkanPlan*>(plan)->collect(down);
  queue.execute(up, dispatches, down);
  for (Plan* plan : plans) static_cast<VulkanPlan*>(plan)->finish();
}

}  // namespace grilly::vulkan

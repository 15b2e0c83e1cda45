// The loader, the instance, and what the validation layer says.

#define VOLK_IMPLEMENTATION
#include "vulkan.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
#endif

namespace grilly::vulkan {
namespace {

constexpr const char* kValidationLayer = "VK_LAYER_KHRONOS_validation";

struct State {
  std::mutex mutex;
  VkInstance instance = VK_NULL_HANDLE;
  VkDebugUtilsMessengerEXT messenger = VK_NULL_HANDLE;
  std::atomic<long> pid{0};
  int devices = 0;
  std::mutex messages_mutex;
  std::vector<std::string> messages;
};

// Leaked on purpose: arrays and optimizers may be destroyed after static objects.
State& state() {
  static State* const one = new State;
  return *one;
}

bool enabled(const char* variable) {
  const char* value = std::getenv(variable);
  return value && *value && std::strcmp(value, "0") != 0;
}

VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT, VkDebugUtilsMessageTypeFlagsEXT,
                                          const VkDebugUtilsMessengerCallbackDataEXT* data, void*) {
  const std::lock_guard lock(state().messages_mutex);
  state().messages.emplace_back(data->pMessage);
  return VK_FALSE;
}

bool has_extension(const char* layer, const char* name) {
  std::uint32_t count = 0;
  vkEnumerateInstanceExtensionProperties(layer, &count, nullptr);
  std::vector<VkExtensionProperties> extensions(count);
  vkEnumerateInstanceExtensionProperties(layer, &count, extensions.data());
  for (const auto& extension : extensions)
    if (std::strcmp(extension.extensionName, name) == 0) return true;
  return false;
}

bool has_layer(const char* name) {
  std::uint32_t count = 0;
  vkEnumerateInstanceLayerProperties(&count, nullptr);
  std::vector<VkLayerProperties> layers(count);
  vkEnumerateInstanceLayerProperties(&count, layers.data());
  for (const auto& layer : layers)
    if (std::strcmp(layer.layerName, name) == 0) return true;
  return false;
}

void create_instance(State& s) {
  if (volkInitialize() != VK_SUCCESS)
    throw DeviceUnavailable(
        "there is no Vulkan loader (libvulkan.so.1) on this machine: install the GPU's driver, or libvulkan1 (Debian, "
        "Ubuntu)");
  if (volkGetInstanceVersion() < VK_API_VERSION_1_2)
    throw DeviceUnavailable("the Vulkan loader is older than version 1.2: update it");

  std::vector<const char*> layers, extensions;
  VkInstanceCreateFlags flags = 0;
  const VkDebugUtilsMessengerCreateInfoEXT messenger{
      .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
      .messageSeverity =
          VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
      .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
      .pfnUserCallback = on_message};
  const VkValidationFeatureEnableEXT synchronization = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
  const VkValidationFeaturesEXT features{.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                         .pNext = &messenger,
                                         .enabledValidationFeatureCount = 1,
                                         .pEnabledValidationFeatures = &synchronization};
  const bool validate = enabled("GRILLY_VALIDATION");
  if (validate) {
    if (!has_layer(kValidationLayer))
      throw DeviceUnavailable("GRILLY_VALIDATION is set, but the layer " + std::string(kValidationLayer) +
                              " is not installed (Debian, Ubuntu: vulkan-validationlayers)");
    layers.push_back(kValidationLayer);
    extensions.push_back(VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
  }
  // Drivers that are not fully conformant (MoltenVK) are listed only on request.
  if (has_extension(nullptr, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
    extensions.push_back(VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME);
    flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
  }
  const VkApplicationInfo application{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                      .pApplicationName = "grilly_optim",
                                      .apiVersion = VK_API_VERSION_1_2};
  const VkInstanceCreateInfo create{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                    .pNext = validate ? &features : nullptr,
                                    .flags = flags,
                                    .pApplicationInfo = &application,
                                    .enabledLayerCount = static_cast<std::uint32_t>(layers.size()),
                                    .ppEnabledLayerNames = layers.data(),
                                    .enabledExtensionCount = static_cast<std::uint32_t>(extensions.size()),
                                    .ppEnabledExtensionNames = extensions.data()};
  const VkResult result = vkCreateInstance(&create, nullptr, &s.instance);
  if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
    throw DeviceUnavailable(
        "the Vulkan loader found no driver: install the GPU's driver, or mesa-vulkan-drivers (Debian, Ubuntu)");
  if (result != VK_SUCCESS) throw DeviceUnavailable("vkCreateInstance failed with VkResult " + std::to_string(result));
  // Not volkLoadInstance: its device functions are global and would call the wrong driver when there are two.
  volkLoadInstanceOnly(s.instance);
  s.pid = process_id();
  if (validate) vkCreateDebugUtilsMessengerEXT(s.instance, &messenger, nullptr, &s.messenger);
}

}  // namespace

long process_id() {
#if defined(_WIN32)
  return _getpid();
#else
  return getpid();
#endif
}

VkInstance instance() {
  State& s = state();
  // Before the lock, which another thread may have held at the fork.
  if (s.pid != 0 && s.pid != process_id())
    throw DeviceUnavailable(
        "this process was forked from one that had already opened Vulkan, and a driver does not survive a fork: "
        "start workers with the 'spawn' method, or open Vulkan in the child only");
  const std::lock_guard lock(s.mutex);
  if (!s.instance) create_instance(s);
  return s.instance;
}

std::vector<VkPhysicalDevice> physical_devices() {
  const VkInstance from = instance();  // first of all: it loads the functions
  std::uint32_t count = 0;
  check(vkEnumeratePhysicalDevices(from, &count, nullptr), "vkEnumeratePhysicalDevices");
  std::vector<VkPhysicalDevice> devices(count);
  check(vkEnumeratePhysicalDevices(from, &count, devices.data()), "vkEnumeratePhysicalDevices");
  return devices;
}

void device_opened() {
  const std::lock_guard lock(state().mutex);
  ++state().devices;
}

void device_closed() {
  const std::lock_guard lock(state().mutex);
  --state().devices;
}

void check(VkResult result, const char* call) {
  if (result == VK_SUCCESS) return;
  const std::string text = std::string(call) + " failed with VkResult " + std::to_string(result);
  if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY) throw OutOfDeviceMemory(text);
  if (result == VK_ERROR_DEVICE_LOST) throw DeviceLost(text);
  throw DeviceUnavailable(text);
}

}  // namespace grilly::vulkan

namespace grilly {

VulkanListing vulkan_devices() {
  VulkanListing listing;
  try {
    for (VkPhysicalDevice physical : vulkan::physical_devices())
      listing.devices.push_back(vulkan::describe(physical, vulkan::enabled("GRILLY_FORCE_STAGING")));
    if (listing.devices.empty()) listing.reason = "the Vulkan loader works, but no driver lists a device";
  } catch (const std::runtime_error& error) {
    listing.reason = error.what();
  }
  return listing;
}

std::shared_ptr<Device> open_vulkan(std::size_t index) {
  const auto devices = vulkan::physical_devices();
  if (index >= devices.size()) throw DeviceUnavailable("there is no Vulkan device " + std::to_string(index));
  return std::make_shared<vulkan::VulkanDevice>(devices[index], vulkan::enabled("GRILLY_FORCE_STAGING"));
}

std::vector<std::string> take_vulkan_messages() {
  const std::lock_guard lock(vulkan::state().messages_mutex);
  return std::exchange(vulkan::state().messages, {});
}

void close_vulkan() {
  vulkan::State& s = vulkan::state();
  if (s.pid != vulkan::process_id()) return;
  const std::lock_guard lock(s.mutex);
  if (!s.instance || s.devices > 0) return;
  if (s.messenger) vkDestroyDebugUtilsMessengerEXT(s.instance, s.messenger, nullptr);
  vkDestroyInstance(s.instance, nullptr);
  s.instance = VK_NULL_HANDLE;
  s.messenger = VK_NULL_HANDLE;
}

}  // namespace grilly

// What can go wrong with a device. Messages say what was asked for and what to do.
#pragma once

#include <stdexcept>

namespace grilly {

struct DeviceUnavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct OutOfDeviceMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct DeviceLost : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace grilly

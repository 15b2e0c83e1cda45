// What the files of the Python module share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "grilly/device.h"

namespace grilly::python {

namespace py = pybind11;

// Runs shorter than this keep the GIL: handing it over costs more than the run.
constexpr std::uint64_t kReleaseGilElements = 4'096;
constexpr int kUsable = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;

inline const auto* array_of(PyObject* object) { return py::detail::array_proxy(object); }

inline bool is_array(PyObject* object) { return py::detail::npy_api::get().PyArray_Check_(object); }

inline bool has_precision(PyObject* array, Precision precision) {
  const auto* descr = py::detail::array_descriptor_proxy(array_of(array)->descr);
  const int wanted = precision == Precision::f32 ? py::detail::npy_api::NPY_FLOAT_ : py::detail::npy_api::NPY_DOUBLE_;
  constexpr char native = std::endian::native == std::endian::little ? '<' : '>';
  return descr->type_num == wanted && (descr->byteorder == '=' || descr->byteorder == native);
}

inline std::size_t elements_of(PyObject* array) {
  const auto* proxy = array_of(array);
  std::size_t elements = 1;
  for (int k = 0; k < proxy->nd; ++k) elements *= static_cast<std::size_t>(proxy->dimensions[k]);
  return elements;
}

// When the interpreter ends it kills other threads as they ask for the GIL, which must not happen inside C++: at exit
// no run gives the GIL away any more, and the ones under way are waited for.
inline std::atomic<bool> closing{false};
inline std::atomic<int> running{0};
struct Running {
  Running() { ++running; }
  ~Running() { --running; }
};

// Calls work() without the GIL, if that is worth it.
template <class Work>
void unlocked(bool worth_it, const Work& work) {
  if (!worth_it || closing) return work();
  const Running running_now;  // outlives the release: counts until this thread has the GIL again
  const py::gil_scoped_release release;
  work();
}

// bindings_trajectories.cpp
void bind_trajectories(py::module_& m, py::class_<Device, std::shared_ptr<Device>>& device);
// bindings_relaxation.cpp
void bind_relaxation(py::module_& m, py::class_<Device, std::shared_ptr<Device>>& device);

}  // namespace grilly::python

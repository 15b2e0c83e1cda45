// The Python module: arrays in, addresses out. Everything else is in the engine, which knows nothing of Python.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <limits>
#include <optional>
#include <thread>
#include <tuple>

#include "bindings.h"
#include "grilly/device.h"
#include "grilly/errors.h"
#include "grilly/sketch.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

using namespace grilly;
using namespace grilly::python;

namespace {

bool same_shape(PyObject* a, PyObject* b) {
  const auto *left = array_of(a), *right = array_of(b);
  return left->nd == right->nd && std::equal(left->dimensions, left->dimensions + left->nd, right->dimensions);
}

struct Range {
  std::uintptr_t begin, end;
};

#if !defined(_WIN32)
// A child has none of the threads whose runs were under way.
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] { running = 0; });
#endif

void shut_down() {
  closing = true;
  {
    const py::gil_scoped_release release;
    while (running > 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  close_vulkan();
}

// A plan, and the arrays it works on: they stay alive as long as their addresses are in use.
struct PyPlan {
  std::shared_ptr<Device> device;
  std::unique_ptr<Plan> plan;
  std::vector<py::object> parameters;
  std::size_t chains;                // segments per parameter: its rows, which have random streams of their own
  std::vector<std::size_t> members;  // where in a step's lists the gradient of each parameter stands
  std::vector<py::object> held;      // the step's gradients, until the run is over
  py::object done;                   // the rows of the last run that is over
  std::vector<Range> guarded;        // sorted memory of every parameter that a run may write in place

  PyPlan(std::shared_ptr<Device> device_, const std::string& rule_name, Precision precision, const py::list& arrays,
         std::vector<std::size_t> members_, std::size_t chains_, const std::vector<std::uint64_t>& elements,
         std::uint32_t stream, const std::vector<std::uint32_t>& groups)
      : device(std::move(device_)), chains(chains_), members(std::move(members_)), done(py::none()) {
    const auto& table = rules();
    const auto rule = std::find_if(table.begin(), table.end(), [&](const Rule& r) { return r.name == rule_name; });
    if (rule == table.end()) throw py::value_error("this build has no rule named '" + rule_name + "'");
    if (members.size() != arrays.size()) throw py::value_error("members must have one entry per parameter");
    if (chains == 0) throw py::value_error("a parameter has one chain or more");
    for (const std::size_t given : {elements.size(), groups.size()})
      if (given != 0 && given != arrays.size())
        throw py::value_error("elements and groups must have one entry per parameter");
    std::vector<Segment> segments;
    for (const py::handle& array : arrays) {
      if (!is_array(array.ptr()) || !has_precision(array.ptr(), precision) ||
          (array_of(array.ptr())->flags & kUsable) != kUsable)
        throw py::type_error("a plan takes contiguous arrays of its precision");
      const std::size_t each = elements_of(array.ptr()) / chains;
      if (each * chains != elements_of(array.ptr())) throw py::value_error("a parameter has a row per chain");
      for (std::size_t chain = 0; chain < chains; ++chain)
        segments.push_back({.parameter = array_of(array.ptr())->data + chain * each * size_of(precision),
                            .elements = each,
                            .element = elements.empty() ? 0 : elements[parameters.size()],
                            .stream = stream + static_cast<std::uint32_t>(chain),
                            .bucket = bucket_of(groups.empty() ? 0 : groups[parameters.size()], chain)});
      parameters.push_back(py::reinterpret_borrow<py::object>(array));
    }
    plan = device->make_plan(*rule, precision, std::move(segments));
    held.resize(parameters.size() * rule->inputs.size());
  }

  std::uint32_t bucket_of(std::uint64_t group, std::uint64_t chain) const {
    const std::uint64_t bucket = group * chains + chain;
    if (bucket >> 31) throw py::value_error("there are too many groups and chains");
    return static_cast<std::uint32_t>(bucket);
  }

  void guard(const py::list& arrays) {
    guarded.clear();
    for (const py::handle& array : arrays) {
      const auto begin = reinterpret_cast<std::uintptr_t>(array_of(array.ptr())->data);
      const std::size_t itemsize = has_precision(array.ptr(), Precision::f32) ? 4 : 8;
      if (const std::size_t bytes = elements_of(array.ptr()) * itemsize) guarded.push_back({begin, begin + bytes});
    }
    std::sort(guarded.begin(), guarded.end(), [](Range a, Range b) { return a.begin < b.begin; });
  }

  // Memory that a run may change while it still has to be read: that of any parameter, but for its own, whole.
  bool clashes(std::uintptr_t begin, std::size_t bytes, const void* own) const {
    if (bytes == 0 || begin == reinterpret_cast<std::uintptr_t>(own)) return false;
    const auto after = std::lower_bound(guarded.begin(), guarded.end(), begin + bytes,
                                        [](Range r, std::uintptr_t at) { return r.begin < at; });
    return after != guarded.begin() && std::prev(after)->end > begin;
  }

  // Whether the rule can read this array as it is, as the gradient of parameter i.
  bool fits(std::size_t i, PyObject* gradient) const {
    const Segment& segment = plan->segments.at(i * chains);
    if (!is_array(gradient) || !has_precision(gradient, plan->precision)) return false;
    const auto* proxy = array_of(gradient);
    if ((proxy->flags & kUsable) != kUsable || !same_shape(gradient, parameters[i].ptr())) return false;
    const auto address = reinterpret_cast<std::uintptr_t>(proxy->data);
    return !clashes(address, segment.elements * chains * size_of(plan->precision), segment.parameter);
  }

  // Whether parameter i is what and where it was, and can still be written.
  bool in_place(std::size_t i) const {
    PyObject* array = parameters[i].ptr();
    const auto* proxy = array_of(array);
    const Segment& first = plan->segments[i * chains];
    return proxy->data == first.parameter && elements_of(array) == first.elements * chains &&
           has_precision(array, plan->precision) && (proxy->flags & kUsable) == kUsable &&
           (proxy->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_);
  }

  // Take one list of inputs (gradients) as it is. False when one of them needs a look first: a cast, a copy, an error;
  // with `whole`, also when one is None. A parameter takes part when none of its inputs is.
  bool take(const py::handle& arrays, std::size_t input, bool whole) {
    if (!PyList_CheckExact(arrays.ptr())) return false;
    const std::size_t inputs = plan->rule.inputs.size();
    const auto given = static_cast<std::size_t>(PyList_GET_SIZE(arrays.ptr()));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (members[i] >= given) return false;
      PyObject* array = PyList_GET_ITEM(arrays.ptr(), static_cast<Py_ssize_t>(members[i]));
      const bool active = array != Py_None;
      if ((whole && !active) || !in_place(i) || (active && !fits(i, array))) return false;
      for (std::size_t k = i * chains; k < (i + 1) * chains; ++k) {
        Segment& segment = plan->segments[k];
        segment.active = active && (input == 0 || segment.active);
        if (!active) continue;
        const std::size_t row = (k - i * chains) * segment.elements * size_of(plan->precision);
        plan->inputs[k * inputs + input] = array_of(array)->data + row;
      }
      if (active) held[i * inputs + input] = py::reinterpret_borrow<py::object>(array);
    }
    return true;
  }

  // The last input is made by the engine; where it is the only one, all parameters take part.
  void draw(const Draw& draw) {
    const std::size_t inputs = plan->rule.inputs.size();
    for (std::size_t k = 0; k < plan->segments.size(); ++k) {
      plan->inputs[k * inputs + inputs - 1] = nullptr;
      if (inputs == 1) plan->segments[k].active = true;
    }
    plan->draw = draw;
  }

  void release() { std::fill(held.begin(), held.end(), py::object()); }

  // One row of scalars per (group, step count); index says which row is each parameter's, or each chain's of each
  // parameter (None: the first).
  void load(const py::handle& row_list, const py::handle& index) {
    const std::size_t width = plan->rule.scalars.size();
    plan->rows.clear();
    for (const py::handle& row : py::reinterpret_borrow<py::list>(row_list)) {
      if (!PyTuple_Check(row.ptr()) || static_cast<std::size_t>(PyTuple_GET_SIZE(row.ptr())) != width)
        throw py::value_error("rule " + std::string(plan->rule.name) + " takes rows of " + std::to_string(width) +
                              " scalars");
      for (std::size_t k = 0; k < width; ++k)
        plan->rows.push_back(PyFloat_AsDouble(PyTuple_GET_ITEM(row.ptr(), static_cast<Py_ssize_t>(k))));
      if (PyErr_Occurred()) throw py::error_already_set();
    }
    const std::size_t rows = plan->rows.size() / width;
    if (index.is_none()) {
      if (rows != 1) throw py::value_error("several rows need an index");
      for (Segment& segment : plan->segments) segment.row = 0;
      return;
    }
    // Not by ensure(), which would swallow the exception of a signal handler.
    const py::array_t<std::uint32_t, py::array::c_style | py::array::forcecast> of(
        py::reinterpret_borrow<py::object>(index));
    const std::size_t given = static_cast<std::size_t>(of.size());
    if (given != plan->segments.size() && given != parameters.size())
      throw py::value_error("index must have one entry per parameter, or one per chain of each");
    for (std::size_t i = 0; i < plan->segments.size(); ++i) {
      plan->segments[i].row = of.data()[given == plan->segments.size() ? i : i / chains];
      if (plan->segments[i].row >= rows) throw py::value_error("index points behind the last row");
    }
  }

  std::size_t field(const std::string& name) const {
    const auto& state = plan->rule.state;
    const auto at = std::find(state.begin() + 1, state.end(), name);
    if (plan->anchored() && name == "weight") return plan->field_of(Extra::weight);
    if (plan->anchored() && name == "anchor") return plan->field_of(Extra::anchor);
    if (plan->traced() && name == "trace") return plan->field_of(Extra::trace);
    const auto& parts = plan->rule.parts;
    if (const auto part = std::find(parts.begin(), parts.end(), name); plan->parted() && part != parts.end())
      return plan->field_of_part(static_cast<std::size_t>(part - parts.begin()));
    if (at == state.end())
      throw py::key_error("rule " + std::string(plan->rule.name) + " owns no state named '" + name + "'");
    return static_cast<std::size_t>(at - state.begin());
  }

  // Calls move(segment, address) for every chain of a parameter, with its row of this array.
  template <class Move>
  void each_row(std::size_t parameter, const py::array& array, bool write, const Move& move) const {
    if (parameter >= parameters.size() || !has_precision(array.ptr(), plan->precision) ||
        (array_of(array.ptr())->flags & kUsable) != kUsable ||
        elements_of(array.ptr()) != plan->segments[parameter * chains].elements * chains ||
        (write && !array.writeable()))
      throw py::value_error("state of a parameter is a contiguous array of its size and precision");
    char* row = array_of(array.ptr())->data;
    for (std::size_t k = parameter * chains; k < (parameter + 1) * chains; ++k) {
      move(k, row);
      row += plan->segments[k].elements * size_of(plan->precision);
    }
  }
};

// `rule` is anything with a name: the Python side describes rules by their NumPy twins.
std::unique_ptr<PyPlan> make_plan(const std::shared_ptr<Device>& device, const py::object& rule, const py::list& arrays,
                                  std::vector<std::size_t> members, std::size_t chains,
                                  const std::vector<std::uint64_t>& elements, std::uint32_t stream,
                                  const std::vector<std::uint32_t>& groups) {
  if (arrays.empty() || !is_array(arrays[0].ptr())) throw py::type_error("a plan takes a list of one array or more");
  return std::make_unique<PyPlan>(device, rule.attr("name").cast<std::string>(),
                                  has_precision(arrays[0].ptr(), Precision::f32) ? Precision::f32 : Precision::f64,
                                  arrays, std::move(members), chains, elements, stream, groups);
}

// What the decision of rules with sums takes and gives.
std::span<double> numbers_of(const py::object& array, const std::vector<Plan*>& plans) {
  const Rule& rule = plans[0]->rule;
  for (const Plan* plan : plans)
    if (&plan->rule != &rule && (plan->rule.sums != rule.sums || plan->rule.decides || rule.decides))
      throw py::value_error("a run with sums is a run of one rule, or of rules with the same sums and no decision");
  if (rule.sums.empty() || (rule.either && array.is_none())) return {};
  std::size_t buckets = 1;
  for (const Plan* plan : plans)
    for (const Segment& segment : plan->segments)
      buckets = std::max<std::size_t>(buckets, rule.decides ? 1 : segment.bucket + 1);
  const std::size_t needed = buckets * rule.numbers.size();
  if (!is_array(array.ptr()) || !has_precision(array.ptr(), Precision::f64) ||
      (array_of(array.ptr())->flags & kUsable) != kUsable || elements_of(array.ptr()) != needed ||
      !(array_of(array.ptr())->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_))
    throw py::value_error("rule " + std::string(rule.name) + " needs an array of " + std::to_string(needed) +
                          " doubles that it can write to");
  return {reinterpret_cast<double*>(array_of(array.ptr())->data), needed};
}

// Seed, step and purpose of what is drawn.
using Drawing = std::tuple<std::uint64_t, std::uint64_t, std::uint32_t>;

// One step: every plan takes its part of the inputs, or nothing happens and the answer is false.
bool run(Device& device, const py::list& plans, const py::tuple& inputs, const py::list& rows, const py::list& indices,
         bool whole, const py::object& numbers, double limit, double scale, const std::optional<Drawing>& draw) {
  struct Taking : std::vector<PyPlan*> {
    ~Taking() {
      for (PyPlan* plan : *this) plan->release();
    }
  } taking;
  std::vector<Plan*> runs;
  taking.reserve(plans.size());
  runs.reserve(plans.size());
  std::uint64_t elements = 0;
  for (std::size_t k = 0; k < plans.size(); ++k) {
    PyPlan& plan = plans[k].cast<PyPlan&>();
    if (plan.device.get() != &device) throw py::value_error("a plan runs on the device that made it");
    const Rule& rule = plan.plan->rule;
    plan.plan->draws = draw && rule.drawn != Drawn::none;
    if (inputs.size() + plan.plan->draws != rule.inputs.size())
      throw py::value_error("a rule takes a list for each input that is not drawn");
    taking.push_back(&plan);
    for (std::size_t input = 0; input < inputs.size(); ++input)
      if (!plan.take(inputs[input], input, whole)) return false;
    if (plan.plan->draws) plan.draw(std::make_from_tuple<Draw>(*draw));
    plan.load(rows[k], indices[k]);
    plan.plan->mix = {.limit = limit, .scale = scale};
    runs.push_back(plan.plan.get());
    elements += plan.plan->active_elements();
  }
  if (runs.empty()) return true;
  const std::span<double> in_and_out = numbers_of(numbers, runs);
  unlocked(elements >= kReleaseGilElements || device.waits(), [&] { device.run(runs, in_and_out); });
  for (PyPlan* plan : taking) {
    plan->done = rows;
    const bool measured = plan->plan->rule.sums_in(in_and_out);
    for (Segment& segment : plan->plan->segments) segment.measured = measured && segment.active;
  }
  return true;
}

// A sketch, and the plans that it looks into.
struct PySketch {
  std::shared_ptr<Device> device;
  py::list plans;
  std::unique_ptr<Sketch> sketch;

  void read(const py::object& to) {
    const SketchLayout& layout = sketch->layout;
    const std::size_t needed = layout.rows() * layout.buckets;
    if (!is_array(to.ptr()) || !has_precision(to.ptr(), Precision::f64) || elements_of(to.ptr()) != needed ||
        (array_of(to.ptr())->flags & kUsable) != kUsable ||
        !(array_of(to.ptr())->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_))
      throw py::value_error("a sketch needs an array of " + std::to_string(needed) + " doubles that it can write to");
    auto* const numbers = reinterpret_cast<double*>(array_of(to.ptr())->data);
    unlocked(layout.codes.size() * layout.rows() >= kReleaseGilElements || device->waits(),
             [&] { sketch->read(numbers); });
  }
};

// The parameters of the plans, in the order of their members, are one vector; buckets and signs are those of its
// elements.
std::unique_ptr<PySketch> make_sketch(
    const std::shared_ptr<Device>& device, const py::list& plans, const std::vector<std::string>& fields,
    const py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>& buckets,
    const py::array_t<std::int8_t, py::array::c_style | py::array::forcecast>& signs, std::size_t output_dim) {
  SketchLayout layout;
  std::vector<std::pair<std::size_t, SketchLayout::Tensor>> tensors;
  for (const py::handle& object : plans) {
    const PyPlan& plan = object.cast<const PyPlan&>();
    if (plan.device != device) throw py::value_error("a sketch is of plans of the device that makes it");
    if (!tensors.empty() && plan.chains != layout.chains)
      throw py::value_error("plans of a sketch have as many chains");
    layout.chains = plan.chains;
    std::vector<std::size_t> which;
    for (const std::string& name : fields) which.push_back(plan.field(name));
    for (std::size_t i = 0; i < plan.parameters.size(); ++i)
      tensors.push_back({plan.members[i], {plan.plan.get(), i * plan.chains, which}});
  }
  if (tensors.empty() || fields.empty() || output_dim == 0 || output_dim > kMaxSketched)
    throw py::value_error("a sketch is of one plan or more, one field or more, and has one bucket or more");
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::uint64_t elements = 0, rounded = 0;
  for (auto& [member, tensor] : tensors) {
    elements += tensor.elements();
    rounded += round_up(tensor.elements(), kSumChunk);
    layout.tensors.push_back(std::move(tensor));
  }
  if (rounded > kMaxSketched)
    throw py::value_error("a sketch is of " + std::to_string(kMaxSketched) +
                          " elements at most, tensors rounded up to " + std::to_string(kSumChunk));
  if (static_cast<std::uint64_t>(buckets.size()) != elements || static_cast<std::uint64_t>(signs.size()) != elements)
    throw py::value_error("buckets and signs must have one entry for each of " + std::to_string(elements) +
                          " elements");
  layout.codes.resize(elements);
  for (std::uint64_t i = 0; i < elements; ++i) {
    const std::int64_t bucket = buckets.data()[i];
    if (bucket < 0 || static_cast<std::uint64_t>(bucket) >= output_dim)
      throw py::value_error("a bucket lies outside of the sketch");
    layout.codes[i] = static_cast<std::uint32_t>(bucket) << 1 | (signs.data()[i] < 0);
  }
  layout.fields = fields.size();
  layout.buckets = output_dim;
  return std::make_unique<PySketch>(
      PySketch{device, py::list(plans.attr("copy")()), device->make_sketch(std::move(layout))});
}

py::dict counters(const Device& device) {
  const Counters& c = device.counters;
  py::dict result;
  result["dispatches"] = c.dispatches.load();
  result["submits"] = c.submits.load();
  result["bytes_up"] = c.bytes_up.load();
  result["bytes_down"] = c.bytes_down.load();
  result["bytes_allocated"] = c.bytes_allocated.load();
  result["allocations"] = c.allocations.load();
  return result;
}

// The three errors are defined in Python, so that they are the same classes with and without this module.
void translate(std::exception_ptr error) {
  const auto raise = [](const char* name, const std::exception& e) {
    const py::object type = py::module_::import("grilly_optim._errors").attr(name);
    PyErr_SetString(type.ptr(), e.what());
  };
  try {
    std::rethrow_exception(error);
  } catch (const DeviceUnavailable& e) {
    raise("DeviceUnavailable", e);
  } catch (const OutOfDeviceMemory& e) {
    raise("OutOfDeviceMemory", e);
  } catch (const DeviceLost& e) {
    raise("DeviceLost", e);
  }
}

py::list strings(const std::vector<std::string_view>& names) {
  py::list result;
  for (std::string_view name : names) result.append(py::str(name.data(), name.size()));
  return result;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled engine of grilly_optim. Private: use the classes of grilly_optim.";
  py::register_exception_translator(translate);

  py::class_<DeviceInfo>(m, "DeviceInfo")
      .def_readonly("name", &DeviceInfo::name)
      .def_readonly("type", &DeviceInfo::type)
      .def_readonly("uuid", &DeviceInfo::uuid)
      .def_readonly("driver", &DeviceInfo::driver)
      .def_readonly("api_version", &DeviceInfo::api_version)
      .def_readonly("reason", &DeviceInfo::reason)
      .def_readonly("float64", &DeviceInfo::float64)
      .def_readonly("shares_memory", &DeviceInfo::shares_memory)
      .def_readonly("limits", &DeviceInfo::limits);

  py::class_<Memory, std::shared_ptr<Memory>>(m, "Memory", py::buffer_protocol()).def_buffer([](Memory& memory) {
    return py::buffer_info(static_cast<std::uint8_t*>(memory.data), static_cast<py::ssize_t>(memory.size));
  });

  py::class_<PyPlan>(m, "Plan")
      .def("fits", [](const PyPlan& p, std::size_t i, const py::object& gradient) { return p.fits(i, gradient.ptr()); })
      .def_readonly("done", &PyPlan::done)
      .def("add_anchor", [](PyPlan& p) { p.plan->add_anchor(); })
      .def("add_trace", [](PyPlan& p) { p.plan->add_trace(); })
      .def("add_parts", [](PyPlan& p) { p.plan->add_parts(); })
      .def_property(
          "strength", [](const PyPlan& p) { return p.plan->strength; },
          [](PyPlan& p, double strength) { p.plan->strength = strength; })
      .def("expect_run", [](PyPlan& p) { p.plan->expect_run(); })
      .def("guard", &PyPlan::guard, py::arg("arrays"))
      .def("read_state",
           [](PyPlan& p, const std::string& field, std::size_t parameter, const py::array& to) {
             p.each_row(parameter, to, true,
                        [&](std::size_t k, void* row) { p.plan->read_state(p.field(field), k, row); });
           })
      .def("write_state", [](PyPlan& p, const std::string& field, std::size_t parameter, const py::array& from) {
        p.each_row(parameter, from, false,
                   [&](std::size_t k, void* row) { p.plan->write_state(p.field(field), k, row); });
      });

  py::class_<PySketch>(m, "Sketch").def("read", &PySketch::read, py::arg("to"));

  py::class_<Device, std::shared_ptr<Device>> device_class(m, "Device");
  device_class.def("allocate", &Device::allocate, py::arg("nbytes"))
      .def("reaches",
           [](const Device& device, const py::array& array) {
             return device.reaches(array.data(), static_cast<std::size_t>(array.nbytes()));
           })
      .def("plan", &make_plan, py::arg("rule"), py::arg("parameters"), py::arg("members"), py::arg("chains") = 1,
           py::arg("elements") = std::vector<std::uint64_t>(), py::arg("stream") = 0,
           py::arg("groups") = std::vector<std::uint32_t>())
      .def("sketch", &make_sketch, py::arg("plans"), py::arg("fields"), py::arg("buckets"), py::arg("signs"),
           py::arg("output_dim"))
      .def("run", &run, py::arg("plans"), py::arg("inputs"), py::arg("rows"), py::arg("indices"),
           py::arg("whole") = false, py::arg("numbers") = py::none(),
           py::arg("limit") = std::numeric_limits<double>::infinity(), py::arg("scale") = 1.0,
           py::arg("draw") = py::none())
      .def("counters", &counters)
      .def_property_readonly("lost", &Device::lost)
      .def("last_run_ns", &Device::last_run_ns);

  bind_trajectories(m, device_class);
  bind_relaxation(m, device_class);

  m.def("cpu_device", &cpu_device);
  m.def("cpu_instruction_set", &cpu_instruction_set);
  m.def("cpu_instruction_sets", &cpu_instruction_sets);
  m.def("cpu_threads", &cpu_threads);
  m.def("vulkan_devices", [] {
    VulkanListing listing = vulkan_devices();
    return py::make_tuple(py::cast(listing.devices), listing.reason);
  });
  m.def("open_vulkan", &open_vulkan, py::arg("index"));
  m.def("take_vulkan_messages", &take_vulkan_messages);
  m.def("shut_down", &shut_down);
  m.def("rules", [] {
    py::dict result;
    for (const Rule& rule : rules())
      result[py::str(rule.name.data(), rule.name.size())] = py::make_tuple(
          strings(rule.state), strings(rule.inputs), strings(rule.scalars), strings(rule.sums), strings(rule.numbers));
    return result;
  });
}

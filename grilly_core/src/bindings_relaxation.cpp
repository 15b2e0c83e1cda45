// Relaxations of whole networks, as Python sees them.

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "bindings.h"
#include "grilly/relaxation.h"

namespace grilly::python {
namespace {

constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string text;
  for (const std::size_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "(" + text + (shape.size() == 1 ? ",)" : ")");
}

std::uint64_t whole(const char* name, std::int64_t given, std::int64_t least) {
  if (given < least || given > kMost)
    throw py::value_error(std::string(name) + " must be from " + std::to_string(least) + " to " +
                          std::to_string(kMost) + ", got " + std::to_string(given));
  return static_cast<std::uint64_t>(given);
}

double finite(const char* name, double given, double least = -std::numeric_limits<double>::infinity()) {
  if (!std::isfinite(given) || given < least)
    throw py::value_error(std::string(name) + " must be " + (least == 0 ? "0 or more" : "finite") + ", got " +
                          py::repr(py::float_(given)).cast<std::string>());
  return given;
}

template <class T>
void want(const char* name, const std::vector<T>& given, std::size_t entries) {
  if (given.size() != entries)
    throw py::value_error(std::string(name) + " must have " + std::to_string(entries) + " entries, got " +
                          std::to_string(given.size()));
}

struct Range {
  std::string name;
  const char *begin, *end;
  bool written;
};

struct PyRelaxation {
  std::shared_ptr<Device> device;
  std::unique_ptr<Relaxation> of;

  // Where an array of this shape lies.
  void* address(const std::string& name, const py::object& array, const std::vector<std::size_t>& shape, bool written,
                std::vector<Range>& ranges) const {
    const Precision precision = of->network.precision;
    const std::string wanted = precision == Precision::f32 ? "float32" : "float64";
    if (!is_array(array.ptr()) || !has_precision(array.ptr(), precision))
      throw py::type_error(name + " must be an array of " + wanted);
    const auto* proxy = array_of(array.ptr());
    std::vector<std::size_t> given(proxy->dimensions, proxy->dimensions + proxy->nd);
    if (given != shape)
      throw py::value_error(name + " must have shape " + shape_text(shape) + ", got " + shape_text(given));
    if ((proxy->flags & kUsable) != kUsable) throw py::value_error(name + " must be contiguous and aligned");
    if (written && !(proxy->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_))
      throw py::value_error(name + " is written to, and is read-only");
    ranges.push_back({name, proxy->data, proxy->data + elements_of(array.ptr()) * size_of(precision), written});
    return proxy->data;
  }

  // A run reads and writes in an order of its own.
  static void refuse_overlaps(const std::vector<Range>& ranges) {
    for (const Range& written : ranges)
      for (const Range& other : ranges)
        if (written.written && &written != &other && written.begin < other.end && other.begin < written.end)
          throw py::value_error(written.name + " is written to, and shares memory with " + other.name);
  }

  py::tuple run(const std::vector<py::object>& u, const std::vector<py::object>& weights,
                const std::vector<py::object>& biases, const py::object& target, double beta,
                const std::vector<bool>& clamped, double step, std::int64_t count, double tol, bool per_sample,
                bool measured, std::int64_t check_every) {
    const Network& net = of->network;
    const std::size_t layers = net.layers();
    Relaxing t;
    t.beta = finite("beta", beta);
    t.step = finite("step", step);
    t.tol = finite("tol", tol, 0);
    t.count = static_cast<std::uint32_t>(whole("count", count, 0));
    t.check_every = static_cast<std::uint32_t>(whole("check_every", check_every, 1));
    t.per_sample = per_sample;
    t.measured = measured;
    t.clamped = clamped;
    want("u", u, layers);
    want("clamped", clamped, layers);
    want("weights", weights, layers - 1);
    want("biases", biases, layers - 1);
    std::vector<Range> ranges;
    const auto entry = [](const char* name, std::size_t i) { return name + ("[" + std::to_string(i)) + "]"; };
    for (std::size_t i = 0; i < layers; ++i)
      t.u.push_back(address(entry("u", i), u[i], {net.batch, net.widths[i]}, !clamped[i], ranges));
    for (std::size_t i = 0; i + 1 < layers; ++i) {
      t.weights.push_back(address(entry("weights", i), weights[i], {net.widths[i + 1], net.widths[i]}, false, ranges));
      t.biases.push_back(address(entry("biases", i), biases[i], {net.widths[i + 1]}, false, ranges));
    }
    if (!target.is_none()) {
      if (net.cost == Cost::none) throw py::value_error("target is given, and the network has no cost");
      t.target = address("target", target, {net.batch, net.widths.back()}, false, ranges);
    }
    refuse_overlaps(ranges);
    const auto size = static_cast<py::ssize_t>(net.batch);
    py::array_t<std::uint32_t> steps(size);
    py::object norms = py::none();
    t.steps = steps.mutable_data();
    if (measured || tol > 0) {
      py::array_t<double> made(size);
      t.norms = made.mutable_data();
      norms = std::move(made);
    }
    // Ctrl-C ends the run.
    t.listen = [] {
      if (closing) return;
      const py::gil_scoped_acquire acquired;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    };
    unlocked(device->waits(), [&] { of->run(t); });
    return py::make_tuple(steps, norms);
  }
};

template <class Kind>
Kind one_of(const char* argument, const std::string& given, const std::vector<std::pair<std::string, Kind>>& known) {
  std::string names;
  for (const auto& [name, kind] : known) {
    if (name == given) return kind;
    names += (names.empty() ? "'" : ", '") + name + "'";
  }
  throw py::value_error(std::string(argument) + " must be one of " + names + ", got '" + given + "'");
}

std::unique_ptr<PyRelaxation> make_relaxation(const std::shared_ptr<Device>& device, const std::string& energy,
                                              const std::string& cost, bool is_double,
                                              const std::vector<std::int64_t>& dims, std::int64_t batch,
                                              const std::vector<std::string>& phi) {
  Network net;
  net.energy = one_of<Energy>("energy", energy, {{"gaussian", Energy::gaussian}, {"hopfield", Energy::hopfield}});
  net.cost = one_of<Cost>("cost", cost,
                          {{"", Cost::none}, {"squared", Cost::squared}, {"cross_entropy", Cost::cross_entropy}});
  net.precision = is_double ? Precision::f64 : Precision::f32;
  net.batch = whole("batch", batch, 1);
  if (dims.size() < 2) throw py::value_error("dims must have 2 entries or more, got " + std::to_string(dims.size()));
  for (const std::int64_t dim : dims) net.widths.push_back(whole("dims", dim, 1));
  want("phi", phi, dims.size());
  // The choices of the rule relax, by their names.
  std::vector<std::pair<std::string, std::uint32_t>> known;
  constexpr std::string_view kPrefix = "relax_";
  for (const Rule& rule : rules())
    if (rule.name.starts_with(kPrefix)) known.emplace_back(rule.name.substr(kPrefix.size()), rule.choice);
  for (const std::string& name : phi) net.phi.push_back(one_of<std::uint32_t>("phi", name, known));
  return std::make_unique<PyRelaxation>(PyRelaxation{device, device->make_relaxation(std::move(net))});
}

}  // namespace

void bind_relaxation(py::module_& m, py::class_<Device, std::shared_ptr<Device>>& device) {
  py::class_<PyRelaxation>(m, "Relaxation")
      .def("run", &PyRelaxation::run, py::kw_only(), py::arg("u"), py::arg("weights"), py::arg("biases"),
           py::arg("target"), py::arg("beta"), py::arg("clamped"), py::arg("step"), py::arg("count"), py::arg("tol"),
           py::arg("per_sample"), py::arg("measured"), py::arg("check_every"));
  device.def("relaxation", &make_relaxation, py::arg("energy"), py::arg("cost"), py::arg("is_double"), py::arg("dims"),
             py::arg("batch"), py::arg("phi"));
}

}  // namespace grilly::python

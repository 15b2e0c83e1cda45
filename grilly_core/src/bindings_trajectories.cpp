// Chains in potentials that the engine knows, as Python sees them.

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bindings.h"
#include "grilly/trajectories.h"

namespace grilly::python {
namespace {

// What 64 bits hold whatever is added to it.
constexpr std::uint64_t kMostSeen = std::uint64_t{1} << 62;
constexpr std::size_t kMostDimensions = (std::size_t{1} << 31) - 1;
// What potentials and matrices count elements in.
constexpr std::uint64_t kMostNumbered = (std::uint64_t{1} << 32) - 1;

struct PyTrajectories {
  std::shared_ptr<Device> device;
  std::unique_ptr<Trajectories> of;

  // Where the elements of an array lie, which must be so many of the right kind; null for None.
  template <class T = void>
  T* address(const char* name, const py::object& array, std::size_t elements, bool written) const {
    if (array.is_none()) return nullptr;
    constexpr int kWriteable = py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    const bool right = is_array(array.ptr()) && [&] {
      if constexpr (std::is_void_v<T>)
        return has_precision(array.ptr(), of->precision);
      else
        return py::isinstance<py::array_t<std::remove_const_t<T>>>(array);
    }();
    if (!right || elements_of(array.ptr()) != elements || (array_of(array.ptr())->flags & kUsable) != kUsable ||
        (written && !(array_of(array.ptr())->flags & kWriteable)))
      throw py::value_error(std::string(name) + " must be a contiguous array of " + std::to_string(elements) +
                            " elements of its type");
    return reinterpret_cast<T*>(array_of(array.ptr())->data);
  }

  void run(const std::string& method, std::uint64_t count, std::uint64_t seen, std::uint64_t thin,
           std::uint32_t num_steps, double trajectory, bool jitter, double persistence, bool carried,
           std::uint32_t max_tree_depth, double delta_max, std::uint64_t seed, const py::object& streams,
           const py::object& done, const py::object& position, const py::object& momentum, const py::object& step_size,
           const py::object& adaptation, double target, double gamma, double t_0, bool dense, bool mass_per_chain,
           const py::object& inverse_mass, const py::object& root, const py::object& normal, const py::object& uniform,
           const py::object& gradient, const py::object& energy, const py::object& tally, const py::object& positions,
           const py::object& stats) {
    if (!is_array(streams.ptr()) || thin == 0 || num_steps == 0 || (method != "hmc" && method != "nuts"))
      throw py::value_error("trajectories take streams, steps, and every thin-th transition of a method they know");
    if (count > kMostCounted || seen > kMostSeen || thin > kMostSeen)
      throw py::value_error("trajectories are at most " + std::to_string(kMostCounted) + " transitions, got " +
                            std::to_string(count) + " behind " + std::to_string(seen) + ", every " +
                            std::to_string(thin) + "-th of them kept");
    const std::uint64_t most_steps = jitter ? 2 * std::uint64_t{num_steps} - 1 : num_steps;
    if (most_steps > kMostCounted || count * most_steps >= kMostNumbered)
      throw py::value_error("trajectories have at most " + std::to_string(kMostCounted) + " steps, and runs " +
                            std::to_string(kMostNumbered - 1) + " of them, got " + std::to_string(count) +
                            " trajectories of up to " + std::to_string(most_steps));
    if (method == "nuts" && !uniform.is_none())
      throw py::value_error("uniform is for method hmc: a tree takes as many numbers as it needs");
    // Leaves are counted in the precision, and halves of trees in 32 bits.
    const std::uint32_t deepest = of->precision == Precision::f32 ? 24 : 31;
    if (method == "nuts" && (max_tree_depth == 0 || max_tree_depth > deepest))
      throw py::value_error("max_tree_depth must be from 1 to " + std::to_string(deepest) + ", got " +
                            std::to_string(max_tree_depth));
    const std::size_t chains = elements_of(streams.ptr()), dim = of->dim, values = dim * chains;
    if (chains == 0) throw py::value_error("trajectories take one chain or more");
    if (dense && std::uint64_t{dim} * dim > kMostNumbered)
      throw py::value_error("a dense inverse mass has at most " + std::to_string(kMostNumbered) +
                            " elements, got one of " + std::to_string(dim) + " dimensions");
    const std::size_t mass = (dense ? dim * dim : dim) * (mass_per_chain ? chains : 1);
    Transitions t;
    t.method = method == "hmc" ? Method::hmc : Method::nuts;
    t.count = count;
    t.seen = seen;
    t.thin = thin;
    t.num_steps = num_steps;
    t.trajectory = trajectory;
    t.jitter = jitter;
    t.persistence = persistence;
    t.carried = carried;
    t.max_tree_depth = max_tree_depth;
    t.delta_max = delta_max;
    t.target = target;
    t.gamma = gamma;
    t.t_0 = t_0;
    t.seed = seed;
    t.chains = chains;
    t.streams = address<const std::uint32_t>("streams", streams, chains, false);
    auto* const behind = address<std::int64_t>("done", done, chains, true);
    t.done = behind;
    t.position = address("position", position, values, true);
    t.momentum = address("momentum", momentum, values, true);
    t.step_size = address("step_size", step_size, chains, true);
    t.adaptation = address("adaptation", adaptation, kAdaptationNumbers * chains, true);
    t.dense = dense;
    t.mass_per_chain = mass_per_chain;
    t.inverse_mass = address("inverse_mass", inverse_mass, mass, false);
    t.root = address("root", root, mass, false);
    t.normal = address("normal", normal, count * values, false);
    t.uniform = address("uniform", uniform, count * chains, false);
    t.gradient = address("gradient", gradient, values, true);
    t.energy = address("energy", energy, 2 * chains, true);
    t.tally = address("tally", tally, 2 * chains, true);
    t.positions = address("positions", positions, t.kept() * values, true);
    t.stats = address("stats", stats, t.kept() * kTransitionStats * chains, true);
    if (!t.done || !t.position || !t.step_size || !t.inverse_mass || !t.root || !t.gradient || !t.energy || !t.tally ||
        !t.positions || !t.stats || (persistence > 0 && !t.momentum))
      throw py::value_error("trajectories need an array where only some may be None");
    const auto steps = static_cast<double>(count * most_steps) * static_cast<double>(chains);
    const bool is_short = t.method == Method::hmc && t.trajectory == 0 &&
                          steps * of->step_numbers(dense) < static_cast<double>(kReleaseGilElements);
    unlocked(!is_short || device->waits(), [&] { of->run(t); });
    // Here, so that a signal that is raised on the way back cannot hide that the run is over.
    for (std::size_t chain = 0; chain < chains; ++chain) behind[chain] += static_cast<std::int64_t>(count);
  }
};

std::unique_ptr<PyTrajectories> make_trajectories(const std::shared_ptr<Device>& device, const std::string& name,
                                                  bool is_double, std::size_t dim, std::size_t rows,
                                                  const py::dict& tables, const py::dict& constants) {
  const auto& known = potentials();
  const auto potential =
      std::find_if(known.begin(), known.end(), [&](const PotentialRule& p) { return p.name == name; });
  if (potential == known.end()) throw py::value_error("this build has no potential named '" + name + "'");
  const auto given = [&](const py::dict& values, std::string_view which) -> py::object {
    const py::str key(which.data(), which.size());
    if (!values.contains(key)) throw py::value_error("potential " + name + " needs " + key.cast<std::string>());
    return values[key];
  };
  if (dim == 0 || dim > kMostDimensions || (potential->dim > 0 && dim != potential->dim))
    throw py::value_error("potential " + name + " has no " + std::to_string(dim) + " dimensions");
  if (rows > kMostNumbered)
    throw py::value_error("potential " + name + " has at most " + std::to_string(kMostNumbered) + " rows, got " +
                          std::to_string(rows));
  PotentialData data{&*potential, is_double ? Precision::f64 : Precision::f32, dim, rows, {}, {}};
  for (std::size_t k = 0; k < potential->tables.size(); ++k) {
    const py::object array = given(tables, potential->tables[k]);
    const std::size_t size = potential->sizes[k](dim, rows);
    if (size > kMostNumbered)
      throw py::value_error("table " + std::string(potential->tables[k]) + " of potential " + name + " has at most " +
                            std::to_string(kMostNumbered) + " elements, got " + std::to_string(size));
    if (!is_array(array.ptr()) || !has_precision(array.ptr(), Precision::f64) || elements_of(array.ptr()) != size ||
        (array_of(array.ptr())->flags & kUsable) != kUsable)
      throw py::value_error("table " + std::string(potential->tables[k]) + " of potential " + name +
                            " must be a contiguous array of " + std::to_string(size) + " float64 elements");
    const auto* first = reinterpret_cast<const double*>(array_of(array.ptr())->data);
    data.tables.emplace_back(first, first + size);
  }
  for (const std::string_view which : potential->constants) {
    data.constants.push_back(PyFloat_AsDouble(given(constants, which).ptr()));
    if (PyErr_Occurred()) throw py::error_already_set();
  }
  return std::make_unique<PyTrajectories>(PyTrajectories{device, device->make_trajectories(data)});
}

}  // namespace

void bind_trajectories(py::module_& m, py::class_<Device, std::shared_ptr<Device>>& device) {
  py::class_<PyTrajectories>(m, "Trajectories")
      .def(
          "step_numbers", [](const PyTrajectories& self, bool dense) { return self.of->step_numbers(dense); },
          py::arg("dense"))
      .def("run", &PyTrajectories::run, py::kw_only(), py::arg("method"), py::arg("count"), py::arg("seen"),
           py::arg("thin"), py::arg("num_steps"), py::arg("trajectory"), py::arg("jitter"), py::arg("persistence"),
           py::arg("carried"), py::arg("max_tree_depth"), py::arg("delta_max"), py::arg("seed"), py::arg("streams"),
           py::arg("done"), py::arg("position"), py::arg("momentum"), py::arg("step_size"), py::arg("adaptation"),
           py::arg("target"), py::arg("gamma"), py::arg("t_0"), py::arg("dense"), py::arg("mass_per_chain"),
           py::arg("inverse_mass"), py::arg("root"), py::arg("normal"), py::arg("uniform"), py::arg("gradient"),
           py::arg("energy"), py::arg("tally"), py::arg("positions"), py::arg("stats"));
  device.def("trajectories", &make_trajectories, py::arg("potential"), py::arg("is_double"), py::arg("dim"),
             py::arg("rows"), py::arg("tables"), py::arg("constants"));
  m.attr("TRANSITION_STATS") = kTransitionStats;
  m.attr("ADAPTATION_NUMBERS") = kAdaptationNumbers;
  m.attr("MAX_STEPS") = kMaxSteps;
  m.def("potentials", [] {
    py::dict result;
    const auto names = [](const std::vector<std::string_view>& views) {
      py::list list;
      for (const std::string_view view : views) list.append(py::str(view.data(), view.size()));
      return list;
    };
    for (const PotentialRule& potential : potentials())
      result[py::str(potential.name.data(), potential.name.size())] =
          py::make_tuple(names(potential.tables), names(potential.constants));
    return result;
  });
}

}  // namespace grilly::python

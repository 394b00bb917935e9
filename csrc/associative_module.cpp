// The Python face of the associative kernels: one call passes addresses of contiguous arrays.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "associative_problem.h"
#include "isa.h"

namespace nb = nanobind;

namespace windeye {
namespace baseline::associative { extern const windeye::associative::Kernels kernels; }
#if defined(WINDEYE_HAS_AVX2)
namespace avx2::associative { extern const windeye::associative::Kernels kernels; }
#endif
#if defined(WINDEYE_HAS_AVX512)
namespace avx512::associative { extern const windeye::associative::Kernels kernels; }
#endif
} // namespace windeye

namespace windeye {
namespace associative {

static std::vector<const Kernels *> available() {
    const Kernels *avx2 = nullptr, *avx512 = nullptr;
#if defined(WINDEYE_HAS_AVX2)
    avx2 = &windeye::avx2::associative::kernels;
#endif
#if defined(WINDEYE_HAS_AVX512)
    avx512 = &windeye::avx512::associative::kernels;
#endif
    return windeye::available(&windeye::baseline::associative::kernels, avx2, avx512);
}

using Addresses = std::vector<int64_t>;

template <class P> P *pointer(int64_t address) { return reinterpret_cast<P *>(address); }

struct Call {
    Problem problem;
    const Kernels *kernels;

    // shape: pieces, rows, tokens
    Call(bool wide, int activation, const std::vector<int> &widths, const std::vector<int64_t> &shape, double factor, int threads,
         const std::string &isa) {
        if (widths.size() < 2 || widths.size() > MOST_LAYERS + 1) throw std::invalid_argument("a memory has 1 to 8 layers");
        problem.wide = wide;
        problem.activation = Activation(activation);
        problem.layers = int(widths.size()) - 1;
        for (size_t l = 0; l < widths.size(); ++l) problem.widths[l] = widths[l];
        problem.pieces = shape[0];
        problem.rows = shape[1];
        problem.tokens = int(shape[2]);
        problem.factor = factor;
        problem.threads = threads;
        kernels = &windeye::named(available(), isa);
    }

    // query, key, value, keep, momentum, step, live, completes, anchor, weights, surge
    void set_inputs(const Addresses &a) {
        problem.query = pointer<void>(a[0]);
        problem.key = pointer<void>(a[1]);
        problem.value = pointer<void>(a[2]);
        problem.keep = pointer<void>(a[3]);
        problem.momentum = pointer<void>(a[4]);
        problem.step = pointer<void>(a[5]);
        problem.live = pointer<int64_t>(a[6]);
        problem.completes = pointer<uint8_t>(a[7]);
        problem.anchor = pointer<void>(a[8]);
        problem.weights = pointer<void>(a[9]);
        problem.surge = pointer<void>(a[10]);
    }

    // out, anchor, weights, surge, and what the backward pass needs or 0
    void set_outputs(const Addresses &a) {
        problem.out = pointer<void>(a[0]);
        problem.anchor_after = pointer<void>(a[1]);
        problem.weights_after = pointer<void>(a[2]);
        problem.surge_after = pointer<void>(a[3]);
        problem.saved = pointer<void>(a[4]);
    }

    // saved, then of out, anchor, weights, surge
    void set_gradients(const Addresses &a) {
        problem.saved = pointer<void>(a[0]);
        problem.grad_out = pointer<void>(a[1]);
        problem.grad_anchor_after = pointer<void>(a[2]);
        problem.grad_weights_after = pointer<void>(a[3]);
        problem.grad_surge_after = pointer<void>(a[4]);
    }

    // of query, key, value, keep, momentum, step, anchor, weights, surge
    void set_results(const Addresses &a) {
        problem.grad_query = pointer<void>(a[0]);
        problem.grad_key = pointer<void>(a[1]);
        problem.grad_value = pointer<void>(a[2]);
        problem.grad_keep = pointer<void>(a[3]);
        problem.grad_momentum = pointer<void>(a[4]);
        problem.grad_step = pointer<void>(a[5]);
        problem.grad_anchor = pointer<void>(a[6]);
        problem.grad_weights = pointer<void>(a[7]);
        problem.grad_surge = pointer<void>(a[8]);
    }

    void forward() {
        nb::gil_scoped_release release;
        kernels->forward(problem);
    }

    void backward() {
        nb::gil_scoped_release release;
        kernels->backward(problem);
    }
};

} // namespace associative
} // namespace windeye

void register_associative(nb::module_ &m) {
    using windeye::associative::Call;
    nb::class_<Call>(m, "AssociativeCall")
        .def(nb::init<bool, int, const std::vector<int> &, const std::vector<int64_t> &, double, int, const std::string &>())
        .def("set_inputs", &Call::set_inputs)
        .def("set_outputs", &Call::set_outputs)
        .def("set_gradients", &Call::set_gradients)
        .def("set_results", &Call::set_results)
        .def("forward", &Call::forward)
        .def("backward", &Call::backward);
}

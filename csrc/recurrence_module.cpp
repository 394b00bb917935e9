// The Python face of the recurrence kernels: one call passes addresses and strides.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "isa.h"
#include "recurrence_problem.h"

namespace nb = nanobind;

namespace windeye {
namespace baseline::recurrence { extern const windeye::recurrence::Kernels kernels; }
#if defined(WINDEYE_HAS_AVX2)
namespace avx2::recurrence { extern const windeye::recurrence::Kernels kernels; }
#endif
#if defined(WINDEYE_HAS_AVX512)
namespace avx512::recurrence { extern const windeye::recurrence::Kernels kernels; }
#endif
} // namespace windeye

namespace windeye {
namespace recurrence {

static std::vector<const Kernels *> available() {
    const Kernels *avx2 = nullptr, *avx512 = nullptr;
#if defined(WINDEYE_HAS_AVX2)
    avx2 = &windeye::avx2::recurrence::kernels;
#endif
#if defined(WINDEYE_HAS_AVX512)
    avx512 = &windeye::avx512::recurrence::kernels;
#endif
    return windeye::available(&windeye::baseline::recurrence::kernels, avx2, avx512);
}

using Strides = std::vector<int64_t>; // address, then strides of batch, token, head, dim

Tensor tensor(const Strides &s) { return {reinterpret_cast<char *>(s[0]), s[1], s[2], s[3], s[4]}; }

struct Call {
    Problem problem;
    std::vector<Sequence> sequences;
    const Kernels *kernels;

    // shape: heads, kv_heads, head_dim, value_dim, tokens, chunk; sequences: batch, start, stop of each
    Call(int type, const std::vector<int64_t> &shape, const std::vector<int64_t> &where, bool taylor, bool normalize, double scale,
         double epsilon, int threads, const std::string &isa) {
        problem.type = Type(type);
        problem.heads = int32_t(shape[0]);
        problem.kv_heads = int32_t(shape[1]);
        problem.head_dim = int32_t(shape[2]);
        problem.value_dim = int32_t(shape[3]);
        problem.tokens = shape[4];
        problem.chunk = int32_t(shape[5]);
        problem.taylor = taylor;
        problem.normalize = normalize;
        problem.scale = scale;
        problem.epsilon = epsilon;
        problem.threads = threads;
        for (size_t i = 0; i < where.size(); i += 3) sequences.push_back({where[i], where[i + 1], where[i + 2]});
        problem.sequences = sequences.data();
        problem.count = int64_t(sequences.size());
        kernels = &windeye::named(available(), isa);
    }

    void set_inputs(const Strides &query, const Strides &key, const Strides &value, const Strides &out, int64_t denominator) {
        problem.query = tensor(query);
        problem.key = tensor(key);
        problem.value = tensor(value);
        problem.out = tensor(out);
        problem.denominator = reinterpret_cast<void *>(denominator);
    }

    void set_decay(int kind, int64_t address) {
        problem.decay = DecayKind(kind);
        problem.log_decay = reinterpret_cast<const void *>(address);
    }

    void set_states(int64_t initial, int64_t final) {
        problem.initial_state = reinterpret_cast<const void *>(initial);
        problem.final_state = reinterpret_cast<void *>(final);
    }

    void set_gradients(const Strides &out, const Strides &query, const Strides &key, const Strides &value, int64_t final, int64_t initial) {
        problem.grad_out = tensor(out);
        problem.grad_query = tensor(query);
        problem.grad_key = tensor(key);
        problem.grad_value = tensor(value);
        problem.grad_final = reinterpret_cast<const void *>(final);
        problem.grad_initial = reinterpret_cast<void *>(initial);
    }

    void set_decay_gradient(int64_t rows, int64_t columns, int64_t grad, int64_t tail) {
        problem.decay_rows = reinterpret_cast<void *>(rows);
        problem.decay_columns = reinterpret_cast<void *>(columns);
        problem.grad_decay = reinterpret_cast<void *>(grad);
        problem.decay_tail = reinterpret_cast<const void *>(tail);
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

} // namespace recurrence
} // namespace windeye

void register_recurrence(nb::module_ &m) {
    using windeye::recurrence::Call;
    nb::class_<Call>(m, "RecurrenceCall")
        .def(nb::init<int, const std::vector<int64_t> &, const std::vector<int64_t> &, bool, bool, double, double, int, const std::string &>())
        .def("set_inputs", &Call::set_inputs)
        .def("set_decay", &Call::set_decay)
        .def("set_states", &Call::set_states)
        .def("set_gradients", &Call::set_gradients)
        .def("set_decay_gradient", &Call::set_decay_gradient)
        .def("forward", &Call::forward)
        .def("backward", &Call::backward);
}

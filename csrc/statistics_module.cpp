// The Python face of the statistics kernels: a call is built from addresses and strides, then run.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "isa.h"
#include "statistics_problem.h"

namespace nb = nanobind;

namespace windeye {
namespace baseline::statistics { extern const windeye::statistics::Kernels kernels; }
#if defined(WINDEYE_HAS_AVX2)
namespace avx2::statistics { extern const windeye::statistics::Kernels kernels; }
#endif
#if defined(WINDEYE_HAS_AVX512)
namespace avx512::statistics { extern const windeye::statistics::Kernels kernels; }
#endif
} // namespace windeye

namespace windeye {
namespace statistics {

static std::vector<const Kernels *> available() {
    const Kernels *avx2 = nullptr, *avx512 = nullptr;
#if defined(WINDEYE_HAS_AVX2)
    avx2 = &windeye::avx2::statistics::kernels;
#endif
#if defined(WINDEYE_HAS_AVX512)
    avx512 = &windeye::avx512::statistics::kernels;
#endif
    return windeye::available(&windeye::baseline::statistics::kernels, avx2, avx512);
}

template <class P> P *pointer(int64_t address) { return reinterpret_cast<P *>(address); }

struct Call {
    Problem problem;
    Rows row;
    const Kernels *kernels;

    // shape: batch, heads, kv_heads, head_dim, queries, keys
    Call(int type, const std::vector<int32_t> &shape, double scale, double softcap, int32_t offset, int threads, const std::string &isa) {
        problem.type = Type(type);
        problem.batch = shape[0];
        problem.heads = shape[1];
        problem.kv_heads = shape[2];
        problem.head_dim = shape[3];
        problem.queries = shape[4];
        problem.keys = shape[5];
        problem.scale = scale;
        problem.softcap = softcap;
        problem.offset = offset;
        problem.threads = threads;
        kernels = &windeye::named(available(), isa);
    }

    // Each: address, then strides of batch, token, head, dim.
    void set_inputs(const std::vector<int64_t> &query, const std::vector<int64_t> &key) {
        problem.query = tensor(query);
        problem.key = tensor(key);
    }

    void set_runs(int64_t start, int64_t stop, int32_t batch, int32_t runs) {
        problem.start = pointer<const int32_t>(start);
        problem.stop = pointer<const int32_t>(stop);
        problem.run_batch = batch;
        problem.runs = runs;
    }

    void set_sink(int64_t address) { problem.sink = pointer<const void>(address); }

    void set_bias(int64_t address, int64_t batch_stride, int64_t head_stride) {
        problem.bias = pointer<const void>(address);
        problem.bias_batch = batch_stride;
        problem.bias_head = head_stride;
    }

    void set_lse(int64_t address) { problem.lse = pointer<void>(address); }

    void set_sums(int64_t mass, int64_t entropy, int64_t squares, int64_t distance) {
        row.mass = pointer<void>(mass);
        row.entropy = pointer<void>(entropy);
        row.squares = pointer<void>(squares);
        row.distance = pointer<void>(distance);
    }

    void set_features(int64_t values, int64_t batch_stride, int32_t count, int64_t sums) {
        row.features = pointer<const void>(values);
        row.feature_batch = batch_stride;
        row.feature_count = count;
        row.feature_sums = pointer<void>(sums);
    }

    void set_tables(int64_t values, int32_t count, int32_t distances, int32_t first, int64_t sums) {
        row.tables = pointer<const void>(values);
        row.table_count = count;
        row.distances = distances;
        row.first = first;
        row.table_sums = pointer<void>(sums);
    }

    void set_top(int32_t count, int64_t weight, int64_t key) {
        if (count > MOST_TOP) throw std::invalid_argument("at most " + std::to_string(MOST_TOP) + " keys are ranked");
        row.top = count;
        row.top_weight = pointer<void>(weight);
        row.top_key = pointer<int32_t>(key);
    }

    void rows() {
        nb::gil_scoped_release release;
        kernels->rows(problem, row);
    }

    void columns(int64_t weight, int64_t weight_batch, int64_t low, int64_t high, int64_t sums) {
        nb::gil_scoped_release release;
        Columns asked;
        asked.weight = pointer<const void>(weight);
        asked.weight_batch = weight_batch;
        asked.low = low;
        asked.high = high;
        asked.sums = pointer<void>(sums);
        kernels->columns(problem, asked);
    }

    // Factors of each row: constant, entropy, squares, distance, features, tables; 0 for none. Then where gradients go.
    void backward(const std::vector<int64_t> &factors, const std::vector<int64_t> &query, const std::vector<int64_t> &key) {
        nb::gil_scoped_release release;
        Gradients asked;
        asked.constant = pointer<const void>(factors[0]);
        asked.entropy = pointer<const void>(factors[1]);
        asked.squares = pointer<const void>(factors[2]);
        asked.distance = pointer<const void>(factors[3]);
        asked.features = pointer<const void>(factors[4]);
        asked.tables = pointer<const void>(factors[5]);
        asked.query = tensor(query);
        asked.key = tensor(key);
        kernels->backward(problem, row, asked);
    }

  private:
    static Tensor tensor(const std::vector<int64_t> &s) {
        Tensor x;
        x.data = pointer<char>(s[0]);
        x.batch = s[1];
        x.axis[2] = s[2];
        x.head = s[3];
        x.dim = s[4];
        return x;
    }
};

} // namespace statistics
} // namespace windeye

void register_statistics(nb::module_ &m) {
    using windeye::statistics::Call;
    nb::class_<Call>(m, "StatisticsCall")
        .def(nb::init<int, const std::vector<int32_t> &, double, double, int32_t, int, const std::string &>())
        .def("set_inputs", &Call::set_inputs)
        .def("set_runs", &Call::set_runs)
        .def("set_sink", &Call::set_sink)
        .def("set_bias", &Call::set_bias)
        .def("set_lse", &Call::set_lse)
        .def("set_sums", &Call::set_sums)
        .def("set_features", &Call::set_features)
        .def("set_tables", &Call::set_tables)
        .def("set_top", &Call::set_top)
        .def("rows", &Call::rows)
        .def("columns", &Call::columns)
        .def("backward", &Call::backward);
}

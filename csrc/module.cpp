// The Python face of the kernels: relations are built from arrays, calls pass addresses and strides.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "isa.h"
#include "problem.h"
#include "topw.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace windeye {
#define WINDEYE_DECLARE(isa) namespace isa { extern const Kernels kernels; }
WINDEYE_DECLARE(baseline)
#if defined(WINDEYE_HAS_AVX2)
WINDEYE_DECLARE(avx2)
#endif
#if defined(WINDEYE_HAS_AVX512)
WINDEYE_DECLARE(avx512)
#endif
} // namespace windeye

using namespace windeye;

namespace {

using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<int32_t> copied(const Ints &a) { return {a.data(), a.data() + a.shape(0)}; }

std::vector<const Kernels *> available() {
    const Kernels *avx2 = nullptr, *avx512 = nullptr;
#if defined(WINDEYE_HAS_AVX2)
    avx2 = &windeye::avx2::kernels;
#endif
#if defined(WINDEYE_HAS_AVX512)
    avx512 = &windeye::avx512::kernels;
#endif
    return windeye::available(&baseline::kernels, avx2, avx512);
}

struct RelationBuilder {
    Relation relation;

    RelationBuilder(const std::vector<int32_t> &grid, const std::vector<int32_t> &grid_kv, const std::vector<int32_t> &bias_step) {
        for (int a = 0; a < AXES; ++a) {
            relation.grid[a] = grid[a];
            relation.grid_kv[a] = grid_kv[a];
            relation.bias_step[a] = bias_step[a];
        }
    }

    void add_axis(int axis, const Ints &start, const Ints &span, int32_t step, int32_t length, bool check_step) {
        if (axis == 0) relation.terms.emplace_back();
        relation.terms.back().axis[axis] = {copied(start), copied(span), step, length, check_step};
    }

    Side &side(bool transposed) { return transposed ? relation.transposed : relation.forward; }

    void set_lanes(bool transposed, int lanes, const std::vector<int32_t> &box) {
        side(transposed).lanes = lanes;
        std::copy_n(box.begin(), AXES, side(transposed).box);
    }

    void set_axis(bool transposed, int axis, const Ints &lane_order, const Ints &tile_begin, const Ints &row_order) {
        Side &s = side(transposed);
        s.lane_order[axis] = copied(lane_order);
        s.tile_begin[axis] = copied(tile_begin);
        s.row_order[axis] = copied(row_order);
    }

    void add_cover(bool transposed, const Ints &flat) {
        std::vector<Cover> cover(flat.shape(0) / 4);
        for (size_t i = 0; i < cover.size(); ++i)
            cover[i] = {flat.data()[4 * i], flat.data()[4 * i + 1], flat.data()[4 * i + 2], flat.data()[4 * i + 3]};
        side(transposed).cover.push_back(std::move(cover));
    }
};

// Asks the system to back fresh memory with huge pages: otherwise every 4 KiB fault once, on their first store.
void prefer_huge_pages(int64_t address, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
    const int64_t page = sysconf(_SC_PAGESIZE), begin = (address + page - 1) / page * page, end = (address + bytes) / page * page;
    if (end > begin) madvise(reinterpret_cast<void *>(begin), size_t(end - begin), MADV_HUGEPAGE); // a wish: failing is fine
#else
    (void)address, (void)bytes;
#endif
}

using Strides = std::vector<int64_t>; // address, then strides of batch, three axes, heads, dim

Tensor tensor(const Strides &s) {
    Tensor x;
    x.data = reinterpret_cast<char *>(s[0]);
    x.batch = s[1];
    for (int a = 0; a < AXES; ++a) x.axis[a] = s[2 + a];
    x.head = s[5];
    x.dim = s[6];
    return x;
}

struct Call {
    Problem problem;
    const Kernels *kernels;

    Call(const RelationBuilder &relation, int type, const std::vector<int32_t> &shape, double scale, int threads, const std::string &isa) {
        problem.relation = &relation.relation;
        problem.type = Type(type);
        problem.batch = shape[0];
        problem.heads = shape[1];
        problem.kv_heads = shape[2];
        problem.head_dim = shape[3];
        problem.value_dim = shape[4];
        problem.scale = scale;
        problem.threads = threads;
        kernels = &named(available(), isa);
    }

    void set_inputs(const Strides &query, const Strides &key, const Strides &value, const Strides &out, int64_t lse) {
        problem.query = tensor(query);
        problem.key = tensor(key);
        problem.value = tensor(value);
        problem.out = tensor(out);
        problem.lse = reinterpret_cast<void *>(lse);
    }

    void set_key_padding(int64_t address) { problem.key_padding = reinterpret_cast<const uint8_t *>(address); }

    void set_bias(int64_t address, const std::vector<int32_t> &size) {
        problem.bias = reinterpret_cast<const void *>(address);
        for (int a = 0; a < AXES; ++a) problem.bias_size[a] = size[a];
    }

    void set_dropout(double p, uint32_t threshold, uint32_t seed) {
        problem.dropout = p;
        problem.dropout_threshold = threshold;
        problem.seed = seed;
    }

    void set_gradients(const Strides &out, int64_t lse, int64_t delta, const Strides &query, const Strides &key, const Strides &value) {
        problem.grad_out = tensor(out);
        problem.grad_lse = reinterpret_cast<const void *>(lse);
        problem.delta = reinterpret_cast<void *>(delta);
        problem.grad_query = tensor(query);
        problem.grad_key = tensor(key);
        problem.grad_value = tensor(value);
    }

    void set_bias_gradient(int64_t address, int chunks) {
        problem.grad_bias = reinterpret_cast<void *>(address);
        problem.bias_chunks = chunks;
    }

    // expiry, its batch and heads; bias, its heads and the address of its gradient.
    void set_lifetimes(int64_t expiry, int batch, int heads, int64_t bias, int bias_heads, int64_t grad_bias) {
        problem.lifetimes = {reinterpret_cast<const int32_t *>(expiry), batch, heads, reinterpret_cast<const void *>(bias), reinterpret_cast<void *>(grad_bias), bias_heads};
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

// scores [batch, heads, keys] in float or double, hidden [batch, keys] or null, expiries [batch, heads, keys].
void topw_expiry(int64_t score, bool wide, int64_t hidden, int64_t expiry, int64_t batch, int64_t heads, int32_t keys, int32_t width, int threads) {
    nb::gil_scoped_release release;
    parallel(batch * heads, 1, threads, [] { return 0; }, [&](int, int64_t begin, int64_t end) {
        for (int64_t plane = begin; plane < end; ++plane) {
            const uint8_t *skip = hidden ? reinterpret_cast<const uint8_t *>(hidden) + plane / heads * keys : nullptr;
            int32_t *to = reinterpret_cast<int32_t *>(expiry) + plane * keys;
            if (wide) topw_expiry_of(reinterpret_cast<const double *>(score) + plane * keys, skip, keys, width, to);
            else topw_expiry_of(reinterpret_cast<const float *>(score) + plane * keys, skip, keys, width, to);
        }
    });
}

} // namespace

void register_associative(nb::module_ &m);
void register_recurrence(nb::module_ &m);
void register_statistics(nb::module_ &m);

NB_MODULE(_cpu, m) {
    nb::set_leak_warnings(false); // a graph that a script keeps to its end holds calls, and is no leak
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const Kernels *k : available()) names.emplace_back(k->name);
        return names;
    });
    m.def("prefer_huge_pages", &prefer_huge_pages);
    m.def("topw_expiry", &topw_expiry);
    nb::class_<RelationBuilder>(m, "Relation")
        .def(nb::init<const std::vector<int32_t> &, const std::vector<int32_t> &, const std::vector<int32_t> &>())
        .def("add_axis", &RelationBuilder::add_axis)
        .def("set_lanes", &RelationBuilder::set_lanes)
        .def("set_axis", &RelationBuilder::set_axis)
        .def("add_cover", &RelationBuilder::add_cover);
    nb::class_<Call>(m, "Call")
        .def(nb::init<const RelationBuilder &, int, const std::vector<int32_t> &, double, int, const std::string &>(), nb::keep_alive<1, 2>())
        .def("set_inputs", &Call::set_inputs)
        .def("set_key_padding", &Call::set_key_padding)
        .def("set_bias", &Call::set_bias)
        .def("set_dropout", &Call::set_dropout)
        .def("set_gradients", &Call::set_gradients)
        .def("set_bias_gradient", &Call::set_bias_gradient)
        .def("set_lifetimes", &Call::set_lifetimes)
        .def("forward", &Call::forward)
        .def("backward", &Call::backward);
    register_associative(m);
    register_recurrence(m);
    register_statistics(m);
}

// The kernels of statistics for one instruction set. Compiled once per set with its own flags and its own name in WINDEYE_ISA.
#include "statistics_backward.h"
#include "statistics_columns.h"
#include "statistics_rows.h"

#define WINDEYE_TEXT_OF(x) #x
#define WINDEYE_TEXT(x) WINDEYE_TEXT_OF(x)

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

static void rows(const Problem &p, const Rows &asked) {
    switch (p.type) {
    case Type::float32: return rows_as<float>(p, asked);
    case Type::bfloat16: return rows_as<bfloat16>(p, asked);
    case Type::float16: return rows_as<float16>(p, asked);
    case Type::float64: return rows_as<double>(p, asked);
    }
}

static void columns(const Problem &p, const Columns &asked) {
    switch (p.type) {
    case Type::float32: return columns_as<float>(p, asked);
    case Type::bfloat16: return columns_as<bfloat16>(p, asked);
    case Type::float16: return columns_as<float16>(p, asked);
    case Type::float64: return columns_as<double>(p, asked);
    }
}

static void backward(const Problem &p, const Rows &asked, const Gradients &gradients) {
    switch (p.type) {
    case Type::float32: return backward_as<float>(p, asked, gradients);
    case Type::bfloat16: return backward_as<bfloat16>(p, asked, gradients);
    case Type::float16: return backward_as<float16>(p, asked, gradients);
    case Type::float64: return backward_as<double>(p, asked, gradients);
    }
}

extern const windeye::statistics::Kernels kernels;
const windeye::statistics::Kernels kernels = {WINDEYE_TEXT(WINDEYE_ISA), rows, columns, backward};

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye

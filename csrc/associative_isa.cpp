// The associative kernels for one instruction set. Compiled once per set with its own flags and its own name in WINDEYE_ISA.
#include "associative_backward.h"

#define WINDEYE_TEXT_OF(x) #x
#define WINDEYE_TEXT(x) WINDEYE_TEXT_OF(x)

namespace windeye {
namespace WINDEYE_ISA {
namespace associative {

static void forward(const Problem &p) { p.wide ? forward_as<double>(p) : forward_as<float>(p); }
static void backward(const Problem &p) { p.wide ? backward_as<double>(p) : backward_as<float>(p); }

extern const windeye::associative::Kernels kernels;
const windeye::associative::Kernels kernels = {WINDEYE_TEXT(WINDEYE_ISA), forward, backward};

} // namespace associative
} // namespace WINDEYE_ISA
} // namespace windeye

// The kernels for one instruction set. Compiled once per set with its own flags and its own name in WINDEYE_ISA.
#include "lifetimes_backward.h"
#include "softmax_backward.h"

#define WINDEYE_TEXT_OF(x) #x
#define WINDEYE_TEXT(x) WINDEYE_TEXT_OF(x)

namespace windeye {
namespace WINDEYE_ISA {

template <template <class> class Pass> void by_type(const Problem &p) {
    switch (p.type) {
    case Type::float32: return Pass<float>::run(p);
    case Type::bfloat16: return Pass<bfloat16>::run(p);
    case Type::float16: return Pass<float16>::run(p);
    case Type::float64: return Pass<double>::run(p);
    }
}

template <class S> struct Forward { static void run(const Problem &p) { p.lifetimes.expiry ? live_forward_as<S>(p) : forward_as<S>(p); } };
template <class S> struct Backward { static void run(const Problem &p) { p.lifetimes.expiry ? live_backward_as<S>(p) : backward_as<S>(p); } };

extern const Kernels kernels;
const Kernels kernels = {WINDEYE_TEXT(WINDEYE_ISA), by_type<Forward>, by_type<Backward>};

} // namespace WINDEYE_ISA
} // namespace windeye

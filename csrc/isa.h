// Which of the compiled instruction sets this processor has.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace windeye {

// Best first. `Kernels` of one family for each instruction set, null where this build lacks the set.
template <class Kernels>
std::vector<const Kernels *> available(const Kernels *baseline, const Kernels *avx2, const Kernels *avx512) {
    std::vector<const Kernels *> found;
#if defined(__x86_64__)
    if (avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        found.push_back(avx512);
    if (avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(avx2);
#endif
    found.push_back(baseline);
    return found;
}

template <class Kernels> const Kernels &named(const std::vector<const Kernels *> &available, const std::string &name) {
    for (const Kernels *k : available)
        if (name.empty() || name == k->name) return *k;
    throw std::invalid_argument("this processor or build has no instruction set named " + name);
}

} // namespace windeye

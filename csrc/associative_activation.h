// Activations with their first and second derivatives; the gradients of the memory's loss are differentiated again.
#pragma once

#include <cmath>

#include "associative_problem.h"
#include "vector.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace associative {

using windeye::associative::Activation;

template <class T> struct Activated {
    Vec<T> value, slope, bend;
};

// Beyond the cap nothing below can tell the exponential from infinity.
template <class T> inline Vec<T> exponential(Vec<T> x) {
    constexpr T cap = sizeof(T) == 4 ? T(80) : T(700);
    const Vec<T> y = x > cap ? splat<T>(cap) : x;
    return exp2(y * Lanes<T>::log2e);
}

// The error function. Float: exp(-x^2) times a polynomial in 1 / (1 + x / 2), absolute error below 2e-7.
inline Vec<float> error_function(Vec<float> x) {
    using V = Vec<float>;
    const V size = x < 0.0f ? -x : x;
    const V t = 1.0f / (1.0f + 0.5f * size);
    // ln(erfc(x) / t) + x^2 as a polynomial in t.
    V p = splat<float>(0.17087277f);
    for (float c : {-0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f, -0.18628806f, 0.09678418f, 0.37409196f, 1.00002368f, -1.26551223f})
        p = p * t + c;
    const V tail = t * exponential<float>(p - size * size);
    const V r = 1.0f - tail;
    return x < 0.0f ? -r : r;
}

inline Vec<double> error_function(Vec<double> x) {
    Vec<double> r{};
    for (int i = 0; i < Lanes<double>::N; ++i) r[i] = std::erf(x[i]);
    return r;
}

template <class T> inline Activated<T> activated(Activation kind, Vec<T> x) {
    using V = Vec<T>;
    switch (kind) {
    case Activation::gelu: {
        const V below = T(0.5) * (T(1) + error_function(x * T(0.70710678118654752440)));
        const V density = T(0.39894228040143267794) * exponential<T>(T(-0.5) * x * x);
        return {x * below, below + x * density, density * (T(2) - x * x)};
    }
    case Activation::silu: {
        const V share = T(1) / (T(1) + exponential<T>(-x));
        return {x * share, share * (T(1) + x * (T(1) - share)), share * (T(1) - share) * (T(2) + x * (T(1) - T(2) * share))};
    }
    case Activation::relu: {
        const V on = x > T(0) ? splat<T>(1) : V{};
        return {x > T(0) ? x : V{}, on, V{}};
    }
    default: {
        const V t = T(1) - T(2) / (T(1) + exponential<T>(T(2) * x));
        const V slope = T(1) - t * t;
        return {t, slope, T(-2) * t * slope};
    }
    }
}

} // namespace associative
} // namespace WINDEYE_ISA
} // namespace windeye

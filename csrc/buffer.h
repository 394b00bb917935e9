// Working memory: aligned, zero at first, with whole vectors in it.
#pragma once

#include <vector>

#include "vector.h"

namespace windeye {
namespace WINDEYE_ISA {

template <class T> struct Buffer {
    std::vector<char> bytes;
    T *data = nullptr;
    void resize(int64_t count) {
        bytes.resize(size_t(count) * sizeof(T) + 64);
        data = reinterpret_cast<T *>((reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64);
    }
    operator T *() const { return data; }
};

template <class T> inline Vec<T> &at(T *x) { return *reinterpret_cast<Vec<T> *>(x); }
template <class T> inline const Vec<T> &at(const T *x) { return *reinterpret_cast<const Vec<T> *>(x); }

template <class T> inline int padded(int n) { return (n + Lanes<T>::N - 1) / Lanes<T>::N * Lanes<T>::N; }

// to[column][row] = from[row][column], both padded.
template <class T> void turn(const T *from, int64_t from_stride, int rows, int columns, T *to, int64_t to_stride) {
    constexpr int N = Lanes<T>::N;
    for (int i = 0; i < rows; i += N)
        for (int j = 0; j < columns; j += N) {
            Vec<T> block[N];
            for (int r = 0; r < N; ++r) block[r] = at(from + (i + r) * from_stride + j);
            transpose(block);
            for (int r = 0; r < N; ++r) at(to + (j + r) * to_stride + i) = block[r];
        }
}

} // namespace WINDEYE_ISA
} // namespace windeye

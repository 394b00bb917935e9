// Small dense products in registers: out[row][lane] = sum_k x[row][k] y[k][lane].
//
// The left factor is broadcast number by number, so it may lie either way round in memory; the right factor is read as
// vectors. A tile of sums stays in registers and is handed to `write`, which masks, scales or adds: results are touched
// once. `limits` gives the range of k that a tile needs, so triangles cost little more than half.
#pragma once

#include "vector.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace tiles {

#if defined(__AVX512F__)
constexpr int TILE_ROWS = 8, TILE_VECTORS = 2; // 16 of 32 registers are sums
#elif defined(__AVX2__)
constexpr int TILE_ROWS = 4, TILE_VECTORS = 1; // a vector is two of 16 registers
#elif defined(__aarch64__)
constexpr int TILE_ROWS = 4, TILE_VECTORS = 1; // a vector is four of 32 registers
#else
constexpr int TILE_ROWS = 2, TILE_VECTORS = 1; // a vector is four of 16 registers
#endif

// Rows of the next chunk that are fetched into the cache while this one is computed, a few lines for each tile: heads
// are interleaved in memory, so the processor's own prefetching sees no stream.
class Ahead {
  public:
    void add(const void *first, int64_t stride, int64_t bytes, int rows) {
        if (rows > 0) parts[filled++] = {static_cast<const char *>(first), stride, bytes, rows};
    }
    void clear() { filled = part = 0, row = offset = 0; }

    void fetch() {
        for (int line = 0; line < LINES && part < filled; ++line) {
            const Part &p = parts[part];
            __builtin_prefetch(p.first + row * p.stride + offset, 0, 2);
            if ((offset += 64) < p.bytes) continue;
            offset = 0;
            if (++row < p.rows) continue;
            row = 0;
            ++part;
        }
    }

  private:
    static constexpr int LINES = 16;
    struct Part {
        const char *first;
        int64_t stride, bytes;
        int rows;
    } parts[8];
    int filled = 0, part = 0;
    int64_t row = 0, offset = 0;
};

struct Range {
    int begin, end;
};

// How the left factor lies: rows of k, or k rows.
enum class Left { rows, columns };

template <class T, Left LEFT, int W, class Write>
inline void tile(const T *x, int64_t x_stride, const T *y, int64_t y_stride, Range k, Write &write) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    V sum[TILE_ROWS][W] = {};
    for (int i = k.begin; i < k.end; ++i) {
        V right[W];
#pragma GCC unroll 2
        for (int w = 0; w < W; ++w) right[w] = *reinterpret_cast<const V *>(y + i * y_stride + w * N);
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; ++r) {
            const T left = LEFT == Left::columns ? x[i * x_stride + r] : x[r * x_stride + i];
#pragma GCC unroll 2
            for (int w = 0; w < W; ++w) sum[r][w] += left * right[w];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 2
        for (int w = 0; w < W; ++w) write(r, w * N, sum[r][w]);
}

template <class T, Left LEFT, int W, class Limits, class Write>
inline void strip(int rows, int lane, const T *x, int64_t x_stride, const T *y, int64_t y_stride, Limits &limits, Write &write, Ahead &ahead) {
    for (int row = 0; row < rows; row += TILE_ROWS) {
        const Range k = limits(row, lane, W * Lanes<T>::N);
        if (k.begin >= k.end) continue;
        ahead.fetch();
        auto place = [&](int r, int l, Vec<T> sum) __attribute__((always_inline)) { write(row + r, lane + l, sum); };
        tile<T, LEFT, W>(LEFT == Left::columns ? x + row : x + row * x_stride, x_stride, y + lane, y_stride, k, place);
    }
}

// `rows` and `lanes` are rounded up to whole tiles: buffers are padded. Tiles without any k are not written. Tiles of
// W = 1 vector follow a triangle more closely.
template <class T, Left LEFT, int W = TILE_VECTORS, class Limits, class Write>
inline void multiply(int rows, int lanes, const T *x, int64_t x_stride, const T *y, int64_t y_stride, Ahead &ahead, Limits limits, Write write) {
    constexpr int N = Lanes<T>::N;
    int lane = 0;
    for (; lane + W * N <= lanes; lane += W * N)
        strip<T, LEFT, W>(rows, lane, x, x_stride, y, y_stride, limits, write, ahead);
    for (; lane < lanes; lane += N) strip<T, LEFT, 1>(rows, lane, x, x_stride, y, y_stride, limits, write, ahead);
}

// Limits of k for a dense product.
struct Dense {
    int inner;
    Range operator()(int, int, int) const { return {0, inner}; }
};

} // namespace tiles
} // namespace WINDEYE_ISA
} // namespace windeye

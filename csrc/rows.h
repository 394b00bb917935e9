// The rows that a lane tile sees, in blocks: which tokens they are and which lanes see each of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "problem.h"
#include "vector.h"

namespace windeye {
namespace WINDEYE_ISA {

constexpr int BLOCK = 64;   // rows handled at once: with what is made of them they stay in the first cache
constexpr int STRIP = 1024; // coordinates of the innermost axis whose masks are kept

// Where the lanes of a tile are. Each vector holds one box of tokens; at the rim of the grid some lanes hold none.
struct Tile {
    int32_t index[AXES]; // tile number per axis
    int vectors = 0;     // that hold a token
    int lanes = 0;       // of those vectors
    uint64_t filled = 0; // lanes that hold a token
    uint64_t live = 0;   // those of them that take part
    int32_t coord[AXES][MOST_LANES];
    int64_t token[MOST_LANES]; // row-major token number

    bool has(int lane) const { return filled >> lane & 1; }
};

inline void place(const Side &side, const int32_t *grid, int64_t number, int width, Tile &tile) {
    const int32_t *order[AXES];
    int32_t count[AXES];
    for (int a = AXES - 1; a >= 0; --a) {
        const int32_t n = side.tiles(a);
        tile.index[a] = int32_t(number % n);
        number /= n;
        const int32_t begin = side.tile_begin[a][tile.index[a]];
        order[a] = side.lane_order[a].data() + begin;
        count[a] = side.tile_begin[a][tile.index[a] + 1] - begin;
    }
    tile.vectors = 0;
    tile.filled = 0;
    const int32_t *box = side.box;
    for (int32_t x = 0; x < count[0]; x += box[0])
        for (int32_t y = 0; y < count[1]; y += box[1])
            for (int32_t z = 0; z < count[2]; z += box[2]) {
                int lane = tile.vectors++ * width;
                for (int32_t i = x; i < std::min(x + box[0], count[0]); ++i)
                    for (int32_t j = y; j < std::min(y + box[1], count[1]); ++j)
                        for (int32_t k = z; k < std::min(z + box[2], count[2]); ++k, ++lane) {
                            tile.coord[0][lane] = order[0][i];
                            tile.coord[1][lane] = order[1][j];
                            tile.coord[2][lane] = order[2][k];
                            tile.token[lane] = (int64_t(order[0][i]) * grid[1] + order[1][j]) * grid[2] + order[2][k];
                            tile.filled |= uint64_t(1) << lane;
                        }
            }
    tile.lanes = tile.vectors * width;
    tile.live = tile.filled;
}

// Answers, for one axis of one term, which lanes of the tile see (or are seen by) a row coordinate.
struct AxisMask {
    const AxisRelation *axis;
    bool transposed;
    int lanes;
    alignas(64) int32_t start[MOST_LANES]; // forward: of each lane's interval; transposed: the lane's own coordinate
    alignas(64) int32_t span[MOST_LANES];

    void prepare(const AxisRelation &a, const Tile &tile, int which, bool transpose) {
        axis = &a;
        transposed = transpose;
        lanes = tile.lanes;
        for (int p = 0; p < MOST_LANES; ++p) {
            const bool filled = tile.has(p);
            const int32_t c = filled ? tile.coord[which][p] : 0;
            start[p] = !filled ? 0 : transpose ? c : a.start[c];
            span[p] = !filled || transpose ? 0 : a.span[c];
        }
    }

    uint64_t bits(int32_t row) const {
        if (axis->check_step) return slow_bits(row);
        uint64_t seen = 0;
#if defined(__AVX512F__)
        const __m512i length = _mm512_set1_epi32(axis->length), zero = _mm512_setzero_si512();
        if (transposed) {
            const __m512i first = _mm512_set1_epi32(axis->start[row]), width = _mm512_set1_epi32(axis->span[row]);
            for (int p = 0; p < lanes; p += 16) {
                __m512i offset = _mm512_sub_epi32(_mm512_load_si512(start + p), first);
                offset = _mm512_mask_add_epi32(offset, _mm512_cmplt_epi32_mask(offset, zero), offset, length);
                seen |= uint64_t(_mm512_cmplt_epi32_mask(offset, width)) << p;
            }
        } else {
            const __m512i key = _mm512_set1_epi32(row);
            for (int p = 0; p < lanes; p += 16) {
                __m512i offset = _mm512_sub_epi32(key, _mm512_load_si512(start + p));
                offset = _mm512_mask_add_epi32(offset, _mm512_cmplt_epi32_mask(offset, zero), offset, length);
                seen |= uint64_t(_mm512_cmplt_epi32_mask(offset, _mm512_load_si512(span + p))) << p;
            }
        }
#else
        for (int p = 0; p < lanes; ++p) {
            int32_t offset = transposed ? start[p] - axis->start[row] : row - start[p];
            if (offset < 0) offset += axis->length;
            seen |= uint64_t(offset < (transposed ? axis->span[row] : span[p])) << p;
        }
#endif
        return seen;
    }

  private:
    uint64_t slow_bits(int32_t row) const {
        uint64_t seen = 0;
        for (int p = 0; p < lanes; ++p) {
            int32_t offset = transposed ? start[p] - axis->start[row] : row - start[p];
            if (offset < 0) offset += axis->length;
            const bool inside = offset < (transposed ? axis->span[row] : span[p]) && offset % axis->step == 0;
            seen |= uint64_t(inside) << p;
        }
        return seen;
    }
};

struct Row {
    int64_t offset_a, offset_b; // elements from the head's first token, in the two row tensors
    uint64_t mask;              // lanes that see this row
    int32_t token;              // row-major token number
    int32_t bias;               // this row's part of the bias index
};

// Walks over all rows that a tile sees, term by term; pairs that an earlier term allowed are left out of later ones.
template <class Flush>
void visit_rows(const Relation &relation, bool transposed, const Tile &tile, const Tensor &a, const Tensor &b,
                const uint8_t *hidden, const int32_t *bias_stride, Row *rows, Flush &&flush) {
    const Side &side = transposed ? relation.transposed : relation.forward;
    const int32_t *row_grid = transposed ? relation.grid : relation.grid_kv;
    const int terms = int(relation.terms.size());
    AxisMask masks[AXES];
    alignas(64) uint64_t strip_bits[STRIP];
    int32_t strip_coord[STRIP];
    int filled = 0;
    for (int t = 0; t < terms; ++t) {
        const Term &term = relation.terms[t];
        Cover cover[AXES];
        bool nothing = false;
        for (int x = 0; x < AXES; ++x) {
            cover[x] = side.cover[t * AXES + x][tile.index[x]];
            nothing |= cover[x].count == 0;
            masks[x].prepare(term.axis[x], tile, x, transposed);
        }
        if (nothing) continue;
        const auto coordinate = [&](int x, int32_t place) {
            int32_t within = cover[x].first + place;
            if (within >= cover[x].size) within -= cover[x].size;
            return side.row_order[x][cover[x].base + within];
        };
        for (int32_t strip = 0; strip < cover[2].count; strip += STRIP) {
            const int32_t width = std::min<int32_t>(STRIP, cover[2].count - strip);
            int32_t kept = 0;
            for (int32_t i = 0; i < width; ++i) {
                const int32_t c = coordinate(2, strip + i);
                const uint64_t bits = masks[2].bits(c) & tile.live;
                if (!bits) continue;
                strip_bits[kept] = bits;
                strip_coord[kept++] = c;
            }
            for (int32_t i = 0; i < cover[0].count; ++i) {
                const int32_t c0 = coordinate(0, i);
                const uint64_t bits0 = masks[0].bits(c0);
                if (!bits0) continue;
                for (int32_t j = 0; j < cover[1].count; ++j) {
                    const int32_t c1 = coordinate(1, j);
                    const uint64_t bits1 = bits0 & masks[1].bits(c1);
                    if (!bits1) continue;
                    const int32_t plane = (c0 * row_grid[1] + c1) * row_grid[2];
                    const int64_t plane_a = c0 * a.axis[0] + c1 * a.axis[1], plane_b = c0 * b.axis[0] + c1 * b.axis[1];
                    const int32_t plane_bias =
                        bias_stride ? c0 / relation.bias_step[0] * bias_stride[0] + c1 / relation.bias_step[1] * bias_stride[1] : 0;
                    for (int32_t k = 0; k < kept; ++k) {
                        uint64_t mask = bits1 & strip_bits[k];
                        if (!mask) continue;
                        const int32_t c2 = strip_coord[k], token = plane + c2;
                        if (hidden && hidden[token]) continue;
                        if (t > 0) {
                            const int32_t coord[AXES] = {c0, c1, c2};
                            for (int p = 0; p < tile.lanes; ++p) {
                                if (!(mask >> p & 1)) continue;
                                for (int s = 0; s < t; ++s) {
                                    bool earlier = true;
                                    for (int x = 0; x < AXES; ++x) {
                                        const int32_t lane = tile.coord[x][p];
                                        earlier &= transposed ? relation.terms[s].axis[x].sees(coord[x], lane)
                                                              : relation.terms[s].axis[x].sees(lane, coord[x]);
                                    }
                                    if (earlier) { mask &= ~(uint64_t(1) << p); break; }
                                }
                            }
                            if (!mask) continue;
                        }
                        Row &row = rows[filled++];
                        row.offset_a = plane_a + c2 * a.axis[2];
                        row.offset_b = plane_b + c2 * b.axis[2];
                        row.mask = mask;
                        row.token = token;
                        row.bias = bias_stride ? plane_bias + c2 / relation.bias_step[2] * bias_stride[2] : 0;
                        if (filled == BLOCK) { flush(filled); filled = 0; }
                    }
                }
            }
        }
    }
    if (filled) flush(filled);
}

// The rows of a block that one vector of lanes sees; where it sees all of them nothing is copied.
template <class T> struct Picked {
    const T *const *near = nullptr, *const *far = nullptr; // the two tensors that rows come from
    uint64_t seen[BLOCK];                                  // lanes of this vector
    int count = 0;

    void pick(const Row *block, const T *const *nears, const T *const *fars, int size, int shift, uint64_t mine) {
        rows = block, near = nears, far = fars;
        count = 0;
        for (int r = 0; r < size; ++r) {
            seen[r] = block[r].mask >> shift & mine;
            count += seen[r] != 0;
        }
        all = count == size;
        if (all) return;
        int kept = 0;
        for (int r = 0; r < size; ++r) {
            const uint64_t lanes = seen[r];
            seen[kept] = lanes;
            own_near[kept] = nears[r];
            own_far[kept] = fars[r];
            which[kept] = r;
            kept += lanes != 0;
        }
        near = own_near, far = own_far;
    }

    const Row &row(int i) const { return rows[all ? i : which[i]]; }

  private:
    const Row *rows = nullptr;
    bool all = true;
    int which[BLOCK];
    const T *own_near[BLOCK], *own_far[BLOCK];
};

} // namespace WINDEYE_ISA
} // namespace windeye

// A bound pattern as the kernels read it: interval tables, and how query and key tokens are cut into lane tiles.
#pragma once

#include <cstdint>
#include <vector>

namespace windeye {

constexpr int AXES = 3;        // grids of lower rank get leading axes of length one
constexpr int MOST_LANES = 64; // a lane tile is at most four vectors of sixteen floats; its masks fit one word
constexpr int MOST_VECTORS = 4;

// Query q sees key k on one axis iff ((k - start[q]) mod length) < span[q], and divides by step where classes mix.
struct AxisRelation {
    std::vector<int32_t> start; // already reduced modulo length
    std::vector<int32_t> span;
    int32_t step = 1;
    int32_t length = 1;
    bool check_step = false; // false when lanes and rows always share a residue class

    bool sees(int32_t q, int32_t k) const {
        int32_t offset = k - start[q];
        if (offset < 0) offset += length;
        return offset < span[q] && (!check_step || offset % step == 0);
    }
};

struct Term {
    AxisRelation axis[AXES];
};

// Rows that the lanes of one tile can see on one axis: `count` entries of the row order, starting `first` places into
// the residue class [base, base + size) and going round within it.
struct Cover {
    int32_t base, size, first, count;
};

// One direction of the relation. Forward: lanes are queries, rows are keys. Transposed: the other way round.
struct Side {
    std::vector<int32_t> lane_order[AXES]; // axis coordinates, sorted by residue class
    std::vector<int32_t> tile_begin[AXES]; // tile t holds lane_order[tile_begin[t] .. tile_begin[t + 1])
    std::vector<int32_t> row_order[AXES];
    std::vector<std::vector<Cover>> cover; // [term * AXES + axis][tile]
    int32_t box[AXES] = {1, 1, 1};         // lanes of one vector; a tile is a box of such boxes
    int lanes = 16;                        // of a whole tile

    int tiles(int axis) const { return int(tile_begin[axis].size()) - 1; }
    int64_t tiles() const { return int64_t(tiles(0)) * tiles(1) * tiles(2); }
};

struct Relation {
    int32_t grid[AXES] = {1, 1, 1};
    int32_t grid_kv[AXES] = {1, 1, 1};
    std::vector<Term> terms;
    Side forward, transposed;
    int32_t bias_step[AXES] = {1, 1, 1};
};

} // namespace windeye
